//! Attaching and detaching while connections are made.

use anyhow::Result;
use interceptor_testkit::{
    dialler::{Dialler, Outcomes, Plan},
    lab::{Lab, STOCK, all_captured, all_direct},
    users::{APP, ROOT},
};

/// A pod that stays attached, so that shared objects need not be loaded each time.
fn steady() -> Lab {
    let steady = Lab::new().expect("a lab");
    steady.attach(STOCK).expect("attached");
    steady
}

/// The app and an outside client, which dial all the time.
fn diallers(lab: &Lab) -> Result<[Dialler; 2]> {
    let (app, peer) = (lab.cgroup.child("pod/app")?, lab.cgroup.child("peer")?);
    Ok([
        Dialler::start(APP, &lab.pod, &app, &Plan::endless("10.2.0.9:80")?)?,
        Dialler::start(ROOT, &lab.peer, &peer, &Plan::endless("10.1.0.2:8080")?)?,
    ])
}

fn stop(diallers: [Dialler; 2]) -> [Outcomes; 2] {
    diallers.map(|dialler| dialler.stop().expect("outcomes"))
}

/// All connections up to a certain one bypass the proxy, and all later ones are captured.
#[test]
fn with_a_proxy_an_attach_is_atomic() {
    let (_steady, lab) = (steady(), Lab::new().expect("a lab"));
    lab.start_proxy().expect("a proxy");
    for _ in 0..3 {
        let diallers = diallers(&lab).expect("diallers");
        lab.attach(STOCK).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        let [out, into] = stop(diallers);
        assert_eq!(out.turns, ["remote:80", "proxy:15001"]);
        assert_eq!(into.turns, ["server:8080", "proxy:15006"]);
        lab.detach().expect("detached");
    }
}

/// Connections before the proxy listens are refused, without later effects.
#[test]
fn without_a_proxy_an_attach_refuses_atomically() {
    let lab = Lab::new().expect("a lab");
    let diallers = diallers(&lab).expect("diallers");
    lab.attach(STOCK).expect("attached");
    let refused = vec!["ECONNREFUSED"; all_captured().len()];
    assert_eq!(lab.dial_all().expect("dials"), refused);
    lab.start_proxy().expect("a proxy");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    let refused = "Connection refused (os error 111)";
    let [out, into] = stop(diallers);
    assert_eq!(out.turns, ["remote:80", refused, "proxy:15001"]);
    assert_eq!(into.turns, ["server:8080", refused, "proxy:15006"]);
}

/// Each connection is captured completely, including the proxy's lookup of its original
/// destination, or it is direct: none is refused, reset or closed.
#[test]
fn a_connection_during_a_detach_is_captured_or_direct() {
    let (_steady, lab) = (steady(), Lab::new().expect("a lab"));
    lab.start_proxy().expect("a proxy");
    let crowd: Vec<_> = (0..3)
        .flat_map(|_| diallers(&lab).expect("diallers"))
        .collect();
    for _ in 0..20 {
        lab.attach(STOCK).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        lab.detach().expect("detached");
        assert_eq!(lab.dial_all().expect("dials"), all_direct());
    }
    let expected = [["proxy:15001", "remote:80"], ["proxy:15006", "server:8080"]];
    for (dialler, expected) in crowd.into_iter().zip(expected.into_iter().cycle()) {
        let outcomes = dialler.stop().expect("outcomes");
        assert_eq!(outcomes.names(), expected, "{outcomes:#?}");
    }
}
