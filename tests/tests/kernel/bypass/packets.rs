//! Packets that an app or a neighbour makes itself.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Reply, Request},
    },
    packet::{self, Fragment, TCP},
    scenario::address,
    world::Setup,
};

use super::{
    case::{
        Group,
        Who::{AppNetRaw, Neighbour},
        case,
    },
    options::{FAR, FAR_V6},
    outcome::{
        Outcome::{self, NothingArrives},
        leaves, refused,
    },
    run::check,
    scene::Scene,
};

const POD_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(super) const POD: &str = "10.1.0.2:8080";
const POD_V6: &str = "[fd00:1::2]:8080";
/// Where the pod and the neighbour send from.
const FROM_POD: &str = "10.1.0.2:40404";
const FROM_POD_V6: &str = "[fd00:1::2]:40404";
pub(super) const NEIGHBOUR: &str = "10.1.0.1:40404";
const NEIGHBOUR_V6: &str = "[fd00:1::1]:40404";

/// Padding in destination or hop-by-hop options, before a TCP header.
const PADDING: [u8; 8] = [TCP, 0, 1, 4, 0, 0, 0, 0];
/// `IPPROTO_HOPOPTS`, `IPPROTO_ROUTING`, `IPPROTO_FRAGMENT` and `IPPROTO_DSTOPTS`
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// A SYN, sent by a raw IP socket of `protocol`: the socket adds the IP header unless it is
/// `IPPROTO_RAW`.
fn raw(scene: &Scene, from: &str, to: &str, protocol: i32) -> Result<Outcome> {
    let app = scene.raw_app()?;
    let (from, to) = (address(from), address(to));
    let domain = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let opened = app.call(&Request::OpenSocket {
        domain,
        kind: libc::SOCK_RAW,
        protocol,
    })?;
    let Reply::Socket(socket) = opened else {
        return failed(opened);
    };
    let segment = packet::syn(from, to);
    let bytes = if protocol == libc::IPPROTO_RAW {
        packet::ip(from.ip(), to.ip(), &segment)
    } else {
        segment
    };
    let address = Some(SocketAddr::new(to.ip(), 0));
    let sent = app.call(&Request::SendBytes {
        socket,
        address,
        bytes,
    })?;
    match sent {
        Reply::Error(_) => failed(sent),
        _ => scene.leaving(),
    }
}

/// An ICMP socket, whose packets have a header of the app's (`IP_HDRINCL`): with TCP.
fn icmp_with_header(scene: &Scene) -> Result<Outcome> {
    let app = scene.raw_app()?;
    let opened = app.call(&Request::OpenSocket {
        domain: libc::AF_INET,
        kind: libc::SOCK_RAW,
        protocol: libc::IPPROTO_ICMP,
    })?;
    let Reply::Socket(socket) = opened else {
        return failed(opened);
    };
    let option = interceptor_testkit::actor::protocol::SocketOption::Other {
        level: libc::SOL_IP,
        name: libc::IP_HDRINCL,
        value: 1_i32.to_ne_bytes().to_vec(),
    };
    let reply = app.call(&Request::Set { socket, option })?;
    if let Reply::Error(_) = reply {
        return failed(reply);
    }
    let (from, to) = (address(FROM_POD), address(FAR));
    let bytes = packet::ip(from.ip(), to.ip(), &packet::syn(from, to));
    let sent = app.call(&Request::SendBytes {
        socket,
        address: Some(SocketAddr::new(to.ip(), 0)),
        bytes,
    })?;
    match sent {
        Reply::Error(_) => failed(sent),
        _ => scene.leaving(),
    }
}

fn failed(reply: Reply) -> Result<Outcome> {
    match reply {
        Reply::Error(errno) => Ok(Outcome::of_errno(errno)),
        reply => anyhow::bail!("unexpected: {reply:?}"),
    }
}

/// A SYN, sent by a packet socket.
fn packet_socket(scene: &Scene, from: &str, to: &str, bypass_queue: bool) -> Result<Outcome> {
    leave(
        scene,
        &Request::SendFrames {
            interface: "eth0".to_owned(),
            frames: vec![packet::frame(PEER_MAC, POD_MAC, None, &plain(from, to))],
            bypass_queue,
        },
    )
}

