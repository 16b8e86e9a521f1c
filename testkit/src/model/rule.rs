//! Rules: matches and targets.

use std::{net::IpAddr, ops::RangeInclusive};

use super::{Packet, Protocol, State};

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) target: Target,
}

/// A test, and its required result.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) test: Test,
    pub(super) expected: bool,
}

/// A property of a packet.
#[derive(Debug)]
pub(super) enum Test {
    InterfaceIn(String),
    InterfaceOut(String),
    Source(Cidr),
    Destination(Cidr),
    Protocol(Protocol),
    Port(Vec<RangeInclusive<u16>>),
    SourcePort(Vec<RangeInclusive<u16>>),
    Uid(RangeInclusive<u32>),
    Gid(RangeInclusive<u32>),
    State(Vec<State>),
    Mark(u32),
    Connmark(u32),
}

/// The action for a matching packet.
#[derive(Debug)]
pub(super) enum Target {
    Return,
    Accept,
    Drop,
    Chain(usize),
    Redirect { port: u16 },
    Tproxy { port: u16, mark: u32, mask: u32 },
    SetMark(u32),
    SaveMark,
    RestoreMark,
    Zone(u16),
}

/// Addresses whose first `length` bits are those of `address`.
#[derive(Debug)]
pub(super) struct Cidr {
    pub(super) address: IpAddr,
    pub(super) length: u32,
}

impl Rule {
    pub(super) fn matches(&self, packet: &Packet<'_>) -> bool {
        self.matches
            .iter()
            .all(|rule| rule.test.holds(packet) == rule.expected)
    }
}

impl Test {
    /// A test of an owner fails if there is no owner; its inversion succeeds.
    fn holds(&self, packet: &Packet<'_>) -> bool {
        let in_one =
            |ranges: &[RangeInclusive<u16>], port| ranges.iter().any(|range| range.contains(&port));
        match self {
            Self::InterfaceIn(name) | Self::InterfaceOut(name) => is_named(name, packet.interface),
            Self::Source(cidr) => cidr.contains(packet.source),
            Self::Destination(cidr) => cidr.contains(packet.destination),
            Self::Protocol(protocol) => *protocol == packet.protocol,
            Self::Port(ranges) => in_one(ranges, packet.port),
            Self::SourcePort(ranges) => in_one(ranges, packet.source_port),
            Self::Uid(range) => packet.owner.is_some_and(|(uid, _)| range.contains(&uid)),
            Self::Gid(range) => packet.owner.is_some_and(|(_, gid)| range.contains(&gid)),
            Self::State(states) => states.contains(&packet.state),
            Self::Mark(mark) => packet.mark == *mark,
            Self::Connmark(mark) => packet.connmark == *mark,
        }
    }
}

/// `eth+` is every interface whose name starts with `eth`.
fn is_named(name: &str, interface: &str) -> bool {
    match name.strip_suffix('+') {
        Some(beginning) => interface.starts_with(beginning),
        None => interface == name,
    }
}

impl Cidr {
    fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u32| width - self.length;
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}
