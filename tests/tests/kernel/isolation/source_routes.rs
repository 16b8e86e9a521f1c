//! Sockets whose packets the app routes: by a source route, or by binding the socket to an
//! interface. Then the destination does not determine the route, and a stand-in is only a
//! destination.
//!
//! Behind iptables such a SYN leaves for localhost, or is dropped because of its header: it hangs.
//! Here it is refused.

use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol, Reply, Request, SocketOption},
    },
    lab::{Lab, STOCK},
    tap::Tap,
    users::ROOT,
};

use crate::routing_options::{device, routing_header, source_route};

const V4: &str = "10.2.0.9:80";
const V6: &str = "[fd00:2::9]:80";
const MAPPED: &str = "[::ffff:10.2.0.9]:80";
/// Excluded by `-x`: the connection itself would pass.
const EXCLUDED: &str = "10.2.0.10:80";

/// Counts TCP packets that reach the peer.
struct Wire<'a>(Tap<'a>);

impl<'a> Wire<'a> {
    fn tap(lab: &'a Lab) -> Self {
        let tap = Tap::at(&lab.peer, "prerouting", &[("from_pod", "meta l4proto tcp")]);
        Self(tap.expect("a tap"))
    }

    fn packets(&self) -> u64 {
        self.0.packets("from_pod").expect("a counter")
    }
}

/// An app that may set IPv4 source routes, which requires `NET_RAW`.
fn root(lab: &Lab) -> Actor {
    let cgroup = lab.cgroup.child("pod/root").expect("a cgroup");
    Actor::start("root", ROOT, lab.pod.namespace(), Some(&cgroup)).expect("an actor")
}

fn socket(app: &Actor, to: &str) -> Handle {
    let family = Family::of(to.parse().expect("an address"));
    app.socket(family, Protocol::Tcp).expect("a socket")
}

fn set(app: &Actor, socket: Handle, option: SocketOption) -> Reply {
    let request = Request::Set { socket, option };
    app.call(&request).expect("a response")
}

fn connect(app: &Actor, socket: Handle, to: &str) -> Reply {
    let address = to.parse().expect("an address");
    let request = Request::Connect { socket, address };
    app.call(&request).expect("a response")
}

fn error(name: &str) -> Reply {
    Reply::Error(name.to_owned())
}

fn captured() -> Lab {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(&[STOCK, &["-x", "10.2.0.10/32"]].concat())
        .expect("attached");
    lab
}

#[test]
fn a_captured_pod_sets_no_source_route() {
    let lab = captured();
    let app = root(&lab);
    for (to, option) in [
        (V4, source_route()),
        (V6, routing_header()),
        // IPv4 on an IPv6 socket.
        (MAPPED, source_route()),
    ] {
        let socket = socket(&app, to);
        assert_eq!(set(&app, socket, option), error("EPERM"), "{to}");
        assert_eq!(connect(&app, socket, to), Reply::Done, "{to}");
    }
    // Options without a source route are permitted.
    let socket = socket(&app, V4);
    assert_eq!(set(&app, socket, SocketOption::IpOptions), Reply::Done);
}

/// Sockets with a source route from before the attach.
#[test]
fn a_source_routed_socket_does_not_connect() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let app = root(&lab);
    let cases = [
        (V4, source_route()),
        (V6, routing_header()),
        (MAPPED, source_route()),
        (EXCLUDED, source_route()),
        // The pod itself.
        ("[fd00:1::2]:8080", routing_header()),
    ];
    let sockets = cases.map(|(to, option)| {
        let socket = socket(&app, to);
        assert_eq!(set(&app, socket, option), Reply::Done, "{to}");
        (socket, to)
    });
    lab.attach(&[STOCK, &["-x", "10.2.0.10/32"]].concat())
        .expect("attached");
    let wire = Wire::tap(&lab);
    for (socket, to) in sockets {
        assert_eq!(connect(&app, socket, to), error("ECONNREFUSED"), "{to}");
    }
    assert_eq!(wire.packets(), 0);
}

#[test]
fn a_captured_connection_gets_no_source_route_later() {
    let lab = captured();
    let app = root(&lab);
    let wire = Wire::tap(&lab);
    for (to, option) in [
        (V4, device()),
        (V6, device()),
        (MAPPED, device()),
        (V4, source_route()),
        (V6, routing_header()),
    ] {
        let socket = socket(&app, to);
        assert_eq!(connect(&app, socket, to), Reply::Done, "{to}");
        let line = app.must(&Request::ReceiveLine { socket });
        assert!(matches!(line, Ok(Reply::Data(line)) if line.contains("proxy:15001")));
        assert_eq!(
            set(&app, socket, option.clone()),
            error("EPERM"),
            "{to} {option:?}"
        );
        let data = "hello\n".to_owned();
        app.must(&Request::Send { socket, data }).expect("sent");
        let echo = app.must(&Request::ReceiveLine { socket });
        assert_eq!(
            echo.expect("an echo"),
            Reply::Data("hello".to_owned()),
            "{to}"
        );
    }
    assert_eq!(wire.packets(), 0);
}

#[test]
fn a_captured_socket_bound_to_an_interface_is_refused() {
    let lab = captured();
    let app = root(&lab);
    let wire = Wire::tap(&lab);
    for to in [V4, V6, MAPPED] {
        let socket = socket(&app, to);
        assert_eq!(set(&app, socket, device()), Reply::Done, "{to}");
        assert_eq!(connect(&app, socket, to), error("ECONNREFUSED"), "{to}");
    }
    assert_eq!(wire.packets(), 0);
    // Uncaptured connections use the interface.
    lab.attach(&[STOCK, &["-o", "80"]].concat())
        .expect("replaced");
    let socket = socket(&app, V6);
    assert_eq!(set(&app, socket, device()), Reply::Done);
    assert_eq!(connect(&app, socket, V6), Reply::Done);
    assert!(wire.packets() > 0);
}

/// Deleting the stand-ins' routes, for example by setting `lo` down, sends no SYN out of the pod.
#[test]
fn without_the_routes_of_the_stand_ins_nothing_leaves_the_pod() {
    let lab = captured();
    let app = root(&lab);
    let wire = Wire::tap(&lab);
    let flap = "link set lo down\nlink set lo up\n";
    lab.pod.ip(flap).expect("lo flaps");
    let refused = connect(&app, socket(&app, V6), V6);
    assert_eq!(refused, error("ENETUNREACH"));
    assert_eq!(wire.packets(), 0);
    lab.attach(STOCK).expect("attached again");
    assert_eq!(connect(&app, socket(&app, V6), V6), Reply::Done);
    assert_eq!(wire.packets(), 0);
}
