//! Routing rules, many routes, and our routes when another process deletes them.

use std::{collections::HashSet, fmt::Write as _, path::Path, process::Output};

use anyhow::Result;
use clap::{Args as _, FromArgMatches as _};
use interceptor::{
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        Dataplane,
        attach::{AttachSpec, Attached},
        attach_points::AttachPoints,
        steps::{self, DataplaneAccess},
    },
    netns::{Netns as PodNetns, NetnsSpec},
    settings::{IstioFlags, Settings},
};
use interceptor_testkit::{
    bpf::maps::Map,
    command::{bounded, output, run},
    interceptor as command,
    lab::{Caller, Lab, NOTHING, STOCK, cookie, wait_until},
    users::APP,
};

use crate::lifecycle::running::Run;

/// A destination of each family, and the server that responds behind the proxy.
const V4: (&str, &str) = ("10.2.0.9:80", "proxy:15001 for 10.2.0.9:80");
const V6: (&str, &str) = ("[fd00:2::9]:80", "proxy:15001 for [fd00:2::9]:80");

/// More routes than are copied.
const TOO_MANY: u32 = 3000;

fn lab() -> Lab {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab
}

/// Runs `ip` in the pod.
fn ip(lab: &Lab, arguments: &str) {
    let command = || run(bounded("ip").args(arguments.split(' ')), "");
    lab.pod.enter(command).expect(arguments);
}

fn app_dials(lab: &Lab, to: &str) -> String {
    lab.dial(Caller::App, to).expect("a dial")
}

/// The exit code and the text, on one line.
fn status(lab: &Lab) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = output(&mut lab.command("status"), "").expect("status");
    let text = String::from_utf8_lossy(&stdout);
    let words: Vec<_> = text.split_whitespace().collect();
    (status.code(), words.join(" "))
}

/// The explanation of a connection of the app.
fn explained(lab: &Lab, to: &str) -> serde_json::Value {
    let netns = lab.pod.path().display().to_string();
    let from = format!("uid={},gid={}", APP.uid, APP.gid);
    let arguments = ["explain", "-o", "json", "--netns", &netns, "--from", &from];
    let arguments = arguments.into_iter().chain(["--to", to]);
    let explained = command::try_run(arguments).expect("explain");
    serde_json::from_slice(&explained.stdout).expect("JSON")
}

/// The many routes of `lab`.
fn many_routes(count: u32, verb: &str) -> String {
    let mut commands = String::new();
    for number in 0..count {
        let (third, fourth) = (number / 256, number % 256);
        writeln!(
            commands,
            "route {verb} 172.16.{third}.{fourth}/32 via 10.1.0.1"
        )
        .expect("text");
    }
    commands
}

/// A permitted socket must not be refused because the copy was made for another socket: here a
/// proxy that the rule affects.
#[test]
fn a_rule_on_more_than_the_destination_refuses_nothing() {
    let lab = lab();
    for (rule, selector) in [
        ("not uidrange 1000-1000", "uidrange"),
        ("not dport 80", "dport"),
        ("not fwmark 0x1", "fwmark"),
        ("not ipproto udp", "ipproto"),
        ("from 10.1.0.2", "from"),
        ("not oif lo", "oif"),
    ] {
        ip(&lab, &format!("rule add {rule} to 10.2.0.0/16 prohibit"));
        let printed = lab.attach(STOCK).expect("attached");
        assert!(
            printed.contains(&format!("selects by {selector}")),
            "{printed}"
        );
        assert_eq!(app_dials(&lab, V4.0), V4.1, "{rule}");
        assert_eq!(app_dials(&lab, V6.0), V6.1, "{rule}");
        let (code, text) = status(&lab);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains(&format!("selects by {selector}")), "{text}");
        let explained = explained(&lab, V4.0);
        assert_eq!(
            explained["outcome"]["captured"]["port"], 15001,
            "{explained}"
        );
        let note = explained["note"].as_str().expect("a note");
        assert!(note.contains(selector), "{note}");
        ip(&lab, &format!("rule del {rule} to 10.2.0.0/16 prohibit"));
    }
    lab.attach(STOCK).expect("attached");
    assert_eq!(status(&lab).0, Some(0));
}

