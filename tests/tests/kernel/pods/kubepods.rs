//! Pods attached as on a node: at kubepods, at the root above it, and at their own cgroup.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Result;
use clap::Parser;
use interceptor::{
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        Dataplane,
        attach::{AttachSpec, Attached},
        attach_points::AttachPoints,
    },
    netns::{Netns, NetnsSpec},
    settings::{IstioFlags, Settings},
};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Level, Protocol, Reply, Request},
    },
    bpf::{
        pins,
        programs::{Action, AttachType, Mode, Program},
    },
    lab::{Caller, Lab, STOCK, all_captured, call, dial},
    users::APP,
    world::{Bind, serve, serve_udp},
};

const SERVICE: &str = "10.96.0.1:80";
const BACKEND: &str = "10.2.0.9:80";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    flags: IstioFlags,
}

fn settings(flags: &[&str], loopback: &str) -> Settings {
    let flags = Flags::parse_from(["interceptor"].iter().chain(flags)).flags;
    let environment = |name: &str| {
        let is_given = name == "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR" && !loopback.is_empty();
        is_given.then(|| loopback.to_owned())
    };
    let parsed = Settings::from_flags_and(&flags, &environment, None);
    parsed.expect("settings").settings
}

/// The lab's cgroup is the root, its `pod` is kubepods, and the cgroup of the pod's processes as
/// well.
fn attach(lab: &Lab, settings: &Settings, pod: &Path) -> Result<Attached> {
    let hierarchy = Hierarchy::find()?;
    let open = |path: &Path| Cgroup::open(&hierarchy, Some(path));
    let places = AttachPoints {
        root: open(lab.cgroup.path())?,
        kubepods: Some(open(&lab.cgroup.child("pod")?)?),
        pod: Some(open(pod)?),
    };
    let netns = Netns::open(&NetnsSpec::File(lab.pod.path().to_owned()))?;
    Dataplane::new().attach(&AttachSpec {
        pod: None,
        netns: &netns,
        attach_points: &places,
        settings,
        scan_listeners: false,
    })
}

/// Cilium's and Calico's programs at the root: clients of a service connect to a backend of it.
fn load_balancer() -> Program {
    let octets = |text: &str| match text.parse() {
        Ok(SocketAddr::V4(v4)) => v4.ip().octets(),
        _ => panic!("an address"),
    };
    let action = Action::Rewrite {
        from: octets(SERVICE),
        to: octets(BACKEND),
    };
    Program::load("balancer", AttachType::Connect4, action).expect("a program")
}

/// A socket of the pod that was created elsewhere.
fn stranger(lab: &Lab) -> Actor {
    let cgroup = lab.cgroup.child("elsewhere").expect("a cgroup");
    Actor::start("app", APP, lab.pod.namespace(), Some(&cgroup)).expect("an actor")
}

#[test]
fn a_root_load_balancer_does_not_affect_the_proxy() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let balancer = load_balancer();
    balancer
        .attach(lab.cgroup.path(), Mode::Multiple)
        .expect("attached");
    assert_eq!(lab.dial(Caller::App, SERVICE).expect("a dial"), "remote:80");
    // At the root, the balancer has run before ours.
    lab.attach(STOCK).expect("attached");
    let behind = format!("proxy:15001 for {BACKEND}");
    assert_eq!(lab.dial(Caller::App, SERVICE).expect("a dial"), behind);
    let pod = lab.cgroup.child("pod").expect("a cgroup");
    let replaced = attach(&lab, &settings(STOCK, ""), &pod).expect("attached");
    assert_eq!(replaced, Attached::Replaced);
    let before = format!("proxy:15001 for {SERVICE}");
    assert_eq!(lab.dial(Caller::App, SERVICE).expect("a dial"), before);
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    // The proxy's own connection reaches the balancer's destination.
    assert_eq!(
        dial(&lab.proxy, SERVICE).expect("a dial"),
        "remote:80",
        "the proxy"
    );
    // A socket that is not below kubepods is handled at the root.
    assert_eq!(dial(&stranger(&lab), SERVICE).expect("a dial"), behind);
}

/// A connection that the first program has captured is unchanged by the second, whatever counts as
/// loopback.
#[test]
fn a_connection_is_captured_once_by_two_programs() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let pod = lab.cgroup.child("pod").expect("a cgroup");
    for loopback in ["", "127.0.0.6/32", "127.1.0.0/16"] {
        let settings = settings(STOCK, loopback);
        attach(&lab, &settings, &pod).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured(), "{loopback}");
        let (socket, _) = call(&lab.app, BACKEND).expect("a call");
        let peer = lab.app.call(&Request::PeerName { socket });
        assert_eq!(
            peer.expect("a name"),
            Reply::Name(BACKEND.parse().expect("an address"))
        );
        lab.app.must(&Request::CloseAll).expect("closed");
    }
}

