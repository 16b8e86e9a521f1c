//! The protocol between the CNI plugin and the agent, over a Unix socket.
//!
//! Each connection carries one [`Request`] and one [`Response`], each a line of JSON. Plugin and agent
//! may be of different releases, as the plugin's binary is replaced while it may be running: unknown
//! fields are ignored, and the response to an unknown request names it. Incompatible changes require a
//! new [`PROTOCOL`].

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::pod_name::PodName;

mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod server;

pub use client::{CallError, call};
pub use server::{BindError, Handler, Listener, remove_socket, serve};
pub(crate) use server::{listen, observers_socket};

/// The default path of the agent's socket.
pub const SOCKET: &str = "/var/run/interceptor/agent.sock";

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// The maximum length of a request or response. (An older plugin's GC names every sandbox of a node.)
const MAX_MESSAGE_LENGTH: usize = 1 << 20;

/// CNI ADD and CHECK: a sandbox with a network from the plugins before us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRequest {
    /// The sandbox's network namespace, as a path on the host.
    pub netns: PathBuf,
    /// The pod whose sandbox it is.
    pub pod: PodName,
    /// The pod's UID, if the runtime passes it, as containerd and CRI-O do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// CNI DEL: a sandbox that is being deleted, or was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelRequest {
    /// The sandbox's container ID.
    pub container_id: String,
    /// The sandbox's network namespace, if it still exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The pod, if the runtime passes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
}

/// A request of the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// Capture the pod, if it is to be captured, before its first container starts.
    Add(AddRequest),
    /// Check that the pod is captured.
    Check(AddRequest),
    /// A sandbox is being deleted.
    Del(DelRequest),
    /// Sandboxes may have been deleted without a DEL.
    Gc,
    /// Check that the agent is running.
    Status,
}

/// The result of ADD or CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodResult {
    /// The pod is captured.
    Captured,
    /// The pod is not to be captured.
    Skipped {
        /// Why not.
        reason: String,
    },
    /// The pod is to be captured, and is not: no container of it may start.
    Failed {
        /// Why not, and what to do.
        reason: String,
    },
}

/// The agent's response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// The pod is captured.
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
    /// The request was received. For requests without a result.
    #[serde(rename = "ok")]
    Ack,
    /// The agent does not understand the request.
    Unknown {
        /// What is unknown, and the agent's release.
        reason: String,
    },
}

impl From<PodResult> for Response {
    fn from(result: PodResult) -> Self {
        match result {
            PodResult::Captured => Self::Captured,
            PodResult::Skipped { reason } => Self::Skipped { reason },
            PodResult::Failed { reason } => Self::Failed { reason },
        }
    }
}

/// A request, with the fields of every request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Envelope {
    protocol: u32,
    /// The plugin's release, for errors about incompatible releases.
    release: String,
    /// The plugin's timeout. The agent responds earlier, so that the plugin reports the agent's reason
    /// and not only a timeout.
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