/// IPv6 has rules of its own, and they limit IPv6 only.
#[test]
fn a_rule_of_ipv6_limits_ipv6_only() {
    let lab = lab();
    ip(
        &lab,
        "-6 rule add not uidrange 1000-1000 to fd00:2::/64 prohibit",
    );
    ip(&lab, "route add prohibit 10.9.0.0/16");
    let printed = lab.attach(STOCK).expect("attached");
    assert!(printed.contains("the IPv6 routing rule"), "{printed}");
    assert_eq!(app_dials(&lab, V6.0), V6.1);
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), "EACCES");
}

#[test]
fn rules_for_every_socket_refuse_as_before() {
    let lab = lab();
    ip(&lab, "rule add to 10.2.0.0/16 prohibit");
    ip(&lab, "rule add iif lo to 10.9.0.0/16 unreachable");
    ip(&lab, "-6 rule add to fd00:2::/64 prohibit");
    let printed = lab.attach(STOCK).expect("attached");
    assert!(!printed.contains("selects by"), "{printed}");
    assert_eq!(app_dials(&lab, V4.0), "EACCES");
    assert_eq!(app_dials(&lab, V6.0), "EACCES");
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), "ENETUNREACH");
    assert_eq!(status(&lab).0, Some(0));
}

/// A rule is a change of routing like any other, although no route changes with it.
#[test]
fn a_new_rule_makes_the_copied_routes_stale() {
    let lab = lab();
    ip(&lab, "route add prohibit 10.9.0.0/16");
    ip(&lab, "route add 10.9.0.0/16 via 10.1.0.1 table 100");
    lab.attach(STOCK).expect("attached");
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), "EACCES");
    ip(&lab, "rule add to 10.9.0.0/16 lookup 100");
    let captured = "proxy:15001 for 10.9.0.9:80";
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), captured);
}

/// Our own rule for TPROXY selects by a mark, and affects no other process.
#[test]
fn our_own_rule_limits_nothing() {
    let lab = lab();
    ip(&lab, "route add prohibit 10.9.0.0/16");
    let flags = [STOCK, &["-m", "TPROXY"]].concat();
    for _ in 0..2 {
        let printed = lab.attach(&flags).expect("attached");
        assert!(!printed.contains("selects by"), "{printed}");
    }
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), "EACCES");
    assert_eq!(status(&lab).0, Some(0));
}

/// Commands that delete the routes to the stand-ins.
const SWEEPS: [&str; 3] = [
    "ip link set lo down; ip link set lo up",
    "for family in -4 -6; do ip $family route flush table local dev lo proto 153; done",
    "ip -6 route flush table local proto 153",
];

#[test]
fn deleted_stand_in_routes_are_reported() {
    let lab = lab();
    for sweep in SWEEPS {
        lab.attach(STOCK).expect("attached");
        assert_eq!(app_dials(&lab, V6.0), V6.1, "{sweep}");
        assert_eq!(status(&lab).0, Some(0));
        shell(&lab, sweep);
        assert_eq!(app_dials(&lab, V4.0), V4.1, "{sweep}");
        let response = app_dials(&lab, V6.0);
        assert!(!response.contains(':'), "{sweep}: {response}");
        let (code, text) = status(&lab);
        assert_eq!(code, Some(3), "{sweep}: {text}");
        assert!(text.contains("routes to the stand-ins"), "{sweep}: {text}");
        let explanation = explained(&lab, V6.0);
        assert_eq!(
            explanation["outcome"], "unroutable",
            "{sweep}: {explanation}"
        );
        let reason = explanation["reason"].to_string();
        assert!(
            reason.contains("routes to the stand-ins"),
            "{sweep}: {explanation}"
        );
        let explanation = explained(&lab, V4.0);
        assert_eq!(
            explanation["outcome"]["captured"]["port"], 15001,
            "{explanation}"
        );
    }
}

