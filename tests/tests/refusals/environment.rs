//! Values that cannot be, from the environment: the variable is named.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use interceptor_tests::lab::Lab;

use crate::{FAILED, Subjects};

/// Each variable with a bad value, and the flag that it stands for.
const BAD_VARIABLES: [(&str, &str, &str); 9] = [
    ("INBOUND_CAPTURE_PORT", "99999", "--inbound-capture-port"),
    ("PROXY_UID", "nobody-has-this", "--proxy-uid"),
    ("PROXY_GID", "no-such-group", "--proxy-gid"),
    (
        "ISTIO_INBOUND_INTERCEPTION_MODE",
        "TPROXY",
        "--istio-inbound-interception-mode",
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
    // The inbound exclusions are looked at only where all ports are captured.
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

/// What is not even text is not the same as nothing.
#[test]
fn a_variable_that_is_not_text_is_named() {
    let subjects = Subjects::new();
    // (Any mode but TPROXY means REDIRECT, and that is none.)
    let variables = BAD_VARIABLES.iter().map(|(variable, ..)| *variable);
    for variable in variables.filter(|name| *name != "ISTIO_INBOUND_INTERCEPTION_MODE") {
        subjects.refuse(FAILED, &[variable], |lab| {
            attach_with(lab, variable, OsStr::from_bytes(b"1\xff"))
        });
    }
}

/// A flag wins over its variable, whose value then does not matter.
#[test]
fn a_bad_variable_behind_a_flag_does_not_matter() {
    let subjects = Subjects::new();
    let mut command = subjects.free.attach_command(&["-i", "*"]);
    command.env("ISTIO_SERVICE_CIDR", "bad");
    interceptor_tests::lab::said(&mut command).expect("attached");
}