/// A SYN, sent by a socket of `AF_XDP`.
fn xdp_socket(scene: &Scene) -> Result<Outcome> {
    leave(
        scene,
        &Request::SendByXdp {
            interface: "eth0".to_owned(),
            frame: packet::frame(PEER_MAC, POD_MAC, None, &plain(FROM_POD, FAR)),
        },
    )
}

fn leave(scene: &Scene, request: &Request) -> Result<Outcome> {
    let sent = scene.raw_app()?.call(request)?;
    match sent {
        Reply::Error(_) => failed(sent),
        _ => scene.leaving(),
    }
}

/// The result of sending a frame that a program drops at the sender's side.
fn dropped() -> Reply {
    Reply::Error("ENOBUFS".to_owned())
}

/// Packets that the neighbour sends to the pod.
fn send(neighbour: &Actor, vlan: Option<u16>, packets: &[Vec<u8>]) -> Result<()> {
    for packet in packets {
        let sent = neighbour.call(&Request::SendFrames {
            interface: "eth0".to_owned(),
            frames: vec![packet::frame(POD_MAC, PEER_MAC, vlan, packet)],
            bypass_queue: false,
        })?;
        anyhow::ensure!([Reply::Done, dropped()].contains(&sent), "{sent:?}");
    }
    Ok(())
}

pub(super) fn incoming(scene: &Scene, vlan: Option<u16>, packets: &[Vec<u8>]) -> Result<Outcome> {
    scene.response_without_proxy(|neighbour| send(neighbour, vlan, packets))
}

/// A SYN from `from` to `to`.
pub(super) fn plain(from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (address(from), address(to));
    packet::ip(from.ip(), to.ip(), &packet::syn(from, to))
}

fn ips(from: &str, to: &str) -> (IpAddr, IpAddr) {
    (address(from).ip(), address(to).ip())
}

/// A SYN in two fragments, of which the first has only the ports.
fn fragments_v4() -> [Vec<u8>; 2] {
    let segment = packet::syn(address(NEIGHBOUR), address(POD));
    let (from, to) = ips(NEIGHBOUR, POD);
    let piece = |range: &[u8], offset, more| {
        packet::ipv4_fragment(from, to, &[], range, Fragment { offset, more })
    };
    [
        piece(&segment[..8], 0, true),
        piece(&segment[8..], 1, false),
    ]
}

/// The same over IPv6, where the first fragment must have all headers: the second has data.
fn fragments_v6() -> [Vec<u8>; 2] {
    let (from, to) = (address(NEIGHBOUR_V6), address(POD_V6));
    let segment = packet::segment(from, to, packet::SYN, b"a secret");
    let (from, to) = ips(NEIGHBOUR_V6, POD_V6);
    let piece = |range: &[u8], offset_and_more: u8| {
        let header = [TCP, 0, 0, offset_and_more, 0, 0, 0, 77];
        packet::ipv6(from, to, FRAGMENT, &[&header, range].concat())
    };
    [piece(&segment[..24], 1), piece(&segment[24..], 24)]
}

/// A SYN behind an extension header.
fn behind(extension: u8) -> Vec<u8> {
    let segment = packet::syn(address(NEIGHBOUR_V6), address(POD_V6));
    let (from, to) = ips(NEIGHBOUR_V6, POD_V6);
    packet::ipv6(from, to, extension, &[&PADDING[..], &segment].concat())
}

/// A SYN with a segment routing header that has no segment left.
fn behind_routing() -> Vec<u8> {
    let segment = packet::syn(address(NEIGHBOUR_V6), address(POD_V6));
    let (from, to) = ips(NEIGHBOUR_V6, POD_V6);
    let IpAddr::V6(own) = to else {
        unreachable!("{to}");
    };
    let header = [&[TCP, 2, 4, 0, 0, 0, 0, 0][..], &own.octets()].concat();
    packet::ipv6(from, to, ROUTING, &[&header[..], &segment].concat())
}