/// IPv4 stand-ins are local in any case. The source address is lost.
#[test]
fn a_lost_source_address_is_reported() {
    let lab = lab();
    lab.attach(STOCK).expect("attached");
    assert_eq!(explained(&lab, V4.0)["source"], "10.1.0.2");
    shell(&lab, "ip -4 route flush table local proto 153");
    let (code, text) = status(&lab);
    assert_eq!(code, Some(3), "{text}");
    let warning = "the source address 127.0.0.1 instead of 10.1.0.2";
    assert!(text.contains(warning), "{text}");
    assert_eq!(explained(&lab, V4.0)["source"], "127.0.0.1");
    lab.attach(STOCK).expect("attached");
    assert_eq!(status(&lab).0, Some(0));
    assert_eq!(explained(&lab, V4.0)["source"], "10.1.0.2");
}

#[test]
fn run_restores_stand_in_routes() {
    let lab = lab();
    let mut running = Run::start(&lab);
    assert!(running.first_line().contains("is captured"));
    for sweep in SWEEPS {
        shell(&lab, sweep);
        wait_until("the routes", || Ok(app_dials(&lab, V6.0) == V6.1)).expect(sweep);
        assert_eq!(status(&lab).0, Some(0), "{sweep}");
    }
}

#[test]
fn a_detach_deletes_every_route() {
    let lab = lab();
    let before = lab.traces().expect("traces");
    lab.attach(STOCK).expect("attached");
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

fn shell(lab: &Lab, script: &str) {
    let run = || run(bounded("sh").args(["-ec", script]), "");
    lab.pod.enter(run).expect(script);
}

/// The IDs of the policies with routes in the shared table, one for each route.
fn owners_of_routes() -> Vec<[u8; 4]> {
    policies_in("icept_routes", 4)
}

/// The policy ID at this offset in the keys of a map.
fn policies_in(name: &str, offset: usize) -> Vec<[u8; 4]> {
    let map = Map::of_interceptor(name).expect("a map").expect(name);
    let keys = map.keys().expect("keys");
    keys.iter()
        .filter_map(|key| key.get(offset..offset + 4)?.try_into().ok())
        .collect()
}

/// The ID of the current policy of `lab`.
fn policy(lab: &Lab) -> [u8; 4] {
    let map = Map::of_interceptor("icept_policies").expect("a map");
    let map = map.expect("icept_policies");
    let cookie = cookie(&lab.pod).expect("a cookie");
    let policy = map.get(&cookie.to_ne_bytes()).expect("a look-up");
    policy.expect("a policy")[..4].try_into().expect("an ID")
}

fn count(of: [u8; 4]) -> usize {
    owners_of_routes()
        .iter()
        .filter(|owner| **owner == of)
        .count()
}

/// A pod gets a bounded part of the shared table, and then none of its routes is used.
#[test]
fn a_pod_with_too_many_routes_is_captured_without_copies() {
    let (lab, neighbour) = (lab(), lab());
    ip(&neighbour, "route add prohibit 10.9.0.0/16");
    neighbour.attach(STOCK).expect("attached");
    let of_neighbour = count(policy(&neighbour));
    ip(&lab, "route add prohibit 10.9.0.0/16");
    lab.pod.ip(&many_routes(TOO_MANY, "add")).expect("routes");
    let printed = lab.attach(STOCK).expect("attached");
    assert!(printed.contains("IPv4 routes are not copied"), "{printed}");
    assert!(count(policy(&lab)) < 64, "{}", count(policy(&lab)));
    let (code, text) = status(&lab);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("IPv4 routes are not copied"), "{text}");
    // Captured, with the right source address, and not refused because of unknown routes.
    assert_eq!(app_dials(&lab, V4.0), V4.1);
    assert_eq!(app_dials(&lab, V6.0), V6.1);
    let unknown = "proxy:15001 for 10.9.0.9:80";
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), unknown);
    assert_eq!(explained(&lab, V4.0)["source"], "10.1.0.2");
    // No other pod is affected.
    assert_eq!(count(policy(&neighbour)), of_neighbour);
    assert_eq!(app_dials(&neighbour, "10.9.0.9:80"), "EACCES");
    lab.pod.ip(&many_routes(TOO_MANY, "del")).expect("routes");
    lab.attach(STOCK).expect("attached");
    assert_eq!(app_dials(&lab, "10.9.0.9:80"), "EACCES");
    assert_eq!(status(&lab).0, Some(0));
}

