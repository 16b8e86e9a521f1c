//! Other transports than TCP. Stock settings capture none of them.

use std::net::SocketAddr;

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::{Reply, Request},
    scenario::address,
    world::Setup,
};

use super::{
    case::{Group, Who::App, case},
    outcome::{
        Outcome::{self, NothingArrives},
        leaves, not_possible, refused,
    },
    run::check,
    scene::Scene,
};

const UDP: &str = "10.2.0.9:5353";
const UDP_V6: &str = "[fd00:2::9]:5353";

const SOCK_DCCP: i32 = 6;
const AF_RDS: i32 = 21;
const AF_TIPC: i32 = 30;
const AF_SMC: i32 = 43;
const SMC: i32 = 0;

/// Sends bytes by a socket of any transport.
fn send(scene: &Scene, domain: i32, kind: i32, protocol: i32, to: &str) -> Result<Outcome> {
    let app = scene.app()?;
    let opened = app.call(&Request::OpenSocket {
        domain,
        kind,
        protocol,
    })?;
    let socket = match opened {
        Reply::Socket(socket) => socket,
        Reply::Error(errno) => return Ok(Outcome::of_errno(errno)),
        reply => anyhow::bail!("unexpected: {reply:?}"),
    };
    let address: SocketAddr = address(to);
    if let Reply::Error(errno) = app.call(&Request::Connect { socket, address })? {
        return Ok(Outcome::of_errno(errno));
    }
    app.must(&Request::SendBytes {
        socket,
        address: None,
        bytes: b"secret!!".to_vec(),
    })?;
    let number = u8::try_from(protocol)?;
    let packets = scene.packets_of_pod(|packet| packet.protocol == number)?;
    Ok(if packets.is_empty() {
        NothingArrives
    } else {
        Outcome::Leaves("data".into())
    })
}

#[test]
fn other_transports() {
    check(&Group {
        title: "other transports",
        setup: Setup::default(),
        cases: vec![
            case(
                App,
                "UDP, IPv4",
                |scene| {
                    send(
                        scene,
                        libc::AF_INET,
                        libc::SOCK_DGRAM,
                        libc::IPPROTO_UDP,
                        UDP,
                    )
                },
                [leaves("data"), leaves("data")],
            )
            .strict(NothingArrives),
            case(
                App,
                "UDP, IPv6",
                |scene| {
                    let (domain, kind) = (libc::AF_INET6, libc::SOCK_DGRAM);
                    send(scene, domain, kind, libc::IPPROTO_UDP, UDP_V6)
                },
                [leaves("data"), leaves("data")],
            )
            .strict(NothingArrives),
            case(
                App,
                "UDP-Lite",
                |scene| {
                    let (domain, kind) = (libc::AF_INET, libc::SOCK_DGRAM);
                    send(scene, domain, kind, libc::IPPROTO_UDPLITE, UDP)
                },
                [leaves("data"), leaves("data")],
            )
            .strict(NothingArrives),
            case(
                App,
                "SCTP",
                |scene| {
                    let (domain, kind) = (libc::AF_INET, libc::SOCK_STREAM);
                    send(scene, domain, kind, libc::IPPROTO_SCTP, UDP)
                },
                [
                    not_possible("EPROTONOSUPPORT"),
                    not_possible("EPROTONOSUPPORT"),
                ],
            ),
            case(
                App,
                "DCCP",
                |scene| send(scene, libc::AF_INET, SOCK_DCCP, libc::IPPROTO_DCCP, UDP),
                [
                    not_possible("ESOCKTNOSUPPORT"),
                    not_possible("ESOCKTNOSUPPORT"),
                ],
            ),
            case(
                App,
                "SMC",
                |scene| send(scene, AF_SMC, libc::SOCK_STREAM, SMC, UDP),
                [not_possible("EAFNOSUPPORT"), not_possible("EAFNOSUPPORT")],
            ),
            case(
                App,
                "RDS",
                |scene| send(scene, AF_RDS, libc::SOCK_SEQPACKET, 0, UDP),
                [not_possible("EAFNOSUPPORT"), not_possible("EAFNOSUPPORT")],
            ),
            case(
                App,
                "TIPC",
                |scene| send(scene, AF_TIPC, libc::SOCK_STREAM, 0, UDP),
                [not_possible("EAFNOSUPPORT"), not_possible("EAFNOSUPPORT")],
            ),
            case(
                App,
                "ICMP echo",
                |scene| {
                    send(
                        scene,
                        libc::AF_INET,
                        libc::SOCK_DGRAM,
                        libc::IPPROTO_ICMP,
                        UDP,
                    )
                },
                [refused("EACCES"), refused("EACCES")],
            ),
        ],
    });
}
