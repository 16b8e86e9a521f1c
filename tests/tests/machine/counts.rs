//! Connections are counted by direction and verdict, each once.

use anyhow::Result;
use clap::Parser;
use interceptor::{
    bpf::counts,
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        Dataplane,
        attach::{AttachSpec, Attached},
        attach_points::AttachPoints,
    },
    netns::{Netns, NetnsSpec},
    settings::{IstioFlags, Settings},
};
use interceptor_ebpf::{
    Counted,
    Direction::{self, Inbound, Outbound},
    Outcome::{self, Captured, Passed, Refused},
    Reason, Refusal,
};
use interceptor_testkit::{
    actor::{Actor, protocol::Handle},
    command::run,
    lab::{Caller, Lab, STOCK, dial, wait_until},
    node::{Driver, Manifest, Node, PROXIED, REMOTE, STRAIGHT},
    users::APP,
};
use serde_json::Value;

use crate::alone;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    flags: IstioFlags,
}

/// The lab's cgroup is the root, and its `pod` is kubepods.
fn attach_at_two_points(lab: &Lab) -> Result<Attached> {
    let hierarchy = Hierarchy::find()?;
    let kubepods = lab.cgroup.child("pod")?;
    let places = AttachPoints {
        root: Cgroup::open(&hierarchy, Some(lab.cgroup.path()))?,
        kubepods: Some(Cgroup::open(&hierarchy, Some(&kubepods))?),
        pod: None,
    };
    let flags = Flags::parse_from(["interceptor"].iter().chain(STOCK)).flags;
    let settings = Settings::from_flags_and(&flags, &|_: &str| None, None)?.settings;
    let netns = Netns::open(&NetnsSpec::File(lab.pod.path().to_owned()))?;
    Dataplane::new().attach(&AttachSpec {
        pod: None,
        netns: &netns,
        attach_points: &places,
        settings: &settings,
        scan_listeners: false,
    })
}

/// A kind of connections, and their number.
type Count = (Direction, Outcome, u64);

/// The counts while `act` runs.
fn counted(act: impl FnOnce()) -> Vec<Count> {
    let before = counts::read().expect("counts");
    act();
    let after = counts::read().expect("counts");
    let of = |counts: &[(Counted, u64)], kind| {
        let known = counts.iter().find(|(counted, _)| *counted == kind);
        known.map_or(0, |(_, count)| *count)
    };
    let more = Counted::all().map(|kind| {
        let more = of(&after, kind) - of(&before, kind);
        (kind.direction, kind.outcome, more)
    });
    more.filter(|(.., more)| *more != 0).collect()
}

fn expect(lab: &Lab, caller: Caller, to: &str, response: &str, times: usize) {
    for _ in 0..times {
        assert_eq!(lab.dial(caller, to).expect("a dial"), response);
    }
}

/// Connections of every kind.
fn talk(lab: &Lab, listeners: Vec<Handle>) {
    let to = "10.2.0.9:80";
    expect(lab, Caller::App, to, "proxy:15001 for 10.2.0.9:80", 3);
    expect(lab, Caller::App, "127.0.0.1:8080", "server:8080", 4);
    for to in [to, "[fd00:2::9]:80"] {
        assert_eq!(dial(&lab.proxy, to).expect("a dial"), "remote:80");
    }
    let to = "10.1.0.2:8080";
    expect(lab, Caller::Client, to, "proxy:15006 for 10.1.0.2:8080", 5);
    expect(lab, Caller::Client, "10.1.0.2:15021", "ECONNREFUSED", 6);
    expect(lab, Caller::App, "[fe80::1]:80", "EINVAL", 1);
    expect(lab, Caller::App, "127.200.0.1:80", "ECONNREFUSED", 2);
    lab.close(listeners).expect("closed");
    expect(lab, Caller::App, "10.2.0.9:443", "ECONNREFUSED", 7);
    expect(lab, Caller::Client, to, "ECONNREFUSED", 8);
}

/// Their counts, in the order of the numbers.
fn expected() -> Vec<Count> {
    vec![
        (Outbound, Passed(Reason::AppToSelf), 4),
        (Outbound, Passed(Reason::ProxyUidGid), 2),
        (Outbound, Captured(Reason::PrefixIncluded), 3 + 1 + 7),
        (Outbound, Refused(Refusal::NoRoute), 1),
        (Outbound, Refused(Refusal::UnknownStandIn), 2),
        (Outbound, Refused(Refusal::NoListener), 7),
        (Inbound, Passed(Reason::InboundPortExcluded), 6),
        (Inbound, Captured(Reason::InboundPortIncluded), 5 + 8),
        (Inbound, Refused(Refusal::NoListener), 8),
    ]
}

#[test]
fn connections_are_counted_by_verdict() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    let listeners = lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    assert_eq!(counted(|| talk(&lab, listeners)), expected());
}

/// Connections that kubepods' program has captured, passed or refused are not counted at the root.
#[test]
fn connections_at_two_attach_points_are_counted_once() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    let listeners = lab.start_proxy().expect("a proxy");
    attach_at_two_points(&lab).expect("attached");
    let elsewhere = lab.cgroup.child("elsewhere").expect("a cgroup");
    let stranger = Actor::start("app", APP, lab.pod.namespace(), Some(&elsewhere));
    let stranger = stranger.expect("an actor");
    // A socket that only the root's program handles is counted, too.
    let counted_once = counted(|| {
        for _ in 0..3 {
            let response = dial(&stranger, "127.0.0.1:8080").expect("a dial");
            assert_eq!(response, "server:8080");
        }
    });
    assert_eq!(counted_once, [(Outbound, Passed(Reason::AppToSelf), 3)]);
    assert_eq!(counted(|| talk(&lab, listeners)), expected());
}

