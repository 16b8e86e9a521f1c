//! Invalid values.

use interceptor_testkit::{command::bounded, interceptor};

use crate::refusals::{FAILED, GRAMMAR, Subjects};

/// Flags with an invalid value, and the words of the error: the flag, the value, what is allowed.
const BAD_SETTINGS: &[(&str, &str, &[&str])] = &[
    ("-p", "0", &["--envoy-port", "\"0\"", "1 to 65535"]),
    ("-p", "65536", &["--envoy-port", "65536", "1 to 65535"]),
    ("-p", "http", &["--envoy-port", "http", "1 to 65535"]),
    ("--envoy-port", "", &["--envoy-port", "\"\"", "1 to 65535"]),
    ("-z", "-5", &["--inbound-capture-port", "-5", "1 to 65535"]),
    (
        "-z",
        "15006,15007",
        &["--inbound-capture-port", "15006,15007"],
    ),
    (
        "-u",
        "nobody-has-this",
        &["--proxy-uid", "nobody-has-this", "4294967294"],
    ),
    ("-u", "-1", &["--proxy-uid", "-1", "4294967294"]),
    (
        "-u",
        "4294967295",
        &["--proxy-uid", "4294967295", "4294967294"],
    ),
    (
        "-g",
        "no-such-group",
        &["--proxy-gid", "no-such-group", "4294967294"],
    ),
    ("-g", "1337;", &["--proxy-gid", "1337;", "4294967294"]),
    ("-b", "80,x", &["--istio-inbound-ports", "\"x\"", "65535"]),
    ("-b", "*,80", &["--istio-inbound-ports", "*,80", "'*'"]),
    ("-b", "70000", &["--istio-inbound-ports", "70000", "65535"]),
    (
        "-b",
        "90:80",
        &["--istio-inbound-ports", "90:80", "8000:8010"],
    ),
    (
        "-d",
        "80-90",
        &["--istio-local-exclude-ports", "80-90", "8000:8010"],
    ),
    ("-d", "*", &["--istio-local-exclude-ports", "*"]),
    (
        "-o",
        "1.5",
        &["--istio-local-outbound-ports-exclude", "1.5", "65535"],
    ),
    (
        "-i",
        "10.0.0.0",
        &["--istio-service-cidr", "10.0.0.0", "10.0.0.0/16"],
    ),
    (
        "-i",
        "10.0.0.0/33",
        &["--istio-service-cidr", "10.0.0.0/33"],
    ),
    ("-i", "10.0.0/8", &["--istio-service-cidr", "10.0.0/8"]),
    (
        "-i",
        "010.0.0.0/8",
        &["--istio-service-cidr", "010.0.0.0/8", "10.0.0.0/16"],
    ),
    ("-x", "10.0.0.0/08", &["10.0.0.0/08", "10.0.0.0/16"]),
    (
        "-i",
        "10.0.0.0/8, 11.0.0.0/8",
        &["\" 11.0.0.0/8\"", "without spaces"],
    ),
    (
        "-o",
        " ",
        &["--istio-local-outbound-ports-exclude", "65535"],
    ),
    ("-o", "08080", &["08080", "65535", "without leading zeros"]),
    (
        "-u",
        "01337",
        &["01337", "4294967294", "without leading zeros"],
    ),
    (
        "-i",
        "fd00::/129",
        &["--istio-service-cidr", "fd00::/129", "fd00::/8"],
    ),
    (
        "-i",
        "fe80::1%eth0/64",
        &["--istio-service-cidr", "fe80::1%eth0/64"],
    ),
    (
        "-i",
        "*,10.0.0.0/8",
        &["--istio-service-cidr", "*,10.0.0.0/8", "'*'"],
    ),
    ("-x", "*", &["--istio-service-exclude-cidr", "*", "-i"]),
    (
        "-x",
        "all",
        &["--istio-service-exclude-cidr", "all", "10.0.0.0/16"],
    ),
    ("-e", "0", &["--inbound-tunnel-port", "\"0\"", "1 to 65535"]),
    (
        "-t",
        "1337/0xff",
        &["--istio-inbound-tproxy-mark", "1337/0xff", "0x"],
    ),
    (
        "-r",
        "main",
        &["--istio-inbound-tproxy-route-table", "main", "4294967295"],
    ),
    ("-q", "http", &["--istio-outbound-ports", "http", "65535"]),
    (
        "-c",
        "eth0 eth1",
        &["--istio-exclude-interfaces", "eth0 eth1", "eth+"],
    ),
    (
        "-k",
        "sixteen-letters-",
        &["--kube-virt-interfaces", "sixteen-letters-", "15"],
    ),
    (
        "--redirect-dns=yes",
        "",
        &["--redirect-dns", "\"yes\"", "true or false"],
    ),
    (
        "--force-iptables-binary",
        "xtables",
        &["--force-iptables-binary", "xtables", "legacy and nft"],
    ),
    // Flags of older releases.
    (
        "--restore-format=true",
        "",
        &["--restore-format", "atomically"],
    ),
    ("--clean=true", "", &["--clean", "--cleanup-only"]),
    ("--output-paths", "/x", &["--output-paths", "--dry-run"]),
    (
        "--host-nsenter-exec=true",
        "",
        &["--host-nsenter-exec", "--netns"],
    ),
    (
        "--iptables-version",
        "nft",
        &["--iptables-version", "--force-iptables-binary"],
    ),
    (
        "--iptables-trace-logging=true",
        "",
        &["--iptables-trace-logging", "run --log"],
    ),
    (
        "--dual-stack=2",
        "",
        &["--dual-stack", "\"2\"", "true or false"],
    ),
];

