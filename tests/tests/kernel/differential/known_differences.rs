//! What is not equal, and is said so in the docs: here with what each side does.

mod around;
mod dns;

use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Reply, Request},
    scenario::address,
    settings::{Mode, Settings},
    world::{Mechanism, Setup, Who, World},
};

/// `who` dials `to`: who answers, or what became of the call.
fn dial(world: &World, who: Who, to: &str) -> String {
    let actor = world.actor(who).expect("an actor");
    let address = address(to);
    let socket = actor
        .socket(Family::of(address), Protocol::Tcp)
        .expect("a socket");
    let connected = actor.call(&Request::Connect { socket, address });
    if let Reply::Error(errno) = connected.expect("an answer") {
        return errno;
    }
    match actor.call(&Request::ReceiveLine { socket }) {
        Ok(Reply::Data(line)) => line,
        other => format!("{other:?}"),
    }
}

/// A link-local destination binds the socket to its interface, where the answers of a redirected
/// connection never arrive: behind iptables it hangs. Ours is proxied as any other, from an address
/// that is not link-local.
#[test]
fn link_local_destinations_are_proxied_only_here() {
    let cases = [
        (Who::App, "[fe80::ff:fe00:101%2]:80", "proxy:15001"),
        (Who::Proxy, "[fe80::ff:fe00:102%2]:80", "proxy:15006"),
    ];
    let behind_iptables = World::new(Mechanism::Iptables, &Setup::default()).expect("a world");
    let captured = World::new(Mechanism::Interceptor, &Setup::default()).expect("a world");
    for (who, to, expected) in cases {
        let hangs = dial(&behind_iptables, who, to);
        assert!(!hangs.contains("proxy:"), "{who:?} dials {to}: {hangs}");
        let proxied = dial(&captured, who, to);
        assert!(proxied.contains(expected), "{who:?} dials {to}: {proxied}");
    }
}

/// TPROXY's rules take whatever belongs to a connection for the proxy's, also the answers to one that
/// they have let through.
#[test]
fn under_tproxy_a_forwarded_connection_passes_only_here() {
    let setup = Setup {
        inner: true,
        ..Setup::with(Settings {
            mode: Mode::Tproxy,
            ..Settings::default()
        })
    };
    for (mechanism, expected) in [
        (Mechanism::Iptables, "EINPROGRESS"),
        (Mechanism::Interceptor, "remote:15020"),
    ] {
        let world = World::new(mechanism, &setup).expect("a world");
        let answer = dial(&world, Who::Inner, "10.2.0.9:15020");
        assert!(answer.contains(expected), "{mechanism:?}: {answer}");
    }
}