/// The counts of the lab's pod in `status`.
fn of_pod(lab: &Lab) -> Vec<Count> {
    let text = run(lab.command("status").args(["-o", "json"]), "").expect("a status");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    let kinds: Vec<_> = Counted::all().collect();
    let rows = status[0]["connections"].as_array().expect("connections");
    rows.iter()
        .map(|row| {
            let kind = kinds.iter().find(|kind| is_labeled(**kind, row));
            let kind = kind.expect("known labels");
            let count = row["count"].as_u64().expect("a count");
            (kind.direction, kind.outcome, count)
        })
        .collect()
}

fn is_labeled(kind: Counted, row: &Value) -> bool {
    let direction = match kind.direction {
        Outbound => "outbound",
        Inbound => "inbound",
    };
    let (verdict, reason) = match kind.outcome {
        Passed(reason) => ("PASSED", reason.name()),
        Captured(reason) => ("CAPTURED", reason.name()),
        Refused(refusal) => ("REFUSED", refusal.name()),
    };
    row["direction"] == direction && row["verdict"] == verdict && row["reason"] == reason
}

#[test]
fn status_counts_the_pods_connections_since_its_attach() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    let other = Lab::alone(&alone).expect("another lab");
    let listeners = lab.start_proxy().expect("a proxy");
    for lab in [&lab, &other] {
        lab.attach(STOCK).expect("attached");
    }
    talk(&lab, listeners);
    assert_eq!(of_pod(&lab), expected());
    assert_eq!(of_pod(&other), []);
    // With other settings, it is the same pod.
    lab.attach(&["-b", "*", "-i", "*"]).expect("attached again");
    assert_eq!(of_pod(&lab), expected());
    lab.detach().expect("detached");
    lab.attach(STOCK).expect("attached");
    assert_eq!(of_pod(&lab), []);
}

/// Connections of an uncaptured pod are not counted.
#[test]
fn connections_outside_the_mesh_are_not_counted() {
    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    let _proxy = lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let counts = counted(|| {
        for to in ["10.2.0.9:80", "[fd00:2::9]:80"] {
            assert_eq!(dial(&lab.client, to).expect("a dial"), "remote:80");
        }
    });
    assert_eq!(counts, []);
}

/// And the counts outlive the agent.
#[test]
fn the_agent_reports_the_number_of_connections() {
    let alone = alone();
    let node = Node::alone(Driver::Systemd, &alone).expect("a node");
    let by_pod = ["--pod-metrics"];
    let mut agent = node.start_ready_agent(&by_pod).expect("an agent");
    let [pod, other] = ["web", "other"].map(|name| {
        let pod = Manifest::of_mesh(name, &node.new_uid());
        node.run(pod).expect("a pod")
    });
    let response = dial(other.app().expect("the app"), REMOTE).expect("a dial");
    assert!(response.starts_with(PROXIED), "{response}");
    let app = pod.app().expect("the app");
    for _ in 0..3 {
        let response = dial(app, REMOTE).expect("a dial");
        assert!(response.starts_with(PROXIED), "{response}");
    }
    let proxy = pod.container("proxy").expect("the proxy");
    for _ in 0..2 {
        assert_eq!(dial(proxy, REMOTE).expect("a dial"), STRAIGHT);
    }
    let address = format!("{}:8080", pod.addresses().expect("addresses")[0]);
    let response = dial(&node.client, &address).expect("a dial");
    assert!(response.starts_with("proxy:15006"), "{response}");
    let expected = [
        ("outbound", "captured", "prefix_included", 3.0, 1.0),
        ("outbound", "passed", "proxy_uid_gid", 2.0, 0.0),
        ("inbound", "captured", "inbound_port_included", 1.0, 0.0),
    ];
    let namespace = &Manifest::of_mesh("web", "").namespace;
    for is_last in [false, true] {
        // An agent is ready before it knows the names of all pods that are captured already.
        let known = wait_until("the names of both pods", || {
            let (_, text) = agent.get("/metrics")?;
            let has =
                |pod| text.contains(&format!(r#"total{{namespace="{namespace}",pod="{pod}""#));
            Ok(has("web") && has("other"))
        });
        known.unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
        for (direction, verdict, reason, count, of_other) in expected {
            let labels =
                format!(r#"direction="{direction}",verdict="{verdict}",reason="{reason}""#);
            let metric = |name: &str, pod: &str| {
                let series = format!("interceptor_{name}_total{{{pod}{labels}}}");
                agent.metric(&series).expect("metrics")
            };
            assert_eq!(
                metric("connections", ""),
                Some(count + of_other),
                "{labels}"
            );
            for (pod, count) in [("web", count), ("other", of_other)] {
                let pod = format!(r#"namespace="{namespace}",pod="{pod}","#);
                let expected = (count > 0.0).then_some(count);
                assert_eq!(metric("pod_connections", &pod), expected, "{pod}{labels}");
            }
        }
        // Before the pod, which it would attach again while the API has it.
        agent.terminate().expect("deleted");
        if !is_last {
            agent = node.start_ready_agent(&by_pod).expect("another agent");
        }
    }
}