/// A SYN with a loose source route whose only entry is used.
fn with_source_route() -> Vec<u8> {
    let segment = packet::syn(address(NEIGHBOUR), address(POD));
    let (from, to) = ips(NEIGHBOUR, POD);
    let options = [131, 7, 8, 10, 1, 0, 1, 0];
    packet::ipv4(from, to, &options, &segment)
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
fn packets_made_by_hand() {
    check(&Group {
        title: "packets made by hand",
        setup: Setup::default(),
        cases: vec![
            case(
                AppNetRaw,
                "raw IPv4 socket: a SYN",
                |scene| raw(scene, FROM_POD, FAR, libc::IPPROTO_TCP),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                AppNetRaw,
                "raw IPv6 socket: a SYN",
                |scene| raw(scene, FROM_POD_V6, FAR_V6, libc::IPPROTO_TCP),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                AppNetRaw,
                "raw IPv4 socket with its own header (`IPPROTO_RAW`): a SYN",
                |scene| raw(scene, FROM_POD, FAR, libc::IPPROTO_RAW),
                [NothingArrives, refused("EPERM")],
            ),
            case(
                AppNetRaw,
                "raw ICMP socket with its own header (`IP_HDRINCL`): a SYN",
                icmp_with_header,
                [NothingArrives, refused("EPERM")],
            ),
            case(
                AppNetRaw,
                "packet socket, IPv4: a SYN",
                |scene| packet_socket(scene, FROM_POD, FAR, false),
                [leaves("SYN"), leaves("SYN")],
            )
            .strict(NothingArrives),
            case(
                AppNetRaw,
                "packet socket, IPv6: a SYN",
                |scene| packet_socket(scene, FROM_POD_V6, FAR_V6, false),
                [leaves("SYN"), leaves("SYN")],
            )
            .strict(NothingArrives),
            case(
                AppNetRaw,
                "packet socket without queue (`PACKET_QDISC_BYPASS`): a SYN",
                |scene| packet_socket(scene, FROM_POD, FAR, true),
                [leaves("SYN"), leaves("SYN")],
            )
            .strict(NothingArrives),
            case(
                AppNetRaw,
                "socket of `AF_XDP`: a SYN",
                xdp_socket,
                [leaves("SYN"), leaves("SYN")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a plain SYN, IPv4",
                |scene| incoming(scene, None, &[plain(NEIGHBOUR, POD)]),
                [refused("RST"), refused("RST")],
            ),
            case(
                Neighbour,
                "a plain SYN, IPv6",
                |scene| incoming(scene, None, &[plain(NEIGHBOUR_V6, POD_V6)]),
                [refused("RST"), refused("RST")],
            ),
            case(
                Neighbour,
                "a SYN in two fragments, IPv4",
                |scene| incoming(scene, None, &fragments_v4()),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN in two fragments, IPv6",
                |scene| incoming(scene, None, &fragments_v6()),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN behind hop-by-hop options",
                |scene| incoming(scene, None, &[behind(HOP_BY_HOP)]),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN behind destination options",
                |scene| incoming(scene, None, &[behind(DESTINATION)]),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN behind a routing header",
                |scene| incoming(scene, None, &[behind_routing()]),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN with a loose source route",
                |scene| incoming(scene, None, &[with_source_route()]),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN with the tag of VLAN 0",
                |scene| incoming(scene, Some(0), &[plain(NEIGHBOUR, POD)]),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN with the tag of another VLAN",
                |scene| incoming(scene, Some(5), &[plain(NEIGHBOUR, POD)]),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN from the pod's own address, IPv4",
                |scene| incoming(scene, None, &[plain(FROM_POD, POD)]),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN from the pod's own address, IPv6",
                |scene| incoming(scene, None, &[plain(FROM_POD_V6, POD_V6)]),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN from 127.0.0.1",
                |scene| incoming(scene, None, &[plain("127.0.0.1:40404", POD)]),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN from ::1",
                |scene| incoming(scene, None, &[plain("[::1]:40404", POD_V6)]),
                [NothingArrives, NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN from the passthrough address ::6",
                |scene| incoming(scene, None, &[plain("[::6]:40404", POD_V6)]),
                [refused("RST"), refused("RST")],
            )
            .strict(NothingArrives),
            case(
                Neighbour,
                "a SYN to 127.0.0.1",
                |scene| incoming(scene, None, &[plain(NEIGHBOUR, "127.0.0.1:8080")]),
                [refused("RST"), NothingArrives],
            ),
            case(
                Neighbour,
                "a SYN to ::1",
                |scene| incoming(scene, None, &[plain(NEIGHBOUR_V6, "[::1]:8080")]),
                [NothingArrives, NothingArrives],
            ),
        ],
    });
}
