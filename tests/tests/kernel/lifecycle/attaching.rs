//! The changes of an attach, and none by the same attach again.

use std::{fs, path::Path};

use interceptor_testkit::{
    interceptor,
    lab::{Caller, Lab, NOTHING, STOCK, all_captured, all_direct},
};

/// Processes that run the product for this network namespace.
fn processes_for(netns: &Path) -> Vec<String> {
    let binary = fs::canonicalize(interceptor::binary()).expect("the binary");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == binary))
        .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|arguments| arguments.contains(&netns.display().to_string()))
        .collect()
}

#[test]
fn an_attach_is_effective_when_it_exits() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
    let printed = lab.attach(STOCK).expect("attached");
    // The first connection after it.
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    assert!(
        printed.contains(&lab.pod.path().display().to_string()),
        "{printed}"
    );
    assert!(printed.contains("captured"), "{printed}");
    assert_eq!(processes_for(lab.pod.path()), Vec::<String>::new());
}

#[test]
fn the_same_attach_again_reports_that_and_changes_nothing() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    lab.dial_all().expect("dials");
    let before = lab.traces().expect("traces");
    assert!(before.policy.is_some() && !before.links.is_empty());
    // The same settings with other spellings.
    let other_spelling = ["-p", "15001", "-i", "*", "-b", "*", "-u", "1337"];
    let rest = ["-d", " 15090,15021,,15020,", "--dual-stack=1"];
    for flags in [STOCK, &[&other_spelling[..], &rest].concat()] {
        let printed = lab.attach(flags).expect("attached again");
        assert!(
            printed.contains("already") && printed.contains("same"),
            "{printed}"
        );
        assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    }
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

/// Another path of the same netns, and one of a process in it, is the same netns.
#[test]
fn a_pod_is_identified_by_its_namespace_not_its_path() {
    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    let before = lab.traces().expect("traces");
    let pid = lab.server.pid().to_string();
    let cgroup = lab.cgroup.path().display().to_string();
    let arguments = ["detach", "--netns", &pid];
    let detached = interceptor::try_run(arguments).expect("detach");
    assert!(detached.status.success(), "{detached:?}");
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
    let arguments = ["attach", "--netns", &pid, "--cgroup", &cgroup];
    let attached = interceptor::try_run(arguments.iter().chain(STOCK)).expect("attach");
    assert!(attached.status.success(), "{attached:?}");
    let after = lab.traces().expect("traces");
    assert_eq!(after.network, before.network);
    assert_eq!(after.links.len(), before.links.len());
}

/// The proxy's original destinations follow the pod's current addresses.
#[test]
fn an_attach_follows_the_pods_new_addresses() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let before = lab.traces().expect("traces");
    lab.pod
        .ip("addr add 10.1.0.7/24 dev eth0\naddr add fd00:1::7/64 dev eth0 nodad")
        .expect("addresses");
    for to in ["10.1.0.7:8080", "[fd00:1::7]:8080"] {
        let captured = format!("proxy:15006 for {to}");
        assert_eq!(lab.dial(Caller::Client, to).expect("a dial"), captured);
        // An app that calls the pod itself is not captured.
        assert_eq!(lab.dial(Caller::App, to).expect("a dial"), "server:8080");
    }
    let printed = lab.attach(STOCK).expect("attached again");
    assert!(printed.contains("already"), "{printed}");
    let after = lab.traces().expect("traces");
    assert_ne!(after.policy, before.policy);
    assert_eq!(after.links, before.links);
    for to in ["10.1.0.7:8080", "[fd00:1::7]:8080"] {
        assert_eq!(lab.dial(Caller::App, to).expect("a dial"), "server:8080");
    }
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

/// All source addresses that the attach found are deleted, and the capture works with another.
#[test]
fn a_renumbered_pod_stays_captured() {
    const RENUMBER: &str = "
        addr del 10.1.0.2/24 dev eth0
        addr del fd00:1::2/64 dev eth0
        addr add 10.1.0.8/24 dev eth0
        addr add fd00:1::8/64 dev eth0 nodad
        route replace default via 10.1.0.1
        route replace ::/0 via fd00:1::1
    ";
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    lab.pod.ip(RENUMBER).expect("other addresses");
    for (ours, theirs, remote) in [
        ("10.1.0.8:8080", "10.1.0.2:8080", "10.2.0.9:80"),
        ("[fd00:1::8]:8080", "[fd00:1::2]:8080", "[fd00:2::9]:80"),
    ] {
        let dial = |caller, to| lab.dial(caller, to).expect("a dial");
        assert_eq!(dial(Caller::App, ours), "server:8080");
        for captured in [theirs, remote] {
            let response = format!("proxy:15001 for {captured}");
            assert_eq!(dial(Caller::App, captured), response);
        }
        assert_eq!(
            dial(Caller::Client, ours),
            format!("proxy:15006 for {ours}")
        );
    }
}
