//! `interceptor explain`

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::{Context as _, Result};
use clap::{ArgGroup, Args, ValueEnum};
use interceptor_ebpf::{Owner, Transport};

use super::{output::Format, pod_ref::PodRef};
use crate::{
    arguments::socket_address,
    explain::{self, Direction, Explanation, Outcome, Query},
    host,
    netns::Netns,
    stdio,
};

/// Explain how a connection of a captured pod is handled, and which rule decides
///
/// Uses the settings that the pod was attached with, and its current addresses and routes. Makes no
/// connection.
#[derive(Args)]
#[command(group = ArgGroup::new("which").args(["pod", "netns"]).required(true), after_help = "\
Examples:
  An app in the pod of process 4711 connects to a service:
    interceptor explain --netns 4711 --from uid=1000,gid=1000 --to 10.96.0.10:80
  A client outside the pod, which the node agent has captured, connects to it:
    interceptor explain shop/web-0 --inbound --to 10.244.1.7:8080")]
pub(super) struct Explain {
    #[command(flatten)]
    pod: PodRef,

    #[command(flatten)]
    connection: Connection,
}

/// The connection to explain, and how.
#[derive(Args)]
pub(super) struct Connection {
    /// Destination of the connection: ADDRESS:PORT, an IPv6 address in brackets
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
    to: SocketAddr,

    /// The protocol
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,

    /// Owner of the socket and the address that it is bound to: uid=N, gid=N, source=ADDRESS
    /// [default: neither the proxy's UID nor its GID; not bound]
    #[arg(long, value_name = "LIST", default_value_t, hide_default_value = true)]
    from: Client,

    /// An inbound connection, from outside the pod
    #[arg(long, conflicts_with = "from")]
    inbound: bool,

    /// The interface that receives it [default: the one with the destination address]
    #[arg(long, value_name = "NAME", requires = "inbound")]
    interface: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// The socket that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client {
    owner: Owner,
    source: Option<IpAddr>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            owner: Owner::NONE,
            source: None,
        }
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut client = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            let wrong = |allowed| format!("{item:?}: {allowed}");
            let id = || value.parse().map_err(|_| wrong("expected a number"));
            match name {
                "uid" => client.owner.uid = id()?,
                "gid" => client.owner.gid = id()?,
                "source" => {
                    let address = value.parse().map_err(|_| wrong("expected an IP address"))?;
                    client.source = Some(address);
                }
                _ => {
                    return Err(wrong(
                        "expected uid=N, gid=N or source=ADDRESS, separated by commas",
                    ));
                }
            }
        }
        Ok(client)
    }
}

impl fmt::Display for Client {
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
        let netns = self.pod.netns()?.context("name a pod, or use --netns")?;
        let query = self.connection.query();
        let explanation = explain::explain(&Netns::open(&netns)?, &query)?;
        self.connection.print(&explanation)
    }
}

impl Connection {
    pub(super) fn print(&self, explanation: &Explanation) -> Result<()> {
        stdio::print(&self.output.render(explanation, text)?)
    }

    /// The parameters of the agent's API.
    pub(super) fn parameters(&self) -> String {
        // An IPv6 address has brackets, which a URL must not have.
        let to = self.to.to_string().replace('[', "%5B").replace(']', "%5D");
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let mut parameters = format!("to={to}&protocol={protocol}&inbound={}", self.inbound);
        let Client { owner, source } = self.from;
        for (name, id) in [("from_uid", owner.uid), ("from_gid", owner.gid)] {
            if id != u32::MAX {
                let _written = write!(parameters, "&{name}={id}");
            }
        }
        if let Some(source) = source {
            let _written = write!(parameters, "&source={source}");
        }
        if let Some(interface) = &self.interface {
            let interface = percent_encoded(interface);
            let _written = write!(parameters, "&interface={interface}");
        }
        parameters
    }

    fn query(&self) -> Query {
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
        Query {
            transport: match self.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
            },
            destination: explain::effective(self.to),
            direction,
        }
    }
}

/// As a part of a URL.
fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn text(explanation: &Explanation) -> Result<String> {
    let outcome = match explanation.outcome {
        Outcome::Passed => "PASSED".to_owned(),
        Outcome::Captured { port } => format!("CAPTURED to the proxy's port {port}"),
        Outcome::Unroutable | Outcome::Refused => "REFUSED".to_owned(),
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
    fn a_client_is_a_comma_separated_list() {
        let client: Client = "uid=1000,gid=7,source=10.1.0.2".parse().unwrap();
        assert_eq!((client.owner.uid, client.owner.gid), (1000, 7));
        assert_eq!(client.source, Some([10, 1, 0, 2].into()));
        assert_eq!(client.to_string().parse(), Ok(client));
        assert_eq!("".parse(), Ok(Client::default()));
        for bad in ["uid", "uid=x", "user=1", "source=10.0.0.0/8"] {
            assert!(bad.parse::<Client>().is_err(), "{bad}");
        }
    }
}
