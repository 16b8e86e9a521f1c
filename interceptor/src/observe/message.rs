//! What the agent sends to an observer: messages in JSON, one on each line.

use serde::{Deserialize, Serialize};

use super::flow::Flow;

/// The path of the flows in the agent's HTTP API.
pub(crate) const FLOWS: &str = "/v1/flows";

/// The agent's socket for observers.
pub(crate) const SOCKET: &str = "/var/run/interceptor/observe.sock";

/// The parameters of a request for flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    /// Whether flows that were read before the request come first.
    #[serde(default)]
    pub(crate) history: bool,
    /// Whether new flows follow, until the client closes the connection.
    #[serde(default)]
    pub(crate) follow: bool,
}

/// One line of the response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    Flow(Box<Flow>),
    /// The number of flows that were not read in time.
    Lost(u64),
    /// Why there are no flows; the agent retries.
    Error(String),
}

impl Message {
    /// The message as a line.
    pub(crate) fn line(&self) -> String {
        // Only maps with other keys than strings cannot be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}