#[test]
fn an_invalid_setting_is_named_with_the_allowed_values() {
    let subjects = Subjects::new();
    for (flag, value, words) in BAD_SETTINGS {
        let glued = format!("{flag}={value}");
        let arguments: Vec<&str> = match (flag.contains('='), flag.starts_with("--")) {
            (true, _) => vec![flag],
            // A value that starts with a dash is a value only in `--flag=value`.
            (false, _) if value.starts_with('-') => vec![&glued],
            (false, _) => vec![flag, value],
        };
        subjects.refuse(FAILED, words, |lab| lab.attach_command(&arguments));
    }
}

/// One wrong item of a list is named, and the good ones around it are not.
#[test]
fn the_wrong_item_of_a_list_is_named() {
    let subjects = Subjects::new();
    let list = ["-i", "10.0.0.0/8,10.1.0.0/16,bad-one,10.2.0.0/16"];
    subjects.refuse(FAILED, &["--istio-service-cidr", "\"bad-one\""], |lab| {
        lab.attach_command(&list)
    });
}

#[test]
fn too_many_owners_are_refused() {
    let subjects = Subjects::new();
    let many: Vec<_> = (1..=17).map(|id| id.to_string()).collect();
    let many = many.join(",");
    for (flag, name) in [("-u", "--proxy-uid"), ("-g", "--proxy-gid")] {
        subjects.refuse(FAILED, &[name, "17", "at most 16"], |lab| {
            lab.attach_command(&[flag, &many])
        });
    }
}

/// A path does not identify the process whose resolv.conf applies.
#[test]
fn dns_of_a_namespace_without_a_process_needs_a_resolv_conf() {
    let subjects = Subjects::new();
    let words = ["--redirect-dns", "--resolv-conf", "--capture-all-dns"];
    subjects.refuse(FAILED, &words, |lab| {
        let mut command = bounded("sh");
        command.args(["-c", "exec 9<\"$POD\"; exec \"$@\"", "sh"]);
        command.arg(interceptor::binary()).arg("attach");
        command.args(["--netns", "/proc/self/fd/9", "--redirect-dns"]);
        command.env("POD", lab.pod.path());
        command
    });
    let words = ["--redirect-dns", "/no/such/file"];
    subjects.refuse(FAILED, &words, |lab| {
        lab.attach_command(&["--redirect-dns", "--resolv-conf", "/no/such/file"])
    });
}

#[test]
fn a_command_line_with_another_grammar_is_refused() {
    let subjects = Subjects::new();
    let wrong: &[(&[&str], &[&str])] = &[
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["-i"], &["--istio-service-cidr", "value"]),
        (
            &["-i", "*", "-i", "*"],
            &["--istio-service-cidr", "multiple"],
        ),
        (&["left-over"], &["left-over"]),
        (&["--netns", "2"], &["--netns", "multiple"]),
    ];
    for (arguments, words) in wrong {
        subjects.refuse(GRAMMAR, words, |lab| lab.attach_command(arguments));
    }
    subjects.refuse(GRAMMAR, &["--all"], |lab| {
        let mut command = lab.command("detach");
        command.arg("--all");
        command
    });
}

/// `run` is as strict.
#[test]
fn run_refuses_what_attach_refuses() {
    let subjects = Subjects::new();
    let words = ["--istio-service-cidr", "bad-one"];
    subjects.refuse(FAILED, &words, |lab| {
        let mut command = lab.command("run");
        command.arg("--cgroup").arg(lab.cgroup.path());
        command.args(["-i", "bad-one"]);
        command
    });
}
