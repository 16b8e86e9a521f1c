//! Reads the dataplane for requests: one read at a time, however many clients there are. A read holds the
//! machine-wide lock and enters the pods' network namespaces.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Mutex;

use crate::{agent::blocking::blocking, status};

/// Clones share the turns and the last status.
#[derive(Clone, Default)]
pub(super) struct Reader {
    /// Locked by the read in progress.
    last: Arc<Mutex<Option<NodeStatus>>>,
}

/// The status of all captured pods.
#[derive(Clone)]
pub(super) struct NodeStatus {
    /// What `status -o json` prints.
    pub(super) pods: Arc<RawValue>,
    /// How long the read took.
    pub(super) took: Duration,
    at: Instant,
}

impl Reader {
    /// The status of all captured pods, which may have been read this long ago.
    pub(super) async fn status(&self, max_age: Duration) -> Result<NodeStatus> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some(status) = &*last
            && status.at.elapsed() <= max_age
        {
            return Ok(status.clone());
        }
        blocking(move || {
            let status = NodeStatus::read()?;
            *last = Some(status.clone());
            Ok(status)
        })
        .await
    }

    /// Runs `work` on another thread, in turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.last.clone().lock_owned().await;
        blocking(move || {
            // The work continues if the client disconnects.
            let _turn = turn;
            work()
        })
        .await
    }
}

impl NodeStatus {
    fn read() -> Result<Self> {
        let at = Instant::now();
        let pods = to_raw_value(&status::read(None)?)?.into();
        Ok(Self {
            pods,
            took: at.elapsed(),
            at,
        })
    }
}
