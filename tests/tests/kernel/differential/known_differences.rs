//! The known differences of the docs, with the behavior of each side.

mod around;
mod dns;

use interceptor_testkit::{
    actor::protocol::{Family, Level, Protocol, Reply, Request},
    scenario::address,
    settings::{Dns, Mode, Settings},
    world::{Mechanism, Role, Setup, World},
};

/// `role` dials `to`: the server that responds, or the errno.
fn dial(world: &World, role: Role, to: &str) -> String {
    let actor = world.actor(role).expect("an actor");
    let address = address(to);
    let socket = actor
        .socket(Family::of(address), Protocol::Tcp)
        .expect("a socket");
    let connected = actor.call(&Request::Connect { socket, address });
    if let Reply::Error(errno) = connected.expect("a response") {
        return errno;
    }
    match actor.call(&Request::ReceiveLine { socket }) {
        Ok(Reply::Data(line)) => line,
        other => format!("{other:?}"),
    }
}

/// A link-local destination binds the socket to its interface, where the replies of a redirected
/// connection never arrive: behind iptables it hangs. Interceptor's is proxied as any other, from
/// an address that is not link-local.
#[test]
fn link_local_destinations_are_proxied_only_here() {
    let cases = [
        (Role::App, "[fe80::ff:fe00:101%2]:80", "proxy:15001"),
        (Role::Proxy, "[fe80::ff:fe00:102%2]:80", "proxy:15006"),
    ];
    let behind_iptables = World::new(Mechanism::Iptables, &Setup::default()).expect("a world");
    let captured = World::new(Mechanism::Interceptor, &Setup::default()).expect("a world");
    for (role, to, expected) in cases {
        let hangs = dial(&behind_iptables, role, to);
        assert!(!hangs.contains("proxy:"), "{role:?} dials {to}: {hangs}");
        let proxied = dial(&captured, role, to);
        assert!(proxied.contains(expected), "{role:?} dials {to}: {proxied}");
    }
}

/// The reset of a closed port is routed by the interface of the address that the client dialed
/// (`tcp_v6_send_response`, `rt6_need_strict`), where `::1` is not local: it leaves the pod, and
/// the client waits. Conntrack receives the reset and deletes its entry; no hook sees it.
/// With DNS capture, our routes make `::1` local there.
#[test]
fn a_reset_that_does_not_reach_its_client() {
    let closed = address("[fd00:1::2]:81");
    let original = Reply::Original {
        address: closed,
        length: size_of::<libc::sockaddr_in6>(),
    };
    let (waits, enoent) = ("EINPROGRESS", Reply::Error("ENOENT".to_owned()));
    for (mechanism, dns, connected, expected) in [
        (Mechanism::Iptables, Dns::Off, waits, &enoent),
        (Mechanism::Interceptor, Dns::Off, waits, &original),
        (Mechanism::Iptables, Dns::All, waits, &enoent),
        (Mechanism::Interceptor, Dns::All, "ECONNREFUSED", &enoent),
    ] {
        let setup = Setup::with(Settings {
            dns,
            ..Settings::default()
        });
        let world = World::new(mechanism, &setup).expect("a world");
        let actor = world.actor(Role::App).expect("an actor");
        let socket = actor.socket(Family::V6, Protocol::Tcp).expect("a socket");
        let call = |request| actor.call(&request).expect("a reply");
        let bound = call(Request::Bind {
            socket,
            address: address("[::1]:0"),
        });
        assert_eq!(bound, Reply::Done);
        let result = call(Request::Connect {
            socket,
            address: closed,
        });
        let label = format!("{mechanism:?}, {dns:?}");
        assert_eq!(result, Reply::Error(connected.to_owned()), "{label}");
        let found = call(Request::OriginalDestination {
            socket,
            level: Level::Ipv6,
            length: size_of::<libc::sockaddr_in6>(),
        });
        assert_eq!(&found, expected, "{label}");
    }
}

/// TPROXY's rules treat all packets of a connection as the proxy's, also the replies to one that
/// they passed.
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
        let response = dial(&world, Role::Inner, "10.2.0.9:15020");
        assert!(response.contains(expected), "{mechanism:?}: {response}");
    }
}
