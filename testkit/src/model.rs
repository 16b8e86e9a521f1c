//! What the kernel would make of a packet under rules in the words of `iptables-restore`.
//!
//! It reads the very text that the real iptables is given, and does what netfilter does with it, as
//! far as Istio's rules go; a match or a target that it does not know is a panic.

mod parse;
mod rule;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rule::{Rule, Target};

/// The rules of one family, loaded.
pub struct Firewall {
    /// The chains that packets come into by themselves, by table and hook.
    entries: [[usize; 2]; 3],
    chains: Vec<Vec<Rule>>,
}

/// A table, in the order in which a packet meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Raw,
    Mangle,
    Nat,
}

/// Where a packet meets rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Prerouting,
    Output,
}

/// What a packet speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What conntrack thinks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first of its connection.
    New,
    /// A later one.
    Established,
    /// None that it can make sense of.
    Invalid,
}

/// A packet, as rules see it.
#[derive(Clone, Debug)]
pub struct Packet<'i> {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: IpAddr,
    /// The port there.
    pub source_port: u16,
    /// Where it goes.
    pub destination: IpAddr,
    /// The port there.
    pub port: u16,
    /// The interface that it comes in or goes out by.
    pub interface: &'i str,
    /// UID and GID of whoever opened the socket that sends it, if there is one.
    pub owner: Option<(u32, u32)>,
    /// Its place in its connection.
    pub state: State,
    /// Its own mark.
    pub mark: u32,
    /// Its connection's mark.
    pub connmark: u32,
    /// Its conntrack zone.
    pub zone: Option<u16>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes where it was going.
    Pass,
    /// Its destination becomes this port of the host's own.
    Redirect(u16),
    /// It is given to the socket on this port, as it is.
    Tproxy(u16),
    /// It is gone.
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
    /// Has a packet come in by an interface.
    pub fn receive(&self, packet: &mut Packet<'_>) -> Outcome {
        self.pass_tables(Hook::Prerouting, &Table::ALL, packet)
    }

    /// Has a packet sent; what goes over `lo` comes in again, by now with a NAT that stays.
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
            // NAT is made up once, for a connection's first packet.
            if *table == Table::Nat && packet.state != State::New {
                continue;
            }
            let chain = self.entries[*table as usize][hook as usize];
            match self.pass_chain(chain, packet) {
                Some(Outcome::Drop) => return Outcome::Drop,
                // A socket that was found is kept, whatever NAT does to the packet.
                Some(Outcome::Redirect(_)) if outcome != Outcome::Pass => {}
                Some(Outcome::Pass) | None => {}
                Some(found) => outcome = found,
            }
        }
        outcome
    }

    /// The verdict of a chain; none at its end or at a RETURN, where its caller goes on.
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

/// The interface that every address of the host's own is reached by.
pub const LOOPBACK: &str = "lo";

impl Table {
    const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];
}

/// Where REDIRECT takes what a host sends.
fn localhost(destination: IpAddr) -> IpAddr {
    match destination {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
