//! Changes of the pod's network, which `CAP_NET_ADMIN` permits.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Protocol, Request},
    },
    command::{bounded, run},
    inner::put_inside,
    netns::Netns,
    packet,
    scenario::address,
    users::ROOT,
    world::{Role, Setup},
};

use super::{
    case::{Group, Who::AppNetAdmin, case},
    options::{FAR, FAR_V6},
    outcome::{
        Outcome::{self, Inside, NothingArrives, Proxy},
        leaves, past, refused,
    },
    packets::{NEIGHBOUR, POD, incoming, plain},
    run::check,
    scene::Scene,
};

/// Changes the pod's network.
fn change(scene: &Scene, commands: &str) -> Result<()> {
    scene.world.pod().ip(commands)?;
    scene.forget_packets()
}

fn flushed(scene: &Scene, to: &str) -> Result<Outcome> {
    let flush = || run(bounded("nft").args(["flush", "ruleset"]), "");
    scene.world.pod().enter(flush)?;
    scene.dial(scene.app()?, to)
}

/// Sends packets to the stand-ins out of the pod, by a rule before that of the table `local`.
fn stand_ins_rerouted(scene: &Scene, to: &str) -> Result<Outcome> {
    for (family, range, gateway) in [
        ("-4", "127.128.0.0/9", "10.1.0.1"),
        ("-6", "fd69:6365:7074::/64", "fd00:1::1"),
    ] {
        let commands = format!(
            "rule add pref 1 lookup local\n\
             rule del pref 0\n\
             rule add pref 0 to {range} lookup 7\n\
             route add default via {gateway} dev eth0 table 7"
        );
        let change = || run(bounded("ip").args([family, "-batch", "-"]), &commands);
        scene.world.pod().enter(change)?;
    }
    scene.forget_packets()?;
    scene.dial(scene.app()?, to)
}

fn lo_down_and_up(scene: &Scene, to: &str) -> Result<Outcome> {
    change(scene, "link set lo down\nlink set lo up")?;
    scene.dial(scene.app()?, to)
}

/// The pod has the neighbour's address too.
fn neighbours_address_on_lo(scene: &Scene) -> Result<Outcome> {
    let pod = scene.world.pod();
    for device in ["all", "eth0"] {
        pod.sysctl(&format!("net.ipv4.conf.{device}.accept_local"), "1")?;
        pod.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0")?;
    }
    change(scene, "addr add 10.1.0.1/32 dev lo")?;
    incoming(scene, None, &[plain(NEIGHBOUR, POD)])
}

/// The kernel accepts packets from outside to localhost.
fn localhost_from_outside(scene: &Scene) -> Result<Outcome> {
    let pod = scene.world.pod();
    for device in ["all", "eth0"] {
        pod.sysctl(&format!("net.ipv4.conf.{device}.route_localnet"), "1")?;
    }
    incoming(scene, None, &[plain(NEIGHBOUR, "127.0.0.1:8080")])
}

/// Another veth pair to the neighbour.
fn new_interface(scene: &Scene) -> Result<()> {
    let (pod, peer) = (scene.world.pod(), scene.world.peer());
    pod.cable("net1", peer, "net1", 3)?;
    pod.ip("addr add 10.7.0.2/24 dev net1")?;
    peer.ip("addr add 10.7.0.1/24 dev net1")
}

/// A process in a network namespace of its own.
struct Inner {
    actor: Actor,
    netns: Netns,
}

impl Inner {
    fn new(scene: &Scene) -> Result<Self> {
        let cgroup = scene.world.cgroup().child("pod/inner")?;
        let netns = Netns::new("inner", Some(&cgroup))?;
        let actor = Actor::start("inner", ROOT, netns.namespace(), Some(&cgroup))?;
        Ok(Self { actor, netns })
    }
}

/// The pod forwards for a network namespace that the app has made.
fn behind_the_pod(scene: &Scene) -> Result<Outcome> {
    let inner = Inner::new(scene)?;
    put_inside(scene.world.pod(), scene.world.peer(), &inner.netns)?;
    scene.dial(&inner.actor, FAR)
}

/// Such a namespace has an interface of its own on the pod's link.
fn macvlan(scene: &Scene) -> Result<Outcome> {
    let inner = Inner::new(scene)?;
    let netns = inner.netns.path().display();
    change(
        scene,
        &format!("link add mac0 link eth0 netns {netns} type macvlan mode bridge"),
    )?;
    inner
        .netns
        .ip("link set mac0 up\naddr add 10.1.0.77/24 dev mac0\nroute add default via 10.1.0.1")?;
    scene.dial(&inner.actor, FAR)
}

/// A SYN that the app writes to a link of the pod to itself, and that the pod forwards.
fn own_veth(scene: &Scene) -> Result<Outcome> {
    const OWN: [u8; 6] = [2, 0, 0, 0, 9, 2];

    let pod = scene.world.pod();
    pod.sysctl("net.ipv4.ip_forward", "1")?;
    change(
        scene,
        "link add own0 address 02:00:00:00:09:02 type veth peer name own1\n\
         link set own0 up\nlink set own1 up\naddr add 10.5.0.1/24 dev own0",
    )?;
    let frame = packet::frame(OWN, OWN, None, &plain("10.5.0.2:40404", FAR));
    scene.raw_app()?.must(&Request::SendFrames {
        interface: "own1".to_owned(),
        frames: vec![frame],
        bypass_queue: false,
    })?;
    scene.leaving()
}

