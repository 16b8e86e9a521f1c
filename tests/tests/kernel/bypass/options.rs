//! Socket options that name a route, a source, a mark or a protocol.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Protocol, Reply, Request, SocketOption},
    },
    scenario::address,
    world::Setup,
};

use super::{
    case::{
        Group,
        Who::{App, AppNetAdmin, AppNetRaw},
        case,
    },
    outcome::{
        Outcome::{self, NothingArrives, Proxy},
        leaves, not_possible, refused,
    },
    run::check,
    scene::Scene,
};
use crate::routing_options::{device, routing_header, source_route};

pub(super) const FAR: &str = "10.2.0.9:80";
pub(super) const FAR_V6: &str = "[fd00:2::9]:80";
const MAPPED: &str = "[::ffff:10.2.0.9]:80";
/// On the pod's link.
const NEAR: &str = "10.1.0.1:80";

const TCP_REPAIR: i32 = 19;
const TCP_ULP: i32 = 31;
const TCP_AO_ADD_KEY: i32 = 38;
/// `struct tcp_ao_add`
const TCP_AO_ADD_LENGTH: usize = 424;
const IPV6_ADDRFORM: i32 = 1;
const MARK_OF_PROXY: u32 = 1337;

fn tcp(name: i32, value: &[u8]) -> SocketOption {
    SocketOption::Other {
        level: libc::IPPROTO_TCP,
        name,
        value: value.to_vec(),
    }
}

/// Dials `to` from an address that the pod does not have.
fn from_foreign_address(scene: &Scene, app: &Actor, option: SocketOption) -> Result<Outcome> {
    let socket = app.socket(Family::V4, Protocol::Tcp)?;
    app.must(&Request::Set { socket, option })?;
    let address = address("10.66.0.1:0");
    app.must(&Request::Bind { socket, address })?;
    let to = interceptor_testkit::scenario::address(FAR);
    scene.connect(app, socket, to)
}

/// Sets an option of a connection to the proxy, then sends data.
fn after_connecting(scene: &Scene, app: &Actor, to: &str, option: SocketOption) -> Result<Outcome> {
    let socket = app.connect(address(to))?;
    if let Reply::Error(errno) = app.call(&Request::Set { socket, option })? {
        return Ok(Outcome::of_errno(errno));
    }
    scene.echo(app, socket)
}

