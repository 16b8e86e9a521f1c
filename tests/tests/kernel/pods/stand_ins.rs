//! Stand-ins that are dialled directly, or used up.

use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Level, Protocol, Reply, Request},
    },
    dialler::{Dialler, Plan},
    lab::{Caller, Lab, STOCK, call, dial, stand_in},
    users::{APP, PROXY},
};

/// The number that a pod has at once.
const STAND_INS: u32 = 16384;

#[test]
fn a_stand_in_reaches_only_its_destination() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let (socket, response) = call(&lab.app, "10.2.0.9:443").expect("a call");
    assert_eq!(response, "proxy:15001 for 10.2.0.9:443");
    let stand_in = stand_in(&lab, socket);
    let (address, port) = (stand_in.ip(), stand_in.port());
    let cgroup = lab.cgroup.child("pod/app").expect("a cgroup");
    for user in [APP, PROXY] {
        let guest = Actor::start("guest", user, lab.pod.namespace(), Some(&cgroup));
        let guest = guest.expect("an actor");
        let dial = |to: String| dial(&guest, &to).expect("a dial");
        assert_eq!(dial(format!("{address}:{port}")), response);
        assert_eq!(dial(format!("[::ffff:{address}]:{port}")), response);
        for other in [port ^ 1, port ^ 0x100, 80, 8080, 15001, 15006] {
            assert_eq!(dial(format!("{address}:{other}")), "ECONNREFUSED");
        }
        assert_eq!(dial(format!("127.255.255.254:{port}")), "ECONNREFUSED");
    }
    // Another pod has not allocated it.
    let other = Lab::new().expect("another lab");
    other.start_proxy().expect("a proxy");
    other.attach(STOCK).expect("attached");
    other.dial(Caller::App, "10.2.0.9:443").expect("a dial");
    let elsewhere = other.dial(Caller::App, &format!("{address}:{port}"));
    assert_eq!(elsewhere.expect("a dial"), "ECONNREFUSED");
}

/// The IPv6 range is local to the pod, so that a neighbour can send to it: not even an allocated
/// one connects it to the proxy, while it does connect the app.
#[test]
fn a_neighbour_that_dials_a_stand_in_is_refused() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let (socket, response) = call(&lab.app, "[fd00:2::9]:443").expect("a call");
    let stand_in = stand_in(&lab, socket).to_string();
    assert_eq!(lab.dial(Caller::App, &stand_in).expect("a dial"), response);
    lab.peer
        .ip("route add fd69:6365:7074::/64 via fd00:1::2")
        .expect("a route");
    let from_outside = lab.dial(Caller::Client, &stand_in).expect("a dial");
    assert_eq!(from_outside, "ECONNREFUSED");
}

/// After a detach, the range is loopback like the rest; after another attach, no earlier stand-in
/// is known.
#[test]
fn a_stand_in_is_unknown_after_a_detach() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab.attach(STOCK).expect("attached");
    let (socket, _) = call(&lab.app, "10.2.0.9:443").expect("a call");
    let stand_in = stand_in(&lab, socket);
    let address = stand_in.ip();
    let plain = format!("{address}:8080");
    assert_eq!(
        lab.dial(Caller::App, &plain).expect("a dial"),
        "ECONNREFUSED"
    );
    lab.detach().expect("detached");
    assert_eq!(
        lab.dial(Caller::App, &plain).expect("a dial"),
        "server:8080"
    );
    lab.attach(STOCK).expect("attached again");
    let response = lab.dial(Caller::App, &stand_in.to_string());
    assert_eq!(response.expect("a dial"), "ECONNREFUSED");
}

fn original(proxy: &Actor, socket: Handle) -> Reply {
    let request = Request::OriginalDestination {
        socket,
        level: Level::Ip,
        length: 16,
    };
    proxy.call(&request).expect("a reply")
}

/// The oldest are evicted, and a lookup reports that; the newest are known.
#[test]
fn more_destinations_than_stand_ins() {
    const FIRST: &str = "10.64.0.0:80";

    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    let listener = lab
        .proxy
        .listen("0.0.0.0:15001".parse().expect("an address"));
    let listener = listener.expect("a listener");
    let connect = |to: &str| {
        let address = to.parse().expect("an address");
        let socket = lab.app.socket(Family::V4, Protocol::Tcp).expect("a socket");
        let connected = lab.app.must(&Request::Connect { socket, address });
        connected.expect("connected");
        (socket, lab.proxy.accept(listener).expect("accepted"))
    };
    let (client, oldest) = connect("10.63.0.1:80");
    lab.proxy
        .must(&Request::Close { socket: listener })
        .expect("closed");
    lab.start_proxy().expect("a proxy");
    let known = "Original { address: 10.63.0.1:80, length: 16 }";
    assert_eq!(format!("{:?}", original(&lab.proxy, oldest)), known);
    let cgroup = lab.cgroup.child("pod/app").expect("a cgroup");
    let dial_new = |first: &str, destinations| {
        let plan = Plan {
            first: first.parse().expect("an address"),
            destinations,
            rounds: 1,
        };
        let dialler = Dialler::start(APP, &lab.pod, &cgroup, &plan).expect("a dialler");
        let responses = dialler.finish().expect("outcomes");
        assert_eq!(responses.names(), ["proxy:15001"], "{responses:?}");
        assert_eq!(responses.dials(), destinations);
    };
    dial_new(FIRST, STAND_INS - 1);
    assert_eq!(format!("{:?}", original(&lab.proxy, oldest)), known);
    dial_new("10.65.0.0:80", 1);
    let forgotten = Reply::Error("ENOENT".to_owned());
    assert_eq!(original(&lab.proxy, oldest), forgotten);
    // Both ends of it survive, and its destination is allocated again.
    assert_eq!(
        lab.dial(Caller::App, "10.63.0.1:80").expect("a dial"),
        "proxy:15001 for 10.63.0.1:80"
    );
    assert_eq!(original(&lab.proxy, oldest), forgotten);
    let data = "hello\n".to_owned();
    lab.app
        .must(&Request::Send {
            socket: client,
            data,
        })
        .expect("sent");
    let received = lab.proxy.must(&Request::ReceiveLine { socket: oldest });
    assert_eq!(received.expect("a line"), Reply::Data("hello".to_owned()));
}
