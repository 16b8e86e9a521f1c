//! Dry runs print the rules and settings that they would apply.

use interceptor_testkit::{
    command::{bounded, output},
    interceptor,
    lab::{Lab, NOTHING},
};

use crate::istio_iptables::{InPod, expect, output_text};

/// All flags that create rules.
const ALL_SETTINGS: &[&str] = &[
    "-m",
    "TPROXY",
    "-b",
    "80,8000:8010",
    "-i",
    "10.0.0.0/8,fd00::/8",
    "-x",
    "10.2.0.0/16",
    "-o",
    "22",
    "-q",
    "443",
    "-c",
    "net1,veth+",
    "-k",
    "virt0",
    "-u",
    "1337,0",
    "-g",
    "1337",
    "--drop-invalid",
    "--redirect-dns",
    "--capture-all-dns",
];

const UNPRIVILEGED: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// The kernel accepts the printed rules, and no privilege is required to print them.
#[test]
fn iptables_accepts_the_printed_rules() {
    let lab = Lab::new().expect("a lab");
    let before = lab.traces().expect("traces");
    let printed = InPod {
        lab: &lab,
        wrapper: UNPRIVILEGED,
    }
    .istio_iptables(&[ALL_SETTINGS, &["-n"]].concat());
    expect(&printed, 0, &["--drop-invalid"]);
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    let printed = String::from_utf8(printed.stdout).expect("text");
    let (v4, v6) = printed.split_once("# The same for").expect("both families");
    assert!(v4.contains("# tunnel_port = 15008"), "{v4}");
    let root = InPod::privileged(&lab);
    for (restore, rules) in [
        ("iptables-restore", v4),
        ("ip6tables-restore", &format!("#{v6}")),
    ] {
        let restored = root.run(restore, &["--noflush"], rules);
        assert!(
            restored.status.success(),
            "{restore}: {}",
            output_text(&restored)
        );
    }
}

#[test]
fn a_dry_attach_prints_settings_and_rules_as_json() {
    let lab = Lab::new().expect("a lab");
    let before = lab.traces().expect("traces");
    let resolv_conf = format!("/proc/{}/net/../status", lab.server.pid());
    let mut command = bounded(UNPRIVILEGED[0]);
    command.args(&UNPRIVILEGED[1..]).arg(interceptor::binary());
    command.arg("attach").arg("--netns").arg(lab.pod.path());
    command.args([
        "-b",
        "80",
        "--dry-run",
        "--output",
        "json",
        "--redirect-dns",
    ]);
    command.args(["--resolv-conf", &resolv_conf]);
    let output = output(&mut command, "").expect("a run");
    // That file has no server.
    expect(&output, 0, &["no DNS is captured", &resolv_conf]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["settings"]["inbound_ports"]["listed"][0]["first"], 80);
    assert_eq!(plan["settings"]["dns"], "off");
    for family in ["ipv4", "ipv6"] {
        let first = &plan["rules"][family][0];
        assert_eq!(first["table"], "nat");
        assert_eq!(first["chain"], "ISTIO_INBOUND");
        assert_eq!(first["specification"], "-p tcp --dport 15008 -j RETURN");
    }
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}
