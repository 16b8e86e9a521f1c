//! The protocol between the CNI plugin and the agent, over a Unix socket.
//!
//! One connection is one [`Request`] and one [`Response`], each a line of JSON. A plugin of one
//! release talks to an agent of another, for the plugin's binary is replaced while it may be
//! running: fields that one side does not know are ignored, and a request that the agent does not
//! know is answered by its name. Only what cannot be understood that way is another [`PROTOCOL`].

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

mod client;
mod server;

pub use client::{CallError, call};
pub use server::{BindError, Handler, Listener, remove_socket, serve};

/// The default path of the agent's socket.
pub const SOCKET: &str = "/var/run/interceptor/agent.sock";

/// The protocol that this release speaks.
pub const PROTOCOL: u32 = 1;

/// The maximum length of a request or response. (An older plugin's GC names every sandbox of a node.)
const MAX_MESSAGE_LENGTH: usize = 1 << 20;

/// A pod's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "{namespace}/{name}")
    }
}

/// CNI ADD and CHECK: a sandbox whose network the plugins before us have set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRequest {
    /// The sandbox's network namespace, as a path on the host.
    pub netns: PathBuf,
    /// The pod whose sandbox it is.
    pub pod: PodName,
    /// The pod's UID, if the runtime passes it. (containerd and CRI-O do.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A sandbox that is going. All but its name may be gone already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelRequest {
    /// The sandbox, by the runtime's name for it.
    pub container_id: String,
    /// Its network namespace, if there still is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The pod, if the runtime passes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
}

/// The plugin's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// Have the pod captured, if it is to be, before its first container starts.
    Add(AddRequest),
    /// Is the pod captured as it should be?
    Check(AddRequest),
    /// A sandbox is being deleted.
    Del(DelRequest),
    /// Sandboxes may have been deleted without a DEL.
    Gc,
    /// Is the agent running?
    Status,
}

/// The result for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is captured as it should be.
    Captured,
    /// It is not to be captured.
    Skipped {
        /// Why not.
        reason: String,
    },
    /// It is to be captured, and is not: no container of it may start.
    Failed {
        /// Why not, and what to do.
        reason: String,
    },
}

/// The agent's response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// The pod is captured as it should be.
    Captured,
    /// The pod is not to be captured.
    Skipped {
        /// Why not.
        reason: String,
    },
    /// The pod is to be captured, and is not.
    Failed {
        /// Why not, and what to do.
        reason: String,
    },
    /// Received. The response to requests that have no result of their own.
    #[serde(rename = "ok")]
    Ack,
    /// The agent does not understand the request.
    Unknown {
        /// What it does not understand, and which release it is.
        reason: String,
    },
}

impl From<Outcome> for Response {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Captured => Self::Captured,
            Outcome::Skipped { reason } => Self::Skipped { reason },
            Outcome::Failed { reason } => Self::Failed { reason },
        }
    }
}

/// A request with what every request bears.
#[derive(Serialize, Deserialize)]
struct Envelope {
    protocol: u32,
    /// Which release the plugin is, to be named where the two do not understand each other.
    release: String,
    /// How long the plugin will wait: the agent answers before that, so that its reason is told
    /// instead of "no answer".
    wait_ms: u64,
    #[serde(flatten)]
    request: Request,
}

impl Envelope {
    fn new(request: Request, wait: Duration) -> Self {
        Self {
            protocol: PROTOCOL,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            request,
        }
    }
}
