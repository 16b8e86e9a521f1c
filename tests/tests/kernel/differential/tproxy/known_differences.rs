//! Known differences of TPROXY, with the behavior of each side.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        User,
        protocol::{Family, Reply, Request},
    },
    lab::call,
    scenario::{Dial, Run, address},
    world::{Bind, Mechanism, Role, World, serve},
};

use super::{
    proxy::{MARK, bound, connect_to_proxy, listen, transparent, upstream_from},
    setup,
};

/// `client` dials `to`: the server that responds, or the errno.
fn response(world: &World, to: &str) -> Result<String> {
    let client = world.actor(Role::Client)?;
    let (socket, response) = call(client, to)?;
    client.must(&Request::Close { socket })?;
    Ok(response)
}

fn worlds() -> [World; 2] {
    [Mechanism::Iptables, Mechanism::Interceptor]
        .map(|mechanism| World::new(mechanism, &setup()).expect("a world"))
}

/// TPROXY drops packets without a listener; here they are refused, as in the
/// other mode.
#[test]
fn without_a_listener_iptables_drops_and_we_refuse() {
    for (world, expected) in worlds().iter().zip(["EINPROGRESS", "ECONNREFUSED"]) {
        world.stop_proxy().expect("stopped");
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            assert_eq!(response(world, to).expect("a call"), expected, "{to}");
        }
        world.start_proxy().expect("started");
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            let response = response(world, to).expect("a call");
            assert!(response.starts_with("proxy:15006"), "{to}: {response}");
        }
    }
}

/// TPROXY drops packets without a transparent listener; here it need not be
/// transparent.
#[test]
fn a_non_transparent_listener_gets_nothing_from_iptables() {
    for (world, is_served) in worlds().iter().zip([false, true]) {
        world.stop_proxy().expect("stopped");
        let proxy = world.actor(Role::RootProxyServer).expect("a proxy");
        for bind in Bind::BOTH_WILDCARDS {
            serve(proxy, bind, 15006).expect("served");
        }
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            let response = response(world, to).expect("a call");
            let expected = if is_served {
                "proxy:15006"
            } else {
                "EINPROGRESS"
            };
            assert!(response.starts_with(expected), "{to}: {response}");
        }
    }
}

/// With SYN cookies nothing is stored of a connection until its third packet,
/// which TPROXY delivers to the app instead of the proxy. The app resets it, or accepts the cookie
/// if it has sent some itself. Here the third packet reaches the same listener as the first.
#[test]
fn with_syn_cookies_iptables_does_not_reach_the_proxy() {
    for (world, is_captured) in worlds().iter().zip([false, true]) {
        let cookies = world.pod().sysctl("net.ipv4.tcp_syncookies", "2");
        cookies.expect("a sysctl");
        for (client, to) in [
            ("10.1.0.1:0", "10.1.0.2:8080"),
            ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
        ] {
            let response = response(world, to).expect("a call");
            let is_proxy = response.starts_with("proxy:15006");
            assert_eq!(is_proxy, is_captured, "{to}: {response}");
            let mut run = Run::new(world);
            let upstream = upstream_from(client, to, MARK);
            upstream.execute(&mut run).expect("a call");
            assert_eq!(run.outcome(), "app:8080", "{to}");
        }
    }
}

/// To the kernel the app's and the client's connection would be the same. Behind
/// iptables the replies to the second break the first, here the second is never established.
#[test]
fn with_the_clients_own_port_no_connection_works() {
    for (world, gets_through) in worlds().iter().zip([true, false]) {
        let mut run = Run::new(world);
        for (from, to) in [
            ("10.1.0.1:25000", "10.1.0.2:8080"),
            ("[fd00:1::1]:25000", "[fd00:1::2]:8080"),
        ] {
            let listeners = listen(&run).expect("listeners");
            let ends = connect_to_proxy(&mut run, listeners, from, to).expect("a connection");
            upstream_from(from, to, MARK)
                .execute(&mut run)
                .expect("a call");
            assert_eq!(run.outcome() == "app:8080", gets_through, "{to}");
            let proxy = run.actor(Role::RootProxyServer).expect("the proxy");
            let (socket, data) = (ends.1, "lost\n".to_owned());
            let sent = proxy
                .call(&Request::Send { socket, data })
                .expect("a reply");
            assert_eq!(
                matches!(sent, Reply::Error(_)),
                gets_through,
                "{to}: {sent:?}"
            );
            world.reset().expect("reset");
        }
    }
}

/// A proxy that keeps its usual user is redirected to itself by nat, which is why
/// TPROXY's is root. Behind iptables it receives nothing over IPv4, here its own connection.
#[test]
fn a_proxy_that_is_not_root_does_not_reach_the_app() {
    let root = User::new(0, 0);
    for (world, v4) in worlds().iter().zip(["silence", "proxy:15006"]) {
        let proxy = world.start_in_pod("proxy", root, "pod/other");
        let proxy = proxy.expect("a proxy");
        let (uid, gid) = (1337, 1337);
        proxy
            .must(&Request::SetSocketOwner { uid, gid })
            .expect("another owner");
        for (from, to, expected) in [
            ("10.1.0.1:0", "10.1.0.2:8080", v4),
            ("[fd00:1::1]:0", "[fd00:1::2]:8080", "proxy:15006"),
        ] {
            let from = address(from);
            let socket = bound(&proxy, from, transparent(Family::of(from), Some(MARK)));
            let mut run = Run::new(world);
            Dial::new(Role::RootProxyServer, to)
                .execute_as(&mut run, &proxy, socket.expect("a socket"))
                .expect("a call");
            assert_eq!(run.outcome(), expected, "{to}");
        }
    }
}
