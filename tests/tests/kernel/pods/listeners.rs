//! A proxy that starts and stops.

use std::fs;

use interceptor_ebpf::MAX_LISTENER_SLOTS;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol, Request, SocketOption},
    },
    lab::{Caller, Lab, STOCK, all_captured},
    users::PROXY,
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

/// The proxy's process exits, by a signal, with open connections.
#[test]
fn connections_are_refused_after_the_exit_of_a_proxy() {
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
        interceptor_testkit::lab::call(&lab.app, "10.2.0.9:80").expect("a call");
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

/// Of more listeners than slots the oldest and the newest are found, and each of them alone
/// receives connections.
#[test]
fn of_too_many_listeners_the_oldest_and_the_newest_are_found() {
    const TO: &str = "10.2.0.9:80";

    let lab = attached();
    let listen = || lab.listen([15001]).expect("a listener");
    let response = || lab.dial(Caller::App, TO).expect("a dial");
    let oldest = listen();
    let others: Vec<_> = (0..MAX_LISTENER_SLOTS).map(|_| listen()).collect();
    let newest = listen();
    for listener in others {
        lab.close(listener).expect("closed");
    }
    assert_eq!(response(), format!("proxy:15001 for {TO}"));
    lab.close(oldest).expect("closed");
    assert_eq!(response(), format!("proxy:15001 for {TO}"));
    lab.close(newest).expect("closed");
    assert_eq!(response(), "ECONNREFUSED");
}

/// A pod's listeners use no slots of other pods, nor those of its own proxy: a listener on an
/// address that no lookup requests is not recorded, and the others share the pod's slots.
#[test]
fn many_listeners_do_not_hide_a_proxy() {
    const KINDS: usize = 5;
    const PORTS: usize = 2;
    const CLOSED: u32 = 33_000;
    const OPEN: u32 = 600;

    let lab = attached();
    let listen = |first: &str, count, stay_open| {
        let first = first.parse().expect("an address");
        let crowd = Request::ListenOnMany {
            first,
            count,
            stay_open,
        };
        lab.app.must(&crowd).expect("listened");
    };
    listen("127.1.0.0:15001", CLOSED, false);
    listen("[fd00:9::]:15001", CLOSED, false);
    let listeners = lab.start_proxy().expect("a proxy");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.close(listeners).expect("closed");
    listen("127.2.0.0:15006", OPEN, true);
    listen("[fd00:a::]:15006", OPEN, true);
    let noted = lab.leftovers().expect("entries");
    let of_listeners = |map: &str| noted.iter().filter(|entry| entry.starts_with(map)).count();
    assert_eq!(of_listeners("icept_lports"), PORTS);
    let most = KINDS * PORTS * usize::from(MAX_LISTENER_SLOTS);
    assert!(of_listeners("icept_listeners") <= most, "{noted:?}");
    let other = attached();
    other.start_proxy().expect("a proxy");
    assert_eq!(other.dial_all().expect("dials"), all_captured());
}

/// A proxy that listens outside the cgroup that the pod is attached at.
fn proxy_outside(lab: &Lab) -> Actor {
    let cgroup = lab.cgroup.child("outside").expect("a cgroup");
    let proxy = Actor::start("proxy", PROXY, lab.pod.namespace(), Some(&cgroup));
    let proxy = proxy.expect("a proxy");
    for bind in Bind::BOTH_WILDCARDS {
        for port in [15001, 15006] {
            serve(&proxy, bind, port).expect("a listener");
        }
    }
    proxy
}

/// A listener that opened without running a hook is found when the pod is attached at a cgroup that
/// contains it.
#[test]
fn attaching_at_another_cgroup_finds_listeners() {
    let lab = Lab::new().expect("a lab");
    let inside = lab.cgroup.child("pod").expect("a cgroup");
    lab.attach_at(&inside, STOCK).expect("attached");
    let _proxy = proxy_outside(&lab);
    assert_eq!(lab.dial_all().expect("dials"), refused());
    lab.attach(STOCK).expect("attached at the right cgroup");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
}

/// The same when only the process's cgroup has changed. (Its sockets stay in the cgroup that they
/// were created in: `SO_ORIGINAL_DST` is not available.)
#[test]
fn attaching_again_finds_unrecorded_listeners() {
    let lab = Lab::new().expect("a lab");
    let inside = lab.cgroup.child("pod").expect("a cgroup");
    lab.attach_at(&inside, STOCK).expect("attached");
    let one_port = lab.listen([15006]).expect("a listener");
    let proxy = proxy_outside(&lab);
    lab.close(one_port).expect("closed");
    let moved = fs::write(inside.join("cgroup.procs"), proxy.pid().to_string());
    moved.expect("moved");
    assert_eq!(lab.dial_all().expect("dials"), refused());
    lab.attach_at(&inside, STOCK).expect("attached again");
    let responses = lab.dial_all().expect("dials");
    assert!(
        responses
            .iter()
            .all(|response| response.starts_with("proxy:150")),
        "{responses:?}"
    );
}

/// The new listeners open before the old ones close, repeatedly: more of them in total than the
/// slots.
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

/// The new policy applies to the proxy that starts under it.
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
    let moved: Vec<_> = moved
        .map(|response| response.replace(":150", ":160"))
        .collect();
    assert_eq!(lab.dial_all().expect("dials"), moved);
}
