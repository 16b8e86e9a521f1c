//! A model of the kernel's handling of a packet under `iptables-restore` rules.
//!
//! It parses the text that the real iptables gets, and evaluates it as netfilter does, as far as
//! Istio's rules require; it panics at an unknown match or target.

mod parse;
mod rule;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rule::{Rule, Target};

/// The rules of one family, loaded.
pub struct Firewall {
    /// The chains that packets enter first, by table and hook.
    entries: [[usize; 2]; 3],
    chains: Vec<Vec<Rule>>,
}

/// A table, in the order of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Raw,
    Mangle,
    Nat,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Prerouting,
    Output,
}

/// The transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The conntrack state of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first of its connection.
    New,
    /// A later one.
    Established,
    /// Invalid.
    Invalid,
}

/// A packet, as rules match it.
#[derive(Clone, Debug)]
pub struct Packet<'i> {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source address.
    pub source: IpAddr,
    /// Its source port.
    pub source_port: u16,
    /// Its destination address.
    pub destination: IpAddr,
    /// Its destination port.
    pub port: u16,
    /// Its incoming or outgoing interface.
    pub interface: &'i str,
    /// UID and GID of the owner of the sending socket, if there is one.
    pub owner: Option<(u32, u32)>,
    /// Its conntrack state.
    pub state: State,
    /// Its own mark.
    pub mark: u32,
    /// Its connection's mark.
    pub connmark: u32,
    /// Its conntrack zone.
    pub zone: Option<u16>,
}

/// The result of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its destination is unchanged.
    Pass,
    /// Its destination becomes this port of the host itself.
    Redirect(u16),
    /// It is delivered unchanged to the socket on this port.
    Tproxy(u16),
    /// It is dropped.
    Drop,
}

impl Outcome {
    /// The port of the listener that gets it instead of its destination.
    #[must_use]
    pub const fn captured(self) -> Option<u16> {
        match self {
            Self::Redirect(port) | Self::Tproxy(port) => Some(port),
            Self::Pass | Self::Drop => None,
        }
    }
}

impl Firewall {
    /// Receives a packet on an interface.
    pub fn receive(&self, packet: &mut Packet<'_>) -> Outcome {
        self.pass_tables(Hook::Prerouting, &Table::ALL, packet)
    }

    /// Sends a packet. A packet over `lo` is then received, with the NAT that was decided when it
    /// was sent.
    pub fn send(&self, packet: &mut Packet<'_>) -> Outcome {
        let sent = self.pass_tables(Hook::Output, &Table::ALL, packet);
        match sent {
            // Whatever the interface was: localhost is on `lo`.
            Outcome::Redirect(port) => {
                packet.destination = localhost(packet.destination);
                packet.port = port;
            }
            Outcome::Pass if packet.interface == LOOPBACK => {}
            _ => return sent,
        }
        let mut arriving = Packet {
            interface: LOOPBACK,
            owner: None,
            ..packet.clone()
        };
        let tables = [Table::Raw, Table::Mangle];
        match self.pass_tables(Hook::Prerouting, &tables, &mut arriving) {
            Outcome::Pass => sent,
            outcome => outcome,
        }
    }

    fn pass_tables(&self, hook: Hook, tables: &[Table], packet: &mut Packet<'_>) -> Outcome {
        let mut outcome = Outcome::Pass;
        for table in tables {
            // NAT is decided once, by a connection's first packet.
            if *table == Table::Nat && packet.state != State::New {
                continue;
            }
            let chain = self.entries[*table as usize][hook as usize];
            match self.pass_chain(chain, packet) {
                Some(Outcome::Drop) => return Outcome::Drop,
                // A selected socket is kept, whatever NAT does to the packet.
                Some(Outcome::Redirect(_)) if outcome != Outcome::Pass => {}
                Some(Outcome::Pass) | None => {}
                Some(found) => outcome = found,
            }
        }
        outcome
    }

    /// The verdict of a chain; none at its end or at a RETURN, where the calling chain continues.
    fn pass_chain(&self, chain: usize, packet: &mut Packet<'_>) -> Option<Outcome> {
        for rule in &self.chains[chain] {
            if !rule.matches(packet) {
                continue;
            }
            let verdict = match rule.target {
                Target::Return => return None,
                Target::Chain(chain) => self.pass_chain(chain, packet),
                Target::Accept => Some(Outcome::Pass),
                Target::Drop => Some(Outcome::Drop),
                Target::Redirect { port } => Some(Outcome::Redirect(port)),
                Target::Tproxy { port, mark, mask } => {
                    packet.mark = (packet.mark & !mask) ^ mark;
                    Some(Outcome::Tproxy(port))
                }
                Target::SetMark(mark) => {
                    packet.mark = mark;
                    None
                }
                Target::SaveMark => {
                    packet.connmark = packet.mark;
                    None
                }
                Target::RestoreMark => {
                    packet.mark = packet.connmark;
                    None
                }
                Target::Zone(zone) => {
                    packet.zone.get_or_insert(zone);
                    None
                }
            };
            if verdict.is_some() {
                return verdict;
            }
        }
        None
    }
}

/// The interface of the host's own addresses.
pub const LOOPBACK: &str = "lo";

impl Table {
    const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];
}

/// The destination of REDIRECT for a packet that the host sends.
fn localhost(destination: IpAddr) -> IpAddr {
    match destination {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
