//! The addresses that interception uses inside the pod, dialled directly.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::{Family, Protocol, Request},
    scenario::address,
    world::Setup,
};
use nix::net::if_::if_nametoindex;

use super::{
    case::{
        Group,
        Who::{App, Neighbour},
        case,
    },
    options::{FAR, FAR_V6},
    outcome::{
        Outcome::{self, Inside, NothingArrives, Proxy},
        refused,
    },
    run::check,
    scene::Scene,
};

/// The pod's address on `eth0`, made from its hardware address.
const LINK_LOCAL: &str = "fe80::ff:fe00:102";
/// The first IPv6 stand-ins, and the ports that a stand-in may have.
const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0xfd69, 0x6365, 0x7074, 0, 0, 0, 0, 0);
const PORTS: [u16; 4] = [1, 2, 80, 15001];

/// The app dials from the address of the proxy's connections to the app.
fn from_passthrough(scene: &Scene, to: &str) -> Result<Outcome> {
    let app = scene.app()?;
    let socket = app.socket(Family::V4, Protocol::Tcp)?;
    let address = address("127.0.0.6:0");
    app.must(&Request::Bind { socket, address })?;
    scene.connect(app, socket, interceptor_testkit::scenario::address(to))
}

/// The neighbour routes a prefix to the pod, and dials an address in it.
fn routed(scene: &Scene, prefix: &str, to: &str) -> Result<Outcome> {
    let via = if prefix.contains(':') {
        "fd00:1::2"
    } else {
        "10.1.0.2"
    };
    let route = format!("route replace {prefix} via {via}");
    scene.world.peer().ip(&route)?;
    scene.dial_in(to)
}

/// The neighbour dials stand-ins that the pod uses.
fn stand_ins_from_outside(scene: &Scene) -> Result<Outcome> {
    for to in [FAR_V6, "[fd00:2::9]:443"] {
        let dialled = scene.dial(scene.app()?, to)?;
        anyhow::ensure!(dialled == Proxy, "{to}: {dialled}");
    }
    let mut outcome = NothingArrives;
    for number in 0..4_u128 {
        for port in PORTS {
            let ip = Ipv6Addr::from_bits(FIRST_V6.to_bits() + number);
            let to = SocketAddr::from((ip, port)).to_string();
            outcome = routed(scene, "fd69:6365:7074::/64", &to)?;
            if !matches!(outcome, Outcome::Refused(_)) {
                return Ok(outcome);
            }
        }
    }
    Ok(outcome)
}

/// The neighbour dials the pod's link-local address.
fn link_local(scene: &Scene) -> Result<Outcome> {
    let index = scene.world.peer().enter(|| Ok(if_nametoindex("eth0")?))?;
    scene.dial_in(&format!("[{LINK_LOCAL}%{index}]:8080"))
}

#[test]
fn addresses_of_interception() {
    check(&Group {
        title: "addresses of interception",
        setup: Setup::default(),
        cases: vec![
            case(
                App,
                "dials the proxy's port 15001",
                |scene| scene.dial(scene.app()?, "127.0.0.1:15001"),
                [Proxy, Proxy],
            ),
            case(
                App,
                "dials an unallocated IPv4 stand-in",
                |scene| scene.dial(scene.app()?, "127.200.0.1:80"),
                [Inside, refused("ECONNREFUSED")],
            ),
            case(
                App,
                "dials an unallocated IPv6 stand-in",
                |scene| scene.dial(scene.app()?, "[fd69:6365:7074::7f:1]:80"),
                [Proxy, refused("ECONNREFUSED")],
            ),
            case(
                App,
                "dials its own address from 127.0.0.6",
                |scene| from_passthrough(scene, "10.1.0.2:8080"),
                [Inside, Inside],
            ),
            case(
                App,
                "dials a captured destination from 127.0.0.6",
                |scene| from_passthrough(scene, FAR),
                [refused("EINVAL"), refused("EINVAL")],
            ),
            case(
                Neighbour,
                "dials port 15006",
                |scene| scene.dial_in("10.1.0.2:15006"),
                [Proxy, Proxy],
            ),
            case(
                Neighbour,
                "dials port 15001",
                |scene| scene.dial_in("10.1.0.2:15001"),
                [Proxy, Proxy],
            ),
            case(
                Neighbour,
                "dials the link-local address",
                link_local,
                [Proxy, Proxy],
            ),
            case(
                Neighbour,
                "dials IPv6 stand-ins that the pod uses, by a route",
                stand_ins_from_outside,
                [Proxy, refused("ECONNREFUSED")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "dials an IPv4 stand-in, by a route",
                |scene| routed(scene, "127.128.0.0/16", "127.128.0.1:1"),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "dials the passthrough address ::6, by a route",
                |scene| routed(scene, "::6/128", "[::6]:8080"),
                [NothingArrives, Proxy],
            ),
        ],
    });
}
