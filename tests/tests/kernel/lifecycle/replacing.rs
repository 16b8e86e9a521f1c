//! Other settings replace the current ones in one step.

use std::collections::BTreeMap;

use anyhow::Result;
use interceptor_testkit::{
    dialler::{Dialler, Plan},
    interceptor,
    lab::{Caller, Lab, STOCK, all_captured},
    users::{APP, ROOT},
};

/// The number of changes in one test.
const CHANGES: usize = 50;

/// The app and an outside client, which dial all the time.
fn diallers(lab: &Lab, outbound: &str, inbound: &str) -> Result<[Dialler; 2]> {
    let (app, peer) = (lab.cgroup.child("pod/app")?, lab.cgroup.child("peer")?);
    Ok([
        Dialler::start(APP, &lab.pod, &app, &Plan::endless(outbound)?)?,
        Dialler::start(ROOT, &lab.peer, &peer, &Plan::endless(inbound)?)?,
    ])
}

/// At `turn` of a change between two settings: the list is another one each time, and both capture
/// the dialled destination.
fn lists(turn: usize) -> [&'static str; 10] {
    let [cidrs, ports, excluded] = match turn % 2 {
        0 => ["10.2.0.0/16,fd00:2::/64", "8080,9090", "9999"],
        _ => ["10.0.0.0/8,fd00::/8,172.16.0.0/12", "80:8080", "22,9998"],
    };
    [
        "-i",
        cidrs,
        "-b",
        ports,
        "-o",
        excluded,
        "-x",
        "192.0.2.0/24",
        "-p",
        "15001",
    ]
}

#[test]
fn no_connection_is_missed_while_settings_change() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let flags = |turn| [&lists(turn)[..], &["--dual-stack"]].concat();
    lab.attach(&flags(0)).expect("attached");
    let diallers = diallers(&lab, "10.2.0.9:80", "[fd00:1::2]:8080").expect("diallers");
    for turn in 1..=CHANGES {
        let printed = lab.attach(&flags(turn)).expect("replaced");
        assert!(printed.contains("settings updated"), "{printed}");
    }
    let responses = diallers.map(|dialler| dialler.stop().expect("outcomes"));
    for (proxy, outcomes) in ["proxy:15001", "proxy:15006"].iter().zip(&responses) {
        assert_eq!(outcomes.names(), [*proxy], "{responses:#?}");
        assert!(outcomes.dials() as usize > CHANGES, "{responses:#?}");
    }
}

/// The proxy listens on the new ports before the policy has them, as it must.
#[test]
fn ports_change_and_change_back() {
    const NEW: [&str; 4] = ["-p", "16001", "-z", "16006"];

    let lab = Lab::new().expect("a lab");
    lab.listen([15001, 15006, 16001, 16006]).expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let new = [STOCK, &NEW].concat();
    let diallers = diallers(&lab, "[fd00:2::9]:80", "10.1.0.2:8080").expect("diallers");
    for _ in 0..CHANGES / 10 {
        lab.attach(&new).expect("replaced");
        let moved = all_captured().into_iter();
        let moved: Vec<_> = moved
            .map(|response| response.replace(":150", ":160"))
            .collect();
        assert_eq!(lab.dial_all().expect("dials"), moved);
        lab.attach(STOCK).expect("replaced");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
    }
    let responses = diallers.map(|dialler| dialler.stop().expect("outcomes"));
    for (end, outcomes) in ["001", "006"].iter().zip(&responses) {
        let both = ["15", "16"].map(|prefix| format!("proxy:{prefix}{end}"));
        assert_eq!(outcomes.names(), both, "{responses:#?}");
    }
}

/// The proxy's old listeners do not count for new settings, and count again for the old ones.
#[test]
fn listeners_follow_the_ports() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let new = [STOCK, &["-p", "16001", "-z", "16006"]].concat();
    lab.attach(&new).expect("replaced");
    let refused = vec!["ECONNREFUSED"; all_captured().len()];
    assert_eq!(lab.dial_all().expect("dials"), refused);
    lab.attach(STOCK).expect("replaced");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

/// Only the current policy decides: no earlier one, and no mix of both.
#[test]
fn a_narrower_setting_captures_less_at_once() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    let none_of_it = ["-i", "192.0.2.0/24", "-b", "9090", "--dual-stack"];
    lab.attach(&none_of_it).expect("replaced");
    assert_eq!(
        lab.dial(Caller::App, "10.2.0.9:80").expect("a dial"),
        "remote:80"
    );
    let inbound = lab.dial(Caller::Client, "10.1.0.2:8080").expect("a dial");
    assert_eq!(inbound, "server:8080");
    lab.attach(&["-i", "*", "-b", "*"]).expect("replaced");
    let without_ipv6: BTreeMap<_, _> = [
        ("10.2.0.9:80", "proxy:15001 for 10.2.0.9:80"),
        ("[fd00:2::9]:80", "remote:80"),
    ]
    .into();
    for (to, response) in without_ipv6 {
        assert_eq!(lab.dial(Caller::App, to).expect("a dial"), response);
    }
}

/// The status during a change has one setting or the other.
#[test]
fn status_lists_the_pod_while_settings_change() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let excluded = ["9998", "9999"];
    let flags = |turn: usize| [STOCK, &["-o", excluded[turn % 2]]].concat();
    std::thread::scope(|scope| {
        let changes =
            scope.spawn(|| (0..CHANGES).try_for_each(|turn| lab.attach(&flags(turn)).map(drop)));
        while !changes.is_finished() {
            let netns = lab.pod.path().display().to_string();
            let arguments = ["status", "-o", "json", "--netns", &netns];
            let output = interceptor::try_run(arguments).expect("status");
            assert!(output.status.success(), "{output:?}");
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(printed.contains(&netns), "{printed}");
        }
        changes.join().expect("no panic").expect("replaced");
    });
}
