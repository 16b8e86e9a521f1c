//! Invalid values in the environment: the variable is named.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use interceptor_testkit::lab::Lab;

use crate::refusals::{FAILED, Subjects};

/// Each variable with a bad value, and its flag or what is allowed.
const BAD_VARIABLES: [(&str, &str, &str); 17] = [
    ("INBOUND_CAPTURE_PORT", "99999", "--inbound-capture-port"),
    ("PROXY_UID", "nobody-has-this", "--proxy-uid"),
    ("PROXY_GID", "no-such-group", "--proxy-gid"),
    ("INBOUND_TUNNEL_PORT", "none", "--inbound-tunnel-port"),
    (
        "ISTIO_INBOUND_TPROXY_MARK",
        "010",
        "--istio-inbound-tproxy-mark",
    ),
    (
        "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        "-1",
        "--istio-inbound-tproxy-route-table",
    ),
    ("ISTIO_OUTBOUND_PORTS", "80;443", "--istio-outbound-ports"),
    (
        "ISTIO_EXCLUDE_INTERFACES",
        "a/b",
        "--istio-exclude-interfaces",
    ),
    ("KUBE_VIRT_INTERFACES", "-j", "--kube-virt-interfaces"),
    // These have no flag.
    ("ISTIO_OUTBOUND_OWNER_GROUPS", "no-such-group", "4294967294"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "1-2", "4294967294"),
    (
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        "10.0.0.1/32",
        "127.0.0.1/32",
    ),
    ("ISTIO_INBOUND_PORTS", "eighty", "--istio-inbound-ports"),
    (
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        "9:8",
        "--istio-local-exclude-ports",
    ),
    ("ISTIO_SERVICE_CIDR", "10.0.0.0/99", "--istio-service-cidr"),
    (
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "*",
        "--istio-service-exclude-cidr",
    ),
    (
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        "x",
        "--istio-local-outbound-ports-exclude",
    ),
];

fn attach_with(lab: &Lab, variable: &str, value: impl AsRef<OsStr>) -> std::process::Command {
    // The inbound exclusions are checked only where all ports are captured.
    let flags: &[&str] = match variable {
        "ISTIO_LOCAL_EXCLUDE_PORTS" => &["-b", "*"],
        _ => &[],
    };
    let mut command = lab.attach_command(flags);
    command.env(variable, value);
    command
}

#[test]
fn a_bad_variable_is_named() {
    let subjects = Subjects::new();
    for (variable, value, flag) in BAD_VARIABLES {
        subjects.refuse(FAILED, &[variable, flag, value], |lab| {
            attach_with(lab, variable, value)
        });
    }
}

/// A value that is not UTF-8 is not the same as none.
#[test]
fn a_variable_that_is_not_text_is_named() {
    let subjects = Subjects::new();
    for (variable, ..) in BAD_VARIABLES {
        subjects.refuse(FAILED, &[variable], |lab| {
            attach_with(lab, variable, OsStr::from_bytes(b"1\xff"))
        });
    }
}

/// A flag precedes its variable, whose value then does not matter.
#[test]
fn a_bad_variable_behind_a_flag_does_not_matter() {
    let subjects = Subjects::new();
    let mut command = subjects.free.attach_command(&["-i", "*"]);
    command.env("ISTIO_SERVICE_CIDR", "bad");
    interceptor_testkit::lab::stderr_of(&mut command).expect("attached");
}
