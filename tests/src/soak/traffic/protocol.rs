//! What the processes of the traffic are started with, and the lines of JSON that they read and write.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::exchange::Identity;

/// The argument of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Connects.
    Connect(ConnectPlan),
    /// Accepts.
    Serve(ServePlan),
}

/// The connections of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConnectPlan {
    /// Determines the order of destinations, and the content.
    pub(crate) seed: u64,
    /// The destinations.
    pub(crate) to: Vec<SocketAddr>,
    /// The number of connections that stay open.
    pub(crate) held: usize,
    /// Who must respond.
    pub(crate) expected: Expected,
}

/// Who must respond to every connection of a process. The original destination and the client's address
/// are the connection's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expected {
    /// The server's name.
    pub(crate) server: String,
    /// The port of the proxy's listener.
    pub(crate) listener: u16,
}

/// A server's ports, and its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServePlan {
    /// Its name in responses.
    pub(crate) name: String,
    /// Its ports, on all addresses of both families.
    pub(crate) ports: Vec<u16>,
    /// Who reports the properties of a connection.
    pub(crate) via: Via,
}

/// Who reports the properties of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Via {
    /// The server, which is the small proxy: it terminates captured connections.
    Own,
    /// The proxy before it, in the headers of each request.
    Headers,
}

/// A request to a process that connects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Open the connections that stay open, and new ones from then on.
    Begin,
    /// Connect once, and report who responds: [`Line::Probed`].
    Probe(SocketAddr),
}

/// A line of a process's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// It listens, or reads commands.
    Ready,
    /// All connections that stay open are open.
    Held,
    /// What was done since the last such line.
    Progress(Progress),
    /// Something that must not happen.
    Fault(Fault),
    /// The response to a probe, or its error.
    Probed(Result<Identity, String>),
    /// It has used every open connection once more, and exits. The number of open connections.
    Ended(usize),
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The number of new connections, those that stay open included.
    pub(crate) opened: u64,
    /// The number of exchanges on connections that stay open.
    pub(crate) old_exchanges: u64,
    /// The number of exchanges on others.
    pub(crate) new_exchanges: u64,
    /// The number of bytes of checked content.
    pub(crate) bytes: u64,
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Another server, another original destination or other content than expected.
    Wrong,
    /// Refused, reset, closed, or no response within the time limit.
    Lost,
    /// The server was reached without the proxy.
    Bypassed,
    /// Any other: something is left behind, a number grows, a setting does not take effect.
    Other,
}

impl Kind {
    /// As a word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Lost => "lost",
            Self::Bypassed => "past the proxy",
            Self::Other => "other",
        }
    }
}

/// Something that must not happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// Its kind.
    pub(crate) kind: Kind,
    /// The connection: its destination, its number and its age; or what else is concerned.
    pub(crate) what: String,
    /// What should be.
    pub(crate) expected: String,
    /// What is.
    pub(crate) seen: String,
}
