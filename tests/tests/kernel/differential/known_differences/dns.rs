//! Known differences of DNS.

use std::net::SocketAddr;

use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{
            Datagram, Family, Handle, IdentityReply, Protocol, Reply, Request, SocketOption,
        },
    },
    scenario::address,
    settings::{Dns, Settings},
    world::{Mechanism, Role, Setup, World},
};

/// The world behind iptables, then Interceptor's.
fn both() -> [World; 2] {
    let setup = Setup {
        dns: true,
        ..Setup::with(Settings {
            dns: Dns::All,
            ..Settings::default()
        })
    };
    [Mechanism::Iptables, Mechanism::Interceptor]
        .map(|mechanism| World::new(mechanism, &setup).expect("a world"))
}

fn app(world: &World) -> &Actor {
    world.actor(Role::App).expect("an actor")
}

/// A UDP socket of the app, bound to `from` if given.
fn socket(world: &World, family: Family, from: Option<&str>) -> Handle {
    let socket = app(world).socket(family, Protocol::Udp).expect("a socket");
    if let Some(from) = from {
        let address = address(from);
        app(world)
            .must(&Request::Bind { socket, address })
            .expect("a name");
    }
    socket
}

fn call(world: &World, request: &Request) -> Result<Reply, String> {
    match app(world).call(request).expect("a reply") {
        Reply::Error(errno) if errno == "EAGAIN" => Err("silence".to_owned()),
        Reply::Error(errno) => Err(errno),
        reply => Ok(reply),
    }
}

fn send_to(world: &World, socket: Handle, to: &str) -> Result<(), String> {
    let (address, data) = (address(to), "who is there?".to_owned());
    let request = Request::SendTo {
        socket,
        address,
        data,
    };
    call(world, &request).map(drop)
}

fn connect(world: &World, socket: Handle, to: &str) -> Result<(), String> {
    let address = address(to);
    call(world, &Request::Connect { socket, address }).map(drop)
}

/// A server's reply, and its source.
fn receive(world: &World, socket: Handle) -> Result<(IdentityReply, SocketAddr), String> {
    let peek = false;
    let Reply::Datagrams(datagrams) = call(world, &Request::ReceiveFrom { socket, peek })? else {
        return Err("no datagram".to_owned());
    };
    let [Datagram { data, sender }] = datagrams.as_slice() else {
        return Err(format!("{datagrams:?}"));
    };
    let response = serde_json::from_str(data).expect("a response");
    Ok((response, *sender))
}

/// Queries with a connected socket.
fn query_connected(
    world: &World,
    socket: Handle,
    to: &str,
) -> Result<(IdentityReply, SocketAddr), String> {
    connect(world, socket, to)?;
    let data = "who is there?".to_owned();
    call(world, &Request::Send { socket, data })?;
    receive(world, socket)
}

/// Queries with an unconnected socket.
fn query_unconnected(
    world: &World,
    socket: Handle,
    to: &str,
) -> Result<(IdentityReply, SocketAddr), String> {
    send_to(world, socket, to)?;
    receive(world, socket)
}

fn is_from_agent(result: &Result<(IdentityReply, SocketAddr), String>, server: &str) -> bool {
    let is_agents = |(response, sender): &(IdentityReply, SocketAddr)| {
        response.server == "agent:15053" && *sender == address(server)
    };
    result.as_ref().is_ok_and(is_agents)
}

fn local_name(world: &World, socket: Handle) -> SocketAddr {
    match call(world, &Request::LocalName { socket }) {
        Ok(Reply::Name(name)) => name,
        other => panic!("{other:?}"),
    }
}

/// The kernel's ICMP error of a port without a listener has no place in conntrack's zones: behind
/// iptables it is lost, and a resolver waits until its timeout.
#[test]
fn without_a_dns_agent_a_connected_socket_is_refused() {
    for (world, expected) in both().iter().zip(["silence", "ECONNREFUSED"]) {
        world.stop_proxy().expect("no agent");
        let socket = socket(world, Family::V4, None);
        let received = query_connected(world, socket, "10.96.0.10:53");
        assert_eq!(received.unwrap_err(), expected);
    }
}

/// The agent's response is sent to port 53, and the rules treat it as a query of the proxy's.
#[test]
fn a_query_from_port_53_gets_a_reply_only_here() {
    const SERVER: &str = "10.96.0.10:53";

    let [behind_iptables, captured] = both();
    let from = Some("10.1.0.3:53");
    let bound = socket(&behind_iptables, Family::V4, from);
    let (_, sender) = query_unconnected(&behind_iptables, bound, SERVER).expect("a response");
    assert_eq!(sender, address("127.0.0.1:15053"));
    let bound = socket(&captured, Family::V4, from);
    let received = query_unconnected(&captured, bound, SERVER);
    assert!(is_from_agent(&received, SERVER), "{received:?}");
}

