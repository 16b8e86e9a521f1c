//! The states of the node's pods, which only the agent's own thread can read.

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use crate::agent::policy::index::report::PodReport;

/// Requests that may wait for the agent's thread.
const QUEUE: usize = 16;

/// Requests the states.
#[derive(Clone, Debug)]
pub(in crate::agent) struct States(mpsc::Sender<oneshot::Sender<Vec<PodReport>>>);

/// The requests.
#[derive(Debug)]
pub(in crate::agent) struct StateRequests(mpsc::Receiver<oneshot::Sender<Vec<PodReport>>>);

pub(in crate::agent) fn channel() -> (States, StateRequests) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (States(sender), StateRequests(receiver))
}

impl States {
    pub(super) async fn read(&self) -> Result<Vec<PodReport>> {
        let (response, states) = oneshot::channel();
        let closed = "the agent is exiting";
        self.0.send(response).await.context(closed)?;
        states.await.context(closed)
    }
}

impl StateRequests {
    /// Responds to each request until there are no more clients.
    pub(in crate::agent) async fn serve(mut self, read: impl Fn() -> Vec<PodReport>) {
        while let Some(response) = self.0.recv().await {
            // Fails if the client has disconnected.
            let _received = response.send(read());
        }
    }
}
