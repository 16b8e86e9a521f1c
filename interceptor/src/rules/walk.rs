//! Finds the first rule that a connection's first packet matches.

use std::net::IpAddr;

use interceptor_ebpf::{Owner, Transport};
use ipnet::IpNet;

use super::{Rule, Rules, Table};
use crate::settings::interfaces::InterfacePattern;

/// The fields of a connection's first packet that rules match.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub transport: Transport,
    /// The source, if known.
    pub source: Option<IpAddr>,
    pub destination: IpAddr,
    pub port: u16,
    /// The interface that receives it; `None` for a packet that the pod sends.
    pub in_interface: Option<String>,
    /// The interface that sends it; `None` for a packet that the pod receives.
    pub out_interface: Option<String>,
    /// The owner of the sending socket.
    pub owner: Option<Owner>,
}

/// Chains that contain only a target: the jump to them is reported instead.
const OUTCOMES: [&str; 4] = [
    "ISTIO_REDIRECT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_TPROXY",
    "ISTIO_DROP",
];

impl Rules {
    /// The first rule of a table that decides about `packet`, starting in `chain`. `None` if the packet
    /// reaches the end of the chain.
    #[must_use]
    pub(crate) fn first_match(&self, table: Table, chain: &str, packet: &Packet) -> Option<&Rule> {
        self.chain(table, chain)
            .into_iter()
            .filter(|rule| rule.matches(packet))
            .find_map(|rule| match rule.jumps_to() {
                Some(outcome) if OUTCOMES.contains(&outcome) => {
                    self.first_match(table, outcome, packet).map(|_| rule)
                }
                Some(chain) => self.first_match(table, chain, packet),
                None => Some(rule),
            })
    }

    /// The rules of a chain in the order of their evaluation.
    fn chain(&self, table: Table, chain: &str) -> Vec<&Rule> {
        let mut rules = Vec::new();
        for rule in self.in_table(table).filter(|rule| rule.chain == chain) {
            match rule.position {
                None => rules.push(rule),
                Some(position) => rules.insert(position as usize - 1, rule),
            }
        }
        rules
    }
}

impl Rule {
    fn matches(&self, packet: &Packet) -> bool {
        let mut words = self.specification.split_whitespace();
        while let Some(word) = words.next() {
            let (option, inverted) = match word {
                "!" => (words.next().unwrap_or_default(), true),
                option => (option, false),
            };
            if option == "-j" {
                return true;
            }
            if packet.has(option, words.next().unwrap_or_default()) == inverted {
                return false;
            }
        }
        true
    }
}

impl Packet {
    /// Whether one option of a rule, not inverted, matches.
    fn has(&self, option: &str, value: &str) -> bool {
        let id = |pick: fn(Owner) -> u32| self.owner.map(pick).map(|id| id.to_string());
        match option {
            // The name of a match extension, whose options follow.
            "-m" => true,
            "-p" => {
                value
                    == if self.transport == Transport::Tcp {
                        "tcp"
                    } else {
                        "udp"
                    }
            }
            "--dport" | "--dports" => value.split(',').any(|range| is_in(self.port, range)),
            "-d" => is_inside(Some(self.destination), value),
            "-s" => is_inside(self.source, value),
            "-i" => is_interface(self.in_interface.as_deref(), value),
            "-o" => is_interface(self.out_interface.as_deref(), value),
            "--uid-owner" => id(|owner| owner.uid).as_deref() == Some(value),
            "--gid-owner" => id(|owner| owner.gid).as_deref() == Some(value),
            // Marks, and states of established connections: a first packet has none.
            _ => false,
        }
    }
}

/// `PORT` or `FIRST:LAST`
fn is_in(port: u16, range: &str) -> bool {
    let (first, last) = range.split_once(':').unwrap_or((range, range));
    let [first, last] = [first, last].map(str::parse::<u16>);
    matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&port))
}

fn is_inside(address: Option<IpAddr>, prefix: &str) -> bool {
    match (address, prefix.parse::<IpNet>()) {
        (Some(address), Ok(prefix)) => prefix.contains(&address),
        _ => false,
    }
}

fn is_interface(name: Option<&str>, pattern: &str) -> bool {
    let pattern = InterfacePattern::try_from(pattern.to_owned());
    matches!((name, pattern), (Some(name), Ok(pattern)) if pattern.matches(name))
}