/// A socket that has a port, but no address, cannot be bound to one when it connects.
#[test]
fn the_dns_agent_gets_localhost_from_a_socket_bound_early() {
    for (world, observed) in both().iter().zip(["10.1.0.2:4053", "127.0.0.1:4053"]) {
        let socket = socket(world, Family::V4, Some("0.0.0.0:4053"));
        let (response, _) = query_connected(world, socket, "10.96.0.10:53").expect("a response");
        assert_eq!(response.peer, observed);
        assert_eq!(local_name(world, socket), address("10.1.0.2:4053"));
    }
}

/// Both distinguish one server's queries from another's: conntrack by the port, Interceptor by the
/// address.
#[test]
fn the_dns_agent_gets_another_source_per_server() {
    let observed = both().map(|world| {
        let socket = socket(&world, Family::V4, Some("0.0.0.0:4053"));
        query_unconnected(&world, socket, "10.96.0.10:53").expect("a response");
        let (response, _) = query_unconnected(&world, socket, "10.2.0.9:53").expect("a response");
        address(&response.peer)
    });
    let [behind_iptables, here] = observed;
    assert_eq!(behind_iptables.ip(), address("10.1.0.2:0").ip());
    assert_ne!(behind_iptables.port(), 4053);
    assert!(here.ip().is_loopback());
    assert_eq!(here.port(), 4053);
}

/// No packet to another address than its own reaches the socket.
#[test]
fn a_bound_sockets_replies_all_name_its_last_server() {
    let [behind_iptables, captured] = both();
    let senders = |world: &World| {
        let socket = socket(world, Family::V4, Some("10.1.0.2:0"));
        for server in ["10.96.0.10:53", "10.2.0.9:53"] {
            send_to(world, socket, server).expect("sent");
        }
        let mut received = [0; 2].map(|_| receive(world, socket).expect("a response").1);
        received.sort();
        received.map(|sender| sender.to_string())
    };
    assert_eq!(senders(&behind_iptables), ["10.2.0.9:53", "10.96.0.10:53"]);
    assert_eq!(senders(&captured), ["10.2.0.9:53", "10.2.0.9:53"]);
}

/// connect(2) selects a port before it routes, and Interceptor refuses before both.
#[test]
fn a_connect_without_a_route_binds_no_port_here() {
    for (world, has_port) in both().iter().zip([true, false]) {
        let socket = socket(world, Family::V4, None);
        let refused = connect(world, socket, "10.66.1.1:53");
        assert_eq!(refused.unwrap_err(), "EHOSTUNREACH");
        assert_eq!(local_name(world, socket).port() != 0, has_port);
    }
}

/// After Interceptor has bound a socket, disconnecting leaves it bound until it connects again; and
/// a socket that was once bound to IPv6 cannot use IPv4 any more.
#[test]
fn a_disconnected_socket_keeps_its_assigned_address() {
    for (world, is_here) in both().iter().zip([false, true]) {
        let v4 = socket(world, Family::V4, None);
        query_connected(world, v4, "10.96.0.10:53").expect("a response");
        call(world, &Request::Disconnect { socket: v4 }).expect("dissolved");
        let name = local_name(world, v4).ip();
        assert_eq!(name.is_unspecified(), !is_here, "{name}");

        let v6 = socket(world, Family::V6, None);
        query_connected(world, v6, "[fd00:96::10]:53").expect("a response");
        call(world, &Request::Disconnect { socket: v6 }).expect("dissolved");
        let mapped = query_connected(world, v6, "[::ffff:10.96.0.10]:53");
        assert_eq!(mapped.is_err(), is_here, "{mapped:?}");
    }
}

/// Queries to many servers at once, which DNS does not use.
#[test]
fn multicast_and_broadcast_to_port_53() {
    let [behind_iptables, captured] = both();
    let query = |world: &World, to: &str| {
        let socket = socket(world, Family::V4, None);
        query_connected(world, socket, to).map(|(response, _)| response)
    };
    let multicast = [&behind_iptables, &captured].map(|world| {
        let response = query(world, "224.0.0.1:53").expect("a response");
        address(&response.peer).ip().to_string()
    });
    assert_eq!(multicast, ["10.1.0.2", "127.0.0.1"]);
    let all = "255.255.255.255:53";
    assert_eq!(query(&behind_iptables, all).unwrap_err(), "EACCES");
    assert_eq!(
        query(&captured, all).expect("a response").server,
        "agent:15053"
    );
    let subnet = "10.1.0.255:53";
    assert_eq!(query(&behind_iptables, subnet).unwrap_err(), "EACCES");
    assert_eq!(query(&captured, subnet).unwrap_err(), "ENETUNREACH");
}

