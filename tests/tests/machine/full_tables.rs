//! Full tables: connections are refused, never direct; and no other pod is affected.

use interceptor_testkit::{
    actor::Actor,
    bpf::maps::Map,
    inner::put_inside,
    lab::{Caller, Lab, STOCK, dial},
    netns::Netns,
    users::ROOT,
};

use crate::alone;

/// Entries per call.
const BATCH: u32 = 1 << 14;

fn map(name: &str) -> Map {
    Map::of_interceptor(name).expect("a map").expect(name)
}

/// Fills a map with entries of network namespaces that do not exist: a key starts with a cookie.
fn fill(name: &str) -> Map {
    fill_with(name, u32::MAX)
}

/// The same with keys that start with `head`.
fn fill_with(name: &str, head: u32) -> Map {
    let map = map(name);
    let mut number = 0;
    loop {
        let mut keys = Vec::with_capacity(BATCH as usize * map.key_size());
        for key in number..number + BATCH {
            let mut bytes = vec![0xff; map.key_size()];
            bytes[..4].copy_from_slice(&head.to_ne_bytes());
            bytes[4..8].copy_from_slice(&key.to_ne_bytes());
            keys.extend(bytes);
        }
        let count = map.fill(&keys).expect("a batch");
        number += BATCH;
        if count < BATCH {
            return map;
        }
        assert!(number <= map.max_entries() + BATCH, "{name} is never full");
    }
}

/// A pod that has dialled one destination, and its peer.
fn lab(alone: &interceptor_testkit::machine::Exclusive) -> Lab {
    let lab = Lab::alone(alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    for to in ["10.2.0.9:80", "[fd00:2::9]:80"] {
        let response = lab.dial(Caller::App, to).expect("a dial");
        assert_eq!(response, format!("proxy:15001 for {to}"));
    }
    lab
}

/// Destinations that the pod has not dialled yet, and the proxy's original destination for each.
const NEW: [(&str, &str); 3] = [
    ("10.2.0.9:443", "proxy:15001 for 10.2.0.9:443"),
    ("[fd00:2::9]:443", "proxy:15001 for [fd00:2::9]:443"),
    ("[::ffff:10.2.0.9]:443", "proxy:15001 for 10.2.0.9:443"),
];

#[test]
fn with_a_full_stand_in_table_connections_are_refused() {
    let alone = alone();
    let lab = lab(&alone);
    fill("icept_stand_ins");
    for (to, _) in NEW {
        assert_eq!(lab.dial(Caller::App, to).expect("a dial"), "ECONNREFUSED");
        assert_eq!(dial(&lab.client, to).expect("a dial"), "remote:443");
    }
    // Known destinations need no space, nor do inbound connections.
    let known = lab.dial(Caller::App, "10.2.0.9:80").expect("a dial");
    assert_eq!(known, "proxy:15001 for 10.2.0.9:80");
    let inbound = lab.dial(Caller::Client, "10.1.0.2:8080").expect("a dial");
    assert_eq!(inbound, "proxy:15006 for 10.1.0.2:8080");
    // Uncaptured connections are not affected.
    let local = lab.dial(Caller::App, "127.0.0.1:8080").expect("a dial");
    assert_eq!(local, "server:8080");
}

/// That table only saves stand-ins.
#[test]
fn with_full_destinations_connections_are_captured() {
    let alone = alone();
    let lab = lab(&alone);
    fill("icept_forward");
    for (to, captured) in NEW.into_iter().chain(NEW) {
        assert_eq!(lab.dial(Caller::App, to).expect("a dial"), captured);
        assert_eq!(dial(&lab.client, to).expect("a dial"), "remote:443");
    }
}

/// But the packets of a forwarded connection need it: without it no handshake completes.
#[test]
fn with_full_destinations_nothing_is_forwarded() {
    const TO: &str = "10.2.0.9:80";

    let alone = alone();
    let lab = Lab::alone(&alone).expect("a lab");
    lab.start_proxy().expect("a proxy");
    let cgroup = lab.cgroup.child("inner").expect("a cgroup");
    let inside = Netns::new("inner", Some(&cgroup)).expect("a network namespace");
    put_inside(&lab.pod, &lab.peer, &inside).expect("a host inside");
    let inner = Actor::start("inner", ROOT, inside.namespace(), Some(&cgroup)).expect("an actor");
    lab.attach(STOCK).expect("attached");
    let known = "proxy:15006 for 10.2.0.9:80";
    assert_eq!(dial(&inner, TO).expect("a dial"), known);
    fill("icept_forward");
    // There is no reply in time.
    assert_eq!(dial(&inner, "10.2.0.9:443").expect("a dial"), "EINPROGRESS");
    assert_eq!(dial(&inner, TO).expect("a dial"), known);
}

/// No more pods than the table has space for: the next attach reports that, and the attached ones
/// are unaffected.
#[test]
fn with_a_full_pod_table_an_attach_is_refused() {
    let alone = alone();
    let lab = lab(&alone);
    let other = Lab::alone(&alone).expect("another lab");
    let before = other.traces().expect("traces");
    let full = fill("icept_next");
    let mut attach = other.attach_command(STOCK);
    let output = interceptor_testkit::command::output(&mut attach, "").expect("a run");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("full"), "{printed}");
    let changes = other.changes_since(&before).expect("traces");
    assert_eq!(changes, interceptor_testkit::lab::NOTHING);
    let response = other.dial(Caller::App, "10.2.0.9:80").expect("a dial");
    assert_eq!(response, "remote:80");
    let response = lab.dial(Caller::App, "10.2.0.9:443").expect("a dial");
    assert_eq!(response, "proxy:15001 for 10.2.0.9:443");
    // One less, and it fits.
    let foreign = full.keys().expect("keys");
    let foreign = foreign.iter().find(|key| key[..4] == [0xff; 4]);
    full.remove(foreign.expect("a foreign one"))
        .expect("removed");
    other.attach(STOCK).expect("attached");
}

/// A pod without space for its routes is captured all the same, and nothing is refused because of
/// them.
#[test]
fn with_full_routes_a_pod_is_captured_without_copies() {
    /// The length of a key in bits: the policy's ID, and an address.
    const WHOLE: u32 = 32 + 128;

    let alone = alone();
    let lab = lab(&alone);
    let other = Lab::alone(&alone).expect("another lab");
    other.start_proxy().expect("a proxy");
    let full = fill_with("icept_routes", WHOLE);
    let printed = other.attach(STOCK).expect("attached");
    assert!(printed.contains("(icept_routes) is full"), "{printed}");
    for pod in [&lab, &other] {
        for (to, captured) in NEW {
            assert_eq!(pod.dial(Caller::App, to).expect("a dial"), captured);
        }
    }
    // With space again, the next attach copies them.
    let keys = full.keys().expect("keys");
    let foreign = keys.iter().filter(|key| key[8..] == [0xff; 16]);
    for key in foreign.take(1000) {
        full.remove(key).expect("removed");
    }
    let printed = other.attach(STOCK).expect("attached");
    assert!(!printed.contains("table of routes"), "{printed}");
}