/// The same from a tun device.
fn tun(scene: &Scene) -> Result<Outcome> {
    scene.world.pod().sysctl("net.ipv4.ip_forward", "1")?;
    change(
        scene,
        "tuntap add tun0 mode tun\nlink set tun0 up\naddr add 10.5.0.1/24 dev tun0",
    )?;
    scene.world.actor(Role::Root)?.must(&Request::WriteToTun {
        interface: "tun0".to_owned(),
        packets: vec![plain("10.5.0.2:40404", FAR)],
    })?;
    scene.leaving()
}

/// An unprivileged connection from the address of the app's own interface on the link.
fn own_macvlan(scene: &Scene) -> Result<Outcome> {
    change(
        scene,
        "link add mac0 link eth0 type macvlan mode bridge\n\
         link set mac0 up\naddr add 10.1.0.77/24 dev mac0",
    )?;
    let app = scene.app()?;
    let socket = app.socket(Family::V4, Protocol::Tcp)?;
    let address = address("10.1.0.77:0");
    app.must(&Request::Bind { socket, address })?;
    let to = interceptor_testkit::scenario::address(FAR);
    scene.connect(app, socket, to)
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn changes_of_the_network() {
    const FORWARDING: &str = "a new interface, or forwarding that is enabled later";
    const ROUTES: &str = "routes of stand-ins that the app replaces";

    let cases = vec![
        case(
            AppNetAdmin,
            "flushes all iptables and nftables rules, dials IPv4",
            |scene| flushed(scene, FAR),
            [past("a connection"), Proxy],
        ),
        case(
            AppNetAdmin,
            "flushes all iptables and nftables rules, dials IPv6",
            |scene| flushed(scene, FAR_V6),
            [past("a connection"), Proxy],
        ),
        case(
            AppNetAdmin,
            "takes `lo` down and up, dials IPv4",
            |scene| lo_down_and_up(scene, FAR),
            [Proxy, Proxy],
        ),
        case(
            AppNetAdmin,
            "takes `lo` down and up, dials IPv6",
            |scene| lo_down_and_up(scene, FAR_V6),
            [Proxy, refused("ENETUNREACH")],
        ),
        case(
            AppNetAdmin,
            "routes the stand-ins out of the pod, dials IPv4",
            |scene| stand_ins_rerouted(scene, FAR),
            [Proxy, leaves("SYN")],
        )
        .strict(NothingArrives)
        .known(ROUTES),
        case(
            AppNetAdmin,
            "routes the stand-ins out of the pod, dials IPv6",
            |scene| stand_ins_rerouted(scene, FAR_V6),
            [Proxy, leaves("SYN")],
        )
        .strict(NothingArrives)
        .known(ROUTES),
        case(
            AppNetAdmin,
            "adds the destination's address to `lo`, dials it",
            |scene| {
                change(scene, "addr add 10.2.0.9/32 dev lo")?;
                scene.dial(scene.app()?, FAR)
            },
            [Inside, Inside],
        ),
        case(
            AppNetAdmin,
            "adds an address, which the neighbour dials",
            |scene| {
                change(scene, "addr add 10.1.0.66/24 dev eth0")?;
                scene.dial_in("10.1.0.66:8080")
            },
            [Proxy, Proxy],
        ),
        case(
            AppNetAdmin,
            "adds an interface, dials a host on it",
            |scene| {
                new_interface(scene)?;
                scene.dial(scene.app()?, "10.7.0.1:80")
            },
            [Proxy, Proxy],
        ),
        case(
            AppNetAdmin,
            "adds an interface, on which a neighbour dials in",
            |scene| {
                new_interface(scene)?;
                scene.dial_in("10.7.0.2:8080")
            },
            [Proxy, Proxy],
        ),
        case(
            AppNetAdmin,
            "adds the neighbour's address to `lo`: the neighbour sends a SYN",
            neighbours_address_on_lo,
            [refused("RST"), refused("RST")],
        )
        .strict(NothingArrives),
        case(
            AppNetAdmin,
            "sets `route_localnet`: the neighbour sends a SYN to 127.0.0.1",
            localhost_from_outside,
            [NothingArrives, NothingArrives],
        ),
        case(
            AppNetAdmin,
            "forwards for a network namespace of its own",
            behind_the_pod,
            [Proxy, past("a connection")],
        )
        .strict(NothingArrives)
        .known(FORWARDING),
        case(
            AppNetAdmin,
            "forwards a SYN from a veth of its own",
            own_veth,
            [NothingArrives, leaves("SYN")],
        )
        .strict(NothingArrives)
        .known(FORWARDING),
        case(
            AppNetAdmin,
            "forwards a SYN from a tun device of its own",
            tun,
            [NothingArrives, leaves("SYN")],
        )
        .strict(NothingArrives)
        .known(FORWARDING),
        case(
            AppNetAdmin,
            "adds a macvlan interface, dials from its address",
            own_macvlan,
            [Proxy, Proxy],
        ),
        case(
            AppNetAdmin,
            "adds a macvlan interface in a network namespace of its own, dials there",
            macvlan,
            [past("a connection"), past("a connection")],
        )
        .strict(NothingArrives),
    ];
    check(&Group {
        title: "changes of the network",
        setup: Setup::default(),
        cases: cases
            .into_iter()
            .map(super::case::Case::changes_world)
            .collect(),
    });
}