/// As with TCP, the socket is bound to the interface, where localhost is not.
#[test]
fn link_local_servers_get_a_reply_only_here() {
    const SERVER: &str = "[fe80::ff:fe00:101%2]:53";

    for (world, is_here) in both().iter().zip([false, true]) {
        let connected = query_connected(world, socket(world, Family::V6, None), SERVER);
        assert_eq!(connected.is_ok(), is_here, "{connected:?}");
        let unconnected = query_unconnected(world, socket(world, Family::V6, None), SERVER);
        assert_eq!(unconnected.is_ok(), is_here, "{unconnected:?}");
    }
}

/// iptables' REDIRECT looks for localhost on the interface, where it has no route.
#[test]
fn a_socket_bound_to_an_interface_gets_a_reply_only_here() {
    for (world, is_here) in both().iter().zip([false, true]) {
        for server in ["10.96.0.10:53", "[fd00:96::10]:53"] {
            let open = || {
                let socket = socket(world, Family::of(address(server)), None);
                let option = SocketOption::BindToDevice("eth0".to_owned());
                call(world, &Request::Set { socket, option }).expect("bound");
                socket
            };
            let connected = query_connected(world, open(), server);
            assert_eq!(is_from_agent(&connected, server), is_here);
            let unconnected = query_unconnected(world, open(), server);
            assert_eq!(is_from_agent(&unconnected, server), is_here);
        }
    }
}

/// IPv6 has no route to the server through the interface. No hook can check whether there is one.
#[test]
fn an_interface_without_a_route_to_the_server() {
    const SERVER: &str = "[fd00:96::10]:53";

    let [behind_iptables, captured] = both().map(|world| {
        let socket = socket(&world, Family::V6, None);
        let option = SocketOption::UnicastInterfaceV6("eth1".to_owned());
        call(&world, &Request::Set { socket, option }).expect("set");
        query_unconnected(&world, socket, SERVER)
    });
    assert_eq!(behind_iptables.unwrap_err(), "ENETUNREACH");
    assert!(is_from_agent(&captured, SERVER), "{captured:?}");
}

/// To the kernel both are connected to the same address from the same one.
#[test]
fn connected_sockets_that_share_a_port_share_responses() {
    const SERVERS: [&str; 2] = ["10.96.0.10:53", "10.2.0.9:53"];

    for (world, are_told_apart) in both().iter().zip([true, false]) {
        let twins = SERVERS.map(|server| {
            let socket = socket(world, Family::V4, None);
            let option = SocketOption::ReusePort;
            call(world, &Request::Set { socket, option }).expect("set");
            let address = address("0.0.0.0:4060");
            call(world, &Request::Bind { socket, address }).expect("bound");
            connect(world, socket, server).expect("connected");
            socket
        });
        for socket in twins {
            let data = "who is there?".to_owned();
            call(world, &Request::Send { socket, data }).expect("sent");
        }
        let received = twins.map(|socket| receive(world, socket));
        let own = received.iter().zip(SERVERS);
        let both = own
            .filter(|(received, server)| is_from_agent(received, server))
            .count();
        assert_eq!(both == 2, are_told_apart, "{received:?}");
    }
}

/// Conntrack distinguishes the queries by the ports of the agent's responses; Interceptor by the
/// address, which a socket that is bound to one cannot change.
#[test]
fn bound_sockets_with_one_port_share_replies_from_localhost() {
    const SERVER: &str = "10.96.0.10:53";

    let senders = |world: &World| -> Vec<SocketAddr> {
        let of_port = |port: u16| {
            let twins = [(); 2].map(|()| {
                let socket = socket(world, Family::V4, None);
                let option = SocketOption::ReusePort;
                call(world, &Request::Set { socket, option }).expect("set");
                let address = address(&format!("10.1.0.2:{port}"));
                call(world, &Request::Bind { socket, address }).expect("bound");
                socket
            });
            send_to(world, twins[0], SERVER).expect("sent");
            let received = twins.map(|socket| receive(world, socket));
            received
                .into_iter()
                .find_map(Result::ok)
                .expect("a response")
                .1
        };
        (4060..4070).map(of_port).collect()
    };
    let [behind_iptables, captured] = both();
    let server = address(SERVER);
    assert!(
        senders(&behind_iptables)
            .iter()
            .all(|sender| *sender == server)
    );
    // The kernel chooses which of the two gets the response.
    let localhost = address("127.0.0.1:15053");
    let received = senders(&captured);
    assert!(received.contains(&localhost), "{received:?}");
    assert!(received.contains(&server), "{received:?}");
}