/// The same for datagrams, also of a socket that queries several servers.
#[test]
fn a_query_is_captured_once_by_two_programs() {
    let lab = Lab::new().expect("a lab");
    let agent = "127.0.0.1:15053".parse().expect("an address");
    serve_udp(&lab.proxy, agent).expect("an agent");
    let pod = lab.cgroup.child("pod").expect("a cgroup");
    let flags = [STOCK, &["--redirect-dns", "--capture-all-dns"]].concat();
    attach(&lab, &settings(&flags, ""), &pod).expect("attached");
    let socket = lab.app.socket(Family::V4, Protocol::Udp).expect("a socket");
    for server in ["10.96.0.10:53", "10.96.0.11:53", "10.96.0.10:53"] {
        let address = server.parse().expect("an address");
        let data = "who is there?".to_owned();
        let query = Request::SendTo {
            socket,
            address,
            data,
        };
        lab.app.must(&query).expect("sent");
        let peek = false;
        let reply = lab.app.must(&Request::ReceiveFrom { socket, peek });
        let reply = reply.expect("a reply");
        let Reply::Datagrams(datagrams) = &reply else {
            panic!("{reply:?}");
        };
        assert_eq!(datagrams[0].sender, address);
        assert!(datagrams[0].data.contains("proxy:15053"), "{reply:?}");
    }
}

/// Only the pod's own sockets pay for its proxy.
#[test]
fn the_proxy_is_served_in_the_pods_own_cgroup() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    let pod = lab.cgroup.child("pod").expect("a cgroup");
    let serving = |cgroup: &Path| {
        let id = fs::metadata(cgroup).expect("a cgroup").ino();
        let links = pins::links_of_cgroup(id).expect("links");
        let serves = |name: &&str| links.iter().any(|link| link.contains(*name));
        let programs = ["icept_origdst", "icept_sockops"].into_iter();
        programs.filter(serves).count()
    };
    lab.attach(STOCK).expect("attached");
    assert_eq!(serving(lab.cgroup.path()), 2);
    attach(&lab, &settings(STOCK, ""), &pod).expect("attached");
    assert_eq!((serving(&pod), serving(lab.cgroup.path())), (2, 0));
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.proxy.must(&Request::CloseAll).expect("closed");
    lab.start_proxy().expect("a proxy again");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.detach().expect("detached");
    assert_eq!(serving(&pod), 0);
}

/// A new sandbox of the same pod: kubelet has created its cgroup again.
#[test]
fn a_pods_recreated_cgroup_is_attached_again() {
    let lab = Lab::new().expect("a lab");
    let settings = settings(STOCK, "");
    let pod = lab.cgroup.child("pod/uid").expect("a cgroup");
    assert_eq!(attach(&lab, &settings, &pod).expect("new"), Attached::New);
    let again = attach(&lab, &settings, &pod).expect("again");
    assert_eq!(again, Attached::Unchanged);
    let old = fs::metadata(&pod).expect("a cgroup").ino();
    fs::remove_dir(&pod).expect("removed");
    let pod = lab.cgroup.child("pod/uid").expect("a cgroup");
    let replaced = attach(&lab, &settings, &pod).expect("attached again");
    assert_eq!(replaced, Attached::Replaced);
    let new = fs::metadata(&pod).expect("a cgroup").ino();
    assert!(pins::links_of_cgroup(old).expect("links").is_empty());
    assert!(!pins::links_of_cgroup(new).expect("links").is_empty());
    // A socket created there is handled there.
    let user = interceptor_testkit::users::PROXY;
    let proxy = Actor::start("proxy", user, lab.pod.namespace(), Some(&pod)).expect("a proxy");
    serve(&proxy, Bind::V4_WILDCARD, 15001).expect("a listener");
    assert_eq!(
        lab.dial(Caller::App, BACKEND).expect("a dial"),
        format!("proxy:15001 for {BACKEND}")
    );
    let socket = proxy.socket(Family::V4, Protocol::Tcp).expect("a socket");
    let length = 16;
    let original = proxy.call(&Request::OriginalDestination {
        socket,
        level: Level::Ip,
        length,
    });
    assert_eq!(
        original.expect("a reply"),
        Reply::Error("ENOENT".to_owned()),
        "an unconnected socket"
    );
}
