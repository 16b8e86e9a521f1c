//! Detaching restores the previous state, and does not affect open connections.

use interceptor_testkit::{
    actor::protocol::{Handle, Reply, Request},
    lab::{CAPTURED, Caller, Lab, NOTHING, STOCK, Traces, all_captured, all_direct, call, echoes},
};

const PASSTHROUGH: &str = "addr add ::6/128 dev lo nodad";

fn lab() -> (Lab, Traces) {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let before = lab.traces().expect("traces");
    assert_eq!(before.policy, None);
    assert_eq!(before.links, Vec::<String>::new());
    (lab, before)
}

#[test]
fn detach_restores_everything() {
    let (lab, before) = lab();
    assert!(!before.has_passthrough_v6());
    lab.attach(STOCK).expect("attached");
    let attached = lab.traces().expect("traces");
    assert!(attached.has_passthrough_v6());
    assert!(attached.policy.is_some() && !attached.links.is_empty());
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    let printed = lab.detach().expect("detached");
    assert!(printed.contains("no longer captured"), "{printed}");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

#[test]
fn an_existing_passthrough_address_stays() {
    let (lab, _) = lab();
    lab.pod.ip(PASSTHROUGH).expect("::6");
    let before = lab.traces().expect("traces");
    lab.attach(STOCK).expect("attached");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.attach(&[STOCK, &["-o", "99"]].concat())
        .expect("replaced");
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    lab.detach().expect("detached again");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

/// Without capture of IPv6, nothing for IPv6 is left in the pod.
#[test]
fn detach_restores_everything_after_other_settings() {
    let (lab, before) = lab();
    lab.attach(STOCK).expect("attached");
    for flags in [&["-i", "*", "-b", "*"][..], STOCK, &["-p", "16001"]] {
        lab.attach(flags).expect("replaced");
    }
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

#[test]
fn detaching_an_uncaptured_pod_changes_nothing() {
    let (lab, before) = lab();
    let never = lab.detach().expect("never attached");
    assert!(never.contains("not captured"), "{never}");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    lab.attach(STOCK).expect("attached");
    lab.detach().expect("detached");
    let twice = lab.detach().expect("detached twice");
    assert!(twice.contains("not captured"), "{twice}");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
}

/// An open connection of each kind.
fn open(lab: &Lab) -> Vec<(Caller, &'static str, Handle)> {
    CAPTURED
        .iter()
        .map(|(caller, to, captured, _)| {
            let (socket, response) = call(actor(lab, *caller), to).expect("a call");
            assert_eq!(response, *captured);
            (*caller, *to, socket)
        })
        .collect()
}

fn actor(lab: &Lab, caller: Caller) -> &interceptor_testkit::actor::Actor {
    match caller {
        Caller::App => &lab.app,
        Caller::Client => &lab.client,
    }
}

/// The connections on which the server still responds.
fn echoing(lab: &Lab, connections: &[(Caller, &'static str, Handle)]) -> Vec<(&'static str, bool)> {
    connections
        .iter()
        .map(|(caller, to, socket)| (*to, echoes(actor(lab, *caller), *socket).expect("an echo")))
        .collect()
}

#[test]
fn open_connections_survive_detach_and_attach() {
    let (lab, _) = lab();
    lab.attach(STOCK).expect("attached");
    let connections = open(&lab);
    let all: Vec<_> = connections.iter().map(|(_, to, _)| (*to, true)).collect();
    assert_eq!(echoing(&lab, &connections), all, "attached");
    lab.detach().expect("detached");
    assert_eq!(echoing(&lab, &connections), all, "detached");
    lab.attach(STOCK).expect("attached again");
    assert_eq!(echoing(&lab, &connections), all, "attached again");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    let new = [STOCK, &["-p", "16001", "-o", "99"]].concat();
    lab.attach(&new).expect("replaced");
    assert_eq!(echoing(&lab, &connections), all, "replaced");
    // A connection from before is never mistaken for another one.
    for (caller, to, socket) in connections
        .iter()
        .filter(|(caller, ..)| *caller == Caller::App)
    {
        let socket = *socket;
        let reply = actor(&lab, *caller).call(&Request::PeerName { socket });
        let Reply::Name(peer) = reply.expect("a reply") else {
            panic!("{to}: no peer name");
        };
        let own: std::net::SocketAddr = to.parse().expect("an address");
        let stand_in = peer.to_string();
        let is_stand_in = ["127.", "[fd69:", "[::ffff:127."];
        let is_stand_in = is_stand_in.iter().any(|start| stand_in.starts_with(start));
        assert!(peer == own || is_stand_in, "{to}: {peer}");
    }
}

/// An app's connection that is older than the attach survives too.
#[test]
fn connections_older_than_the_attach_survive() {
    let (lab, _) = lab();
    let mut old = Vec::new();
    for (caller, to, _, direct) in CAPTURED {
        let (socket, response) = call(actor(&lab, caller), to).expect("a call");
        assert_eq!(response, direct);
        old.push((caller, to, socket));
    }
    lab.attach(STOCK).expect("attached");
    let all: Vec<_> = old.iter().map(|(_, to, _)| (*to, true)).collect();
    assert_eq!(echoing(&lab, &old), all);
    lab.detach().expect("detached");
    assert_eq!(echoing(&lab, &old), all);
}
