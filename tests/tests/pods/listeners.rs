//! A proxy that comes and goes.

use interceptor_ebpf::SLOTS_PER_LISTENER;
use interceptor_tests::{
    actor::Actor,
    agent::protocol::{Family, Handle, Protocol, Request, SocketOption},
    lab::{Lab, PROXY, STOCK, Who, all_captured},
    world::{Bind, serve},
};

fn refused() -> Vec<&'static str> {
    vec!["ECONNREFUSED"; all_captured().len()]
}

fn attached() -> Lab {
    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    lab
}

#[test]
fn without_a_proxy_everything_is_refused() {
    let lab = attached();
    assert_eq!(lab.dial_all().expect("dials"), refused());
    for _ in 0..3 {
        let listeners = lab.start_proxy().expect("a proxy");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        lab.close(listeners).expect("closed");
        assert_eq!(lab.dial_all().expect("dials"), refused());
    }
}

/// The proxy's process ends, by a signal, with connections open.
#[test]
fn a_proxy_that_dies_is_refused_until_the_next_listens() {
    let lab = attached();
    let cgroup = lab.cgroup.child("pod/proxy").expect("a cgroup");
    for _ in 0..3 {
        let proxy = Actor::start("proxy", PROXY, lab.pod.namespace(), Some(&cgroup));
        let proxy = proxy.expect("a proxy");
        for bind in Bind::BOTH_WILDCARDS {
            for port in [15001, 15006] {
                serve(&proxy, bind, port).expect("a listener");
            }
        }
        interceptor_tests::lab::call(&lab.app, "10.2.0.9:80").expect("a call");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        drop(proxy);
        assert_eq!(lab.dial_all().expect("dials"), refused());
    }
}

/// One socket of a group on both ports, for both families.
fn listeners(lab: &Lab, count: usize) -> Vec<Vec<Handle>> {
    (0..count)
        .map(|_| lab.start_proxy().expect("listeners"))
        .collect()
}

#[test]
fn the_last_of_many_listeners_is_found() {
    const MANY: usize = 64;

    for before_attach in [false, true] {
        let lab = Lab::new().expect("a lab");
        if !before_attach {
            lab.attach(STOCK).expect("attached");
        }
        let mut listeners = listeners(&lab, MANY);
        if before_attach {
            lab.attach(STOCK).expect("attached");
        }
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        let last = listeners.remove(MANY / 3);
        for listener in listeners {
            lab.close(listener).expect("closed");
        }
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        lab.close(last).expect("closed");
        assert_eq!(lab.dial_all().expect("dials"), refused());
    }
}

/// A known limit (`docs/differences.md`): who is not noted takes part while others are, and alone gets
/// nothing.
#[test]
fn one_listener_more_than_there_is_room_for_is_refused() {
    const TO: &str = "10.2.0.9:80";

    let lab = attached();
    let listen = || lab.listen([15001]).expect("a listener");
    let noted: Vec<_> = (0..SLOTS_PER_LISTENER).map(|_| listen()).collect();
    let one_more = listen();
    let answer = || lab.dial(Who::App, TO).expect("a dial");
    assert_eq!(answer(), format!("proxy:15001 for {TO}"));
    for listener in noted {
        lab.close(listener).expect("closed");
    }
    assert_eq!(answer(), "ECONNREFUSED");
    lab.close(one_more).expect("closed");
    let _next = listen();
    assert_eq!(answer(), format!("proxy:15001 for {TO}"));
}

/// The new listeners open before the old ones close, over and over: more of them in all than there
/// is room for at once.
#[test]
fn hot_restarts_never_lose_the_proxy() {
    const WORKERS: usize = 50;
    const RESTARTS: usize = 7;

    let lab = attached();
    let mut old = listeners(&lab, WORKERS);
    for restart in 0..RESTARTS {
        let new = listeners(&lab, WORKERS);
        assert_eq!(lab.dial_all().expect("dials"), all_captured(), "{restart}");
        for listener in old {
            lab.close(listener).expect("closed");
        }
        assert_eq!(lab.dial_all().expect("dials"), all_captured(), "{restart}");
        old = new;
    }
}

/// A socket that stops listening is refused, and found again when it listens again.
#[test]
fn a_socket_that_listens_again_is_found_again() {
    let lab = attached();
    let mut sockets = Vec::new();
    for port in [15001, 15006] {
        let socket = lab
            .proxy
            .socket(Family::V6, Protocol::Tcp)
            .expect("a socket");
        for option in [SocketOption::ReuseAddress, SocketOption::V6Only(false)] {
            lab.proxy
                .must(&Request::Set { socket, option })
                .expect("set");
        }
        let address = format!("[::]:{port}").parse().expect("an address");
        for request in [
            Request::Bind { socket, address },
            Request::Listen { socket },
            Request::Disconnect { socket },
        ] {
            lab.proxy.must(&request).expect("done");
        }
        sockets.push(socket);
    }
    assert_eq!(lab.dial_all().expect("dials"), refused());
    for socket in sockets {
        for request in [Request::Listen { socket }, Request::Serve { socket }] {
            lab.proxy.must(&request).expect("done");
        }
    }
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

/// The new policy counts for the proxy that comes up under it.
#[test]
fn a_policy_is_replaced_while_the_proxy_is_down() {
    let lab = attached();
    let listeners = lab.start_proxy().expect("a proxy");
    lab.close(listeners).expect("closed");
    let new = [STOCK, &["-p", "16001", "-z", "16006"]].concat();
    lab.attach(&new).expect("replaced");
    assert_eq!(lab.dial_all().expect("dials"), refused());
    lab.start_proxy().expect("a proxy on the old ports");
    assert_eq!(lab.dial_all().expect("dials"), refused());
    lab.listen([16001, 16006]).expect("a proxy");
    let moved = all_captured().into_iter();
    let moved: Vec<_> = moved.map(|answer| answer.replace(":150", ":160")).collect();
    assert_eq!(lab.dial_all().expect("dials"), moved);
}