/// Connects without a handshake.
fn in_repair(scene: &Scene) -> Result<Outcome> {
    let app = scene.admin_app()?;
    let socket = app.socket(Family::V4, Protocol::Tcp)?;
    let on = tcp(TCP_REPAIR, &1_i32.to_ne_bytes());
    app.must(&Request::Set { socket, option: on })?;
    let address = address(FAR);
    if let Reply::Error(errno) = app.call(&Request::Connect { socket, address })? {
        return Ok(Outcome::of_errno(errno));
    }
    let off = tcp(TCP_REPAIR, &0_i32.to_ne_bytes());
    app.must(&Request::Set {
        socket,
        option: off,
    })?;
    scene.echo(&app, socket)
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn socket_options() {
    check(&Group {
        title: "socket options",
        setup: Setup::default(),
        cases: vec![
            case(
                App,
                "`SO_BINDTODEVICE`, IPv4",
                |scene| scene.dial_with(scene.app()?, &[device()], FAR),
                [leaves("SYN"), refused("ECONNREFUSED")],
            ),
            case(
                App,
                "`SO_BINDTODEVICE`, IPv6",
                |scene| scene.dial_with(scene.app()?, &[device()], FAR_V6),
                [leaves("SYN"), refused("ECONNREFUSED")],
            ),
            case(
                App,
                "`SO_BINDTODEVICE` after connecting",
                |scene| after_connecting(scene, scene.app()?, FAR_V6, device()),
                [leaves("data"), refused("EPERM")],
            ),
            case(
                App,
                "`IPV6_RTHDR`: a segment routing header",
                |scene| scene.dial_with(scene.app()?, &[routing_header()], FAR_V6),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                App,
                "`IPV6_RTHDR` after connecting",
                |scene| after_connecting(scene, scene.app()?, FAR_V6, routing_header()),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                AppNetRaw,
                "`IP_OPTIONS`: a loose source route",
                |scene| scene.dial_with(&scene.raw_app()?, &[source_route()], FAR),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                AppNetRaw,
                "`IP_OPTIONS` after connecting",
                |scene| after_connecting(scene, &scene.raw_app()?, FAR, source_route()),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                App,
                "`IP_UNICAST_IF`",
                |scene| {
                    let option = SocketOption::UnicastInterface("eth1".to_owned());
                    scene.dial_with(scene.app()?, &[option], FAR)
                },
                [Proxy, Proxy],
            ),
            case(
                App,
                "`IPV6_PKTINFO`",
                |scene| {
                    let option = SocketOption::PacketInfoV6("eth1".to_owned());
                    scene.dial_with(scene.app()?, &[option], FAR_V6)
                },
                [Proxy, Proxy],
            ),
            case(
                App,
                "`SO_DONTROUTE`, to a neighbour",
                |scene| scene.dial_with(scene.app()?, &[SocketOption::DontRoute], NEAR),
                [Proxy, Proxy],
            ),
            case(
                App,
                "an IPv6 socket that dials an IPv4-mapped address",
                |scene| scene.dial(scene.app()?, MAPPED),
                [Proxy, Proxy],
            ),
            case(
                App,
                "`IPV6_ADDRFORM`: such a socket becomes an IPv4 socket",
                |scene| {
                    let option = SocketOption::Other {
                        level: libc::SOL_IPV6,
                        name: IPV6_ADDRFORM,
                        value: libc::AF_INET.to_ne_bytes().to_vec(),
                    };
                    after_connecting(scene, scene.app()?, MAPPED, option)
                },
                [Proxy, Proxy],
            ),
            case(
                App,
                "`IP_FREEBIND`: a source address that the pod does not have",
                |scene| from_foreign_address(scene, scene.app()?, SocketOption::FreeBind),
                [refused("ENETUNREACH"), refused("ENETUNREACH")],
            ),
            case(
                AppNetRaw,
                "`IP_TRANSPARENT`: a source address that the pod does not have",
                |scene| from_foreign_address(scene, &scene.raw_app()?, SocketOption::Transparent),
                [NothingArrives, NothingArrives],
            ),
            case(
                AppNetAdmin,
                "`SO_MARK`: the mark of the proxy in TPROXY mode",
                |scene| {
                    let option = SocketOption::Mark(MARK_OF_PROXY);
                    scene.dial_with(&scene.admin_app()?, &[option], FAR)
                },
                [Proxy, Proxy],
            ),
            case(
                AppNetAdmin,
                "`TCP_REPAIR`: a connection without a handshake",
                in_repair,
                [refused("ECONNRESET"), refused("ECONNRESET")],
            ),
            case(
                App,
                "`TCP_MD5SIG`",
                |scene| {
                    let option = SocketOption::Md5Key(address(FAR));
                    scene.dial_with(scene.app()?, &[option], FAR)
                },
                [NothingArrives, Proxy],
            ),
            case(
                App,
                "`TCP_AO_ADD_KEY`",
                |scene| {
                    let option = tcp(TCP_AO_ADD_KEY, &[0; TCP_AO_ADD_LENGTH]);
                    scene.dial_with(scene.app()?, &[option], FAR)
                },
                [not_possible("ENOPROTOOPT"), not_possible("ENOPROTOOPT")],
            ),
            case(
                App,
                "`TCP_ULP`: kTLS after connecting",
                |scene| after_connecting(scene, scene.app()?, FAR, tcp(TCP_ULP, b"tls")),
                [not_possible("ENOENT"), not_possible("ENOENT")],
            ),
        ],
    });
}
