//! What a load process is told, and what it answers: one line of JSON each.

use std::{collections::BTreeMap, net::SocketAddr};

use interceptor_testkit::actor::process::ActorConfig;
use serde::{Deserialize, Serialize};

/// Who a load process is: its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadConfig {
    /// Where and as whom.
    pub(crate) actor: ActorConfig,
    /// The processor to stay on.
    pub(crate) cpu: Option<usize>,
    /// The ports to serve; a client serves none.
    pub(crate) serves: Vec<u16>,
}

/// The first byte of a connection, which says what the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServeMode {
    /// Tell the port and the original destination.
    Identify,
    /// Send back whatever comes.
    Echo,
    /// Send nothing.
    Discard,
    /// Answer every `G…\r\n\r\n`, as HTTP does.
    Http,
}

impl ServeMode {
    /// As it is sent.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Identify => b'I',
            Self::Echo => b'E',
            Self::Discard => b'D',
            Self::Http => b'G',
        }
    }

    /// As it was received.
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

/// One thing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LoadRequest {
    /// Ask who answers at an address.
    Identify(SocketAddr),
    /// Connect and reset, one after the other; answered with [`LoadReply::Times`].
    Connect {
        /// Where to.
        to: SocketAddr,
        /// How often.
        count: usize,
    },
    /// Connect, send a byte, hear it back and close first, for so many seconds; answered with
    /// [`LoadReply::Seconds`].
    Sustain {
        /// Where to.
        to: SocketAddr,
        /// How long.
        seconds: usize,
    },
    /// Open connections and keep them; answered with [`LoadReply::Held`].
    Hold {
        /// Where to.
        to: Vec<SocketAddr>,
        /// How many to each.
        each: usize,
    },
    /// Reset the connections that are kept.
    Release,
    /// Connect to many addresses, each by one above the last, and reset.
    Visit {
        /// The first.
        first: SocketAddr,
        /// How many.
        count: u32,
    },
    /// Send so many bytes on a kept connection and hear them back, again and again; answered with
    /// [`LoadReply::PerSecond`].
    Exchange {
        /// Where to.
        to: SocketAddr,
        /// How many bytes.
        size: usize,
        /// For how long.
        milliseconds: u64,
    },
    /// Send as much as goes; answered with [`LoadReply::PerSecond`], in bytes.
    Pour {
        /// Where to.
        to: SocketAddr,
        /// For how long.
        milliseconds: u64,
    },
    /// `getsockopt(SO_ERROR)`, so often; answered with [`LoadReply::Nanoseconds`] for each.
    GetOption {
        /// How often.
        count: u32,
    },
    /// What the process has used: [`LoadReply::Used`].
    Usage,
    /// Stay on this processor.
    Stay(usize),
}

/// What came of an [`LoadRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum LoadReply {
    /// In place, or done.
    Done,
    /// What the server says of itself: `15001 10.2.0.9:80`.
    Listener(String),
    /// Nanoseconds in `connect(2)`, of each connection, and how long all took.
    Times {
        /// Each.
        connects: Vec<u32>,
        /// All, with what is between them.
        all: u64,
    },
    /// How many succeeded in each second, and what the others came to.
    Seconds {
        /// Successes.
        done: Vec<u32>,
        /// Errors by name.
        errors: BTreeMap<String, u64>,
    },
    /// How many are open, and what the others came to.
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
    /// Processor time, in seconds.
    Used(f64),
    /// What went wrong.
    Failed(String),
}
