//! The requests to a load process, and its replies: one line of JSON each.

use std::{collections::BTreeMap, net::SocketAddr};

use interceptor_testkit::actor::process::ActorConfig;
use serde::{Deserialize, Serialize};

/// The configuration of a load process: its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadConfig {
    /// Its namespace, cgroup and user.
    pub(crate) actor: ActorConfig,
    /// The processor to use.
    pub(crate) cpu: Option<usize>,
    /// The ports to serve; none for a client.
    pub(crate) serves: Vec<u16>,
}

/// The first byte of a connection: the server's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServeMode {
    /// Send the port and the original destination.
    Identify,
    /// Echo all bytes.
    Echo,
    /// Read all bytes.
    Discard,
    /// Respond to every `G…\r
    /// \r
    /// `, as HTTP does.
    Http,
}

impl ServeMode {
    /// As a byte.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Identify => b'I',
            Self::Echo => b'E',
            Self::Discard => b'D',
            Self::Http => b'G',
        }
    }

    /// From a byte.
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Identify),
            b'E' => Some(Self::Echo),
            b'D' => Some(Self::Discard),
            b'G' => Some(Self::Http),
            _ => None,
        }
    }
}

/// A request to a load process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LoadRequest {
    /// Read the listener that responds at an address.
    Identify(SocketAddr),
    /// Connect and reset, one after the other; the reply is [`LoadReply::Times`].
    Connect {
        /// The destination.
        to: SocketAddr,
        /// The number of connections.
        count: usize,
    },
    /// Connect, send a byte, read it back and close first, for some seconds; the reply is
    /// [`LoadReply::Seconds`].
    Sustain {
        /// The destination.
        to: SocketAddr,
        /// The duration.
        seconds: usize,
    },
    /// Open connections and keep them; the reply is [`LoadReply::Held`].
    Hold {
        /// The destinations.
        to: Vec<SocketAddr>,
        /// The number of connections to each.
        each: usize,
    },
    /// Reset the open connections.
    Release,
    /// Connect to many consecutive addresses, and reset.
    Visit {
        /// The first address.
        first: SocketAddr,
        /// The number of addresses.
        count: u32,
    },
    /// Repeatedly send bytes on one connection and read them back; the reply is
    /// [`LoadReply::PerSecond`].
    Exchange {
        /// The destination.
        to: SocketAddr,
        /// The number of bytes.
        size: usize,
        /// The duration.
        milliseconds: u64,
    },
    /// Send as much as possible; the reply is [`LoadReply::PerSecond`], in bytes.
    Pour {
        /// The destination.
        to: SocketAddr,
        /// The duration.
        milliseconds: u64,
    },
    /// Call `getsockopt(SO_ERROR)`; the reply is [`LoadReply::Nanoseconds`] per call.
    GetOption {
        /// The number of calls.
        count: u32,
    },
    /// Read the process's CPU time: [`LoadReply::Used`].
    Usage,
    /// Use only this processor.
    Stay(usize),
}

/// The result of a [`LoadRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum LoadReply {
    /// Ready, or done.
    Done,
    /// The server's identification: `15001 10.2.0.9:80`.
    Listener(String),
    /// Nanoseconds in `connect(2)`, of each connection, and the total time.
    Times {
        /// Each.
        connects: Vec<u32>,
        /// The total, with the time between them.
        all: u64,
    },
    /// The number of successes in each second, and of errors.
    Seconds {
        /// Successes.
        done: Vec<u32>,
        /// Errors by name.
        errors: BTreeMap<String, u64>,
    },
    /// The number of open connections, and of errors.
    Held {
        /// Open.
        open: usize,
        /// Errors by name.
        errors: BTreeMap<String, u64>,
    },
    /// A rate.
    PerSecond(f64),
    /// A duration.
    Nanoseconds(f64),
    /// CPU time, in seconds.
    Used(f64),
    /// An error.
    Failed(String),
}