/// Lists are deleted with their policy, and only those.
#[test]
fn lists_of_a_replaced_policy_are_deleted() {
    let (lab, neighbour) = (lab(), lab());
    neighbour.attach(STOCK).expect("attached");
    let of_neighbour = count(policy(&neighbour));
    lab.pod.ip(&many_routes(600, "add")).expect("routes");
    let mut deleted = HashSet::new();
    for flags in [
        ["-x", "10.7.0.0/16,fd00:7::/64", "-o", "7,8000"],
        ["-x", "10.8.0.0/16", "-o", "9"],
    ] {
        lab.attach(&[STOCK, &flags].concat()).expect("attached");
        assert!(count(policy(&lab)) > 600);
        deleted.insert(policy(&lab));
    }
    lab.attach(&["-b", "*", "-i", "*"]).expect("attached");
    assert!(!deleted.contains(&policy(&lab)));
    deleted.insert(policy(&lab));
    lab.detach().expect("detached");
    for (map, offset) in [
        ("icept_routes", 4),
        ("icept_prefixes", 4),
        ("icept_ports", 0),
        ("icept_ifaces", 0),
        ("icept_settings", 0),
    ] {
        let left = policies_in(map, offset);
        assert!(left.iter().all(|policy| !deleted.contains(policy)), "{map}");
    }
    assert_eq!(count(policy(&neighbour)), of_neighbour);
    assert_eq!(app_dials(&neighbour, V4.0), V4.1);
}

/// Counts the steps of the dataplane. Each takes the machine-wide lock and releases it; a large
/// network is read between two steps.
struct Counting {
    dataplane: Dataplane,
    steps: u32,
}

impl DataplaneAccess for Counting {
    fn access<T>(&mut self, work: impl FnOnce(&mut Dataplane) -> Result<T>) -> Result<T> {
        self.steps += 1;
        work(&mut self.dataplane)
    }
}

fn settings(flags: &[&str]) -> Settings {
    let command = IstioFlags::augment_args(clap::Command::new("settings").no_binary_name(true));
    let matches = command.get_matches_from(flags);
    let flags = IstioFlags::from_arg_matches(&matches).expect("flags");
    let parsed = Settings::from_flags(&flags, None);
    parsed.expect("settings").settings
}

impl Counting {
    fn attach(&mut self, lab: &Lab) -> (Attached, u32) {
        self.steps = 0;
        let hierarchy = Hierarchy::find().expect("a hierarchy");
        let cgroup = |path: &Path| Cgroup::open(&hierarchy, Some(path)).expect("a cgroup");
        let netns = NetnsSpec::File(lab.pod.path().to_owned());
        let netns = PodNetns::open(&netns).expect("the pod");
        let settings = settings(STOCK);
        let wanted = AttachSpec {
            pod: None,
            netns: &netns,
            attach_points: &AttachPoints::single(cgroup(lab.cgroup.path())),
            settings: &settings,
            scan_listeners: false,
        };
        let (attached, _) = steps::attach(self, &wanted).expect("attached");
        (attached, self.steps)
    }
}

#[test]
fn a_large_network_is_read_without_the_lock() {
    let lab = lab();
    let dataplane = Dataplane::new();
    let mut counting = Counting {
        dataplane,
        steps: 0,
    };
    assert_eq!(counting.attach(&lab), (Attached::New, 1));
    lab.pod.ip(&many_routes(600, "add")).expect("routes");
    let (attached, steps) = counting.attach(&lab);
    assert_eq!(attached, Attached::Refreshed);
    assert!((2..=3).contains(&steps), "{steps}");
    assert_eq!(app_dials(&lab, V4.0), V4.1);
}
