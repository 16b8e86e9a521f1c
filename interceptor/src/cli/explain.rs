//! `interceptor explain`

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use interceptor_ebpf::{Owner, Transport};

use super::output::{Format, json};
use crate::{
    explain::{self, Direction, Explanation, Outcome, Question},
    host,
    netns::{Netns, NetnsSpec},
    stdio,
};

/// Explain how a connection of a captured pod is handled, and which rule decides
///
/// Uses the settings that the pod was attached with, and its current addresses and routes. Makes no
/// connection.
#[derive(Args)]
#[command(after_help = "\
Examples:
  An app in the pod of process 4711 connects to a service:
    interceptor explain --netns 4711 --from uid=1000,gid=1000 tcp 10.96.0.10:80
  A client outside the pod connects to it:
    interceptor explain --netns 4711 --inbound tcp 10.244.1.7:8080")]
pub(super) struct Explain {
    /// The pod's network namespace: a path, or the ID of a process in it
    #[arg(long, value_name = "PATH|PID")]
    netns: NetnsSpec,

    /// Owner of the socket and the address that it is bound to: uid=N, gid=N, source=ADDRESS
    /// [default: neither the proxy's UID nor its GID; not bound]
    #[arg(long, value_name = "LIST", default_value_t)]
    from: From,

    /// An inbound connection, from outside the pod
    #[arg(long, conflicts_with = "from")]
    inbound: bool,

    /// The interface that receives it [default: the one with the destination address]
    #[arg(long, value_name = "NAME", requires = "inbound")]
    interface: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    /// The protocol
    #[arg(value_enum)]
    protocol: Protocol,

    /// Destination of the connection: ADDRESS:PORT, an IPv6 address in brackets
    destination: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

/// The socket that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct From {
    owner: Owner,
    source: Option<IpAddr>,
}

impl Default for From {
    fn default() -> Self {
        Self {
            owner: Owner::NONE,
            source: None,
        }
    }
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut from = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let wrong = |allowed| format!("{item:?}: {allowed}");
            let id = || value.parse().map_err(|_| wrong("expected a number"));
            match name {
                "uid" => from.owner.uid = id()?,
                "gid" => from.owner.gid = id()?,
                "source" => {
                    let address = value.parse().map_err(|_| wrong("expected an IP address"))?;
                    from.source = Some(address);
                }
                _ => {
                    return Err(wrong(
                        "expected uid=N, gid=N or source=ADDRESS, separated by commas",
                    ));
                }
            }
        }
        Ok(from)
    }
}

impl fmt::Display for From {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = [("uid", self.owner.uid), ("gid", self.owner.gid)];
        let known = ids.into_iter().filter(|(_, id)| *id != u32::MAX);
        let mut items: Vec<_> = known.map(|(name, id)| format!("{name}={id}")).collect();
        items.extend(self.source.map(|source| format!("source={source}")));
        formatter.write_str(&items.join(","))
    }
}

impl Explain {
    pub(super) fn run(&self) -> Result<()> {
        host::check_root()?;
        host::ensure_bpffs()?;
        let question = self.question();
        let explanation = explain::explain(&Netns::open(&self.netns)?, &question)?;
        stdio::print(&match self.output {
            Format::Json => json(&explanation)?,
            Format::Text => text(&explanation)?,
        })
    }

    fn question(&self) -> Question {
        let direction = if self.inbound {
            Direction::Inbound {
                interface: self.interface.clone(),
            }
        } else {
            Direction::Outbound {
                owner: self.from.owner,
                source: self.from.source,
            }
        };
        Question {
            transport: match self.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
            },
            destination: explain::effective(self.destination),
            direction,
        }
    }
}

fn text(explanation: &Explanation) -> Result<String> {
    let outcome = match explanation.outcome {
        Outcome::Passed => "PASSES".to_owned(),
        Outcome::Captured { port } => format!("CAPTURED to the proxy's port {port}"),
        Outcome::Unroutable => "REFUSED".to_owned(),
    };
    let mut text = format!("{outcome}: {}\n", explanation.reason);
    match &explanation.rule {
        Some(rule) => writeln!(text, "iptables: -t {} {rule}", rule.table)?,
        None => writeln!(text, "iptables: no rule matches")?,
    }
    if let Some(interface) = &explanation.interface {
        writeln!(text, "interface: {interface}")?;
    }
    if let Some(source) = explanation.source {
        writeln!(text, "source address: {source}")?;
    }
    if let Some(note) = &explanation.note {
        writeln!(text, "note: {note}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_is_a_list() {
        let from: From = "uid=1000,gid=7,source=10.1.0.2".parse().unwrap();
        assert_eq!((from.owner.uid, from.owner.gid), (1000, 7));
        assert_eq!(from.source, Some([10, 1, 0, 2].into()));
        assert_eq!(from.to_string().parse(), Ok(from));
        assert_eq!("".parse(), Ok(From::default()));
        for bad in ["uid", "uid=x", "user=1", "source=10.0.0.0/8"] {
            assert!(bad.parse::<From>().is_err(), "{bad}");
        }
    }
}
