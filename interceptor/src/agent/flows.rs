//! The node's flows, for any number of observers at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Result;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tracing::warn;

use crate::observe::{
    message::Message,
    node::{NodeFlows, POLL_INTERVAL},
};

/// Flows that are kept for later observers.
const HISTORY: usize = 4096;
/// Flows that an observer may be late. An observer that is later loses some, and is informed.
const MAX_DELAY: usize = 1 << 13;
/// Interval between attempts to read the flows.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The flows as lines. One thread reads them while there are observers.
#[derive(Clone, Debug)]
pub(super) struct FlowHub {
    lines: Sender<Arc<str>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_read: bool,
    recent: VecDeque<Arc<str>>,
}

impl FlowHub {
    pub(super) fn new() -> Self {
        Self {
            lines: Sender::new(MAX_DELAY),
            state: Arc::default(),
        }
    }

    /// The flows that were read last, and those from now on. None is missing or twice.
    pub(super) fn observe(&self) -> (Vec<Arc<str>>, Receiver<Arc<str>>) {
        let mut state = self.state();
        let lines = self.lines.subscribe();
        if !state.is_read {
            state.is_read = true;
            let hub = self.clone();
            thread::spawn(move || hub.read());
        }
        (state.recent.iter().cloned().collect(), lines)
    }

    /// The flows that were read last.
    pub(super) fn recent(&self) -> Vec<Arc<str>> {
        self.state().recent.iter().cloned().collect()
    }

    /// Reads until there is no observer.
    fn read(&self) {
        while let Err(error) = self.read_node() {
            warn!("cannot read the connections for observers; retrying: {error:#}");
            let error = Message::Error(format!("{error:#}"));
            let _sent = self.lines.send(error.line().into());
            if self.is_finished() {
                return;
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    fn read_node(&self) -> Result<()> {
        let mut flows = NodeFlows::open()?;
        let mut lost = 0;
        while !self.is_finished() {
            for flow in flows.read()? {
                self.publish(Message::Flow(Box::new(flow)).line().into());
            }
            let lost_in_all = flows.lost()?;
            if lost_in_all > lost {
                let _sent = self
                    .lines
                    .send(Message::Lost(lost_in_all - lost).line().into());
                lost = lost_in_all;
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn publish(&self, line: Arc<str>) {
        let mut state = self.state();
        if state.recent.len() == HISTORY {
            state.recent.pop_front();
        }
        state.recent.push_back(line.clone());
        // Fails if the last observer has left.
        let _sent = self.lines.send(line);
    }

    /// Whether there is no observer. The next one starts a new reader then.
    fn is_finished(&self) -> bool {
        let mut state = self.state();
        let is_finished = self.lines.receiver_count() == 0;
        state.is_read = !is_finished;
        is_finished
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next line; nothing after the hub was dropped.
pub(super) async fn next(lines: &mut Receiver<Arc<str>>) -> Option<Arc<str>> {
    match lines.recv().await {
        Ok(line) => Some(line),
        Err(broadcast::error::RecvError::Lagged(lost)) => Some(Message::Lost(lost).line().into()),
        Err(broadcast::error::RecvError::Closed) => None,
    }
}

/// A line that has been sent already, if there is one.
pub(super) fn received(lines: &mut Receiver<Arc<str>>) -> Option<Arc<str>> {
    match lines.try_recv() {
        Ok(line) => Some(line),
        Err(broadcast::error::TryRecvError::Lagged(lost)) => {
            Some(Message::Lost(lost).line().into())
        }
        Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
    }
}
