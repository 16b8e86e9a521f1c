//! What the server's handlers and the test share.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{rbac::Account, store::Store};

/// A request that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// As rules name it: `get`, `list`, `watch`, `create`, `patch` ...; the method, where there is no
    /// such resource.
    pub verb: String,
    /// What it was about.
    pub path: String,
    /// The rest of it.
    pub query: String,
    /// What was sent.
    pub body: Value,
    /// What was answered.
    pub status: u16,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// How long every answer takes.
    pub(super) delay: Duration,
    /// Everything is answered by 503.
    pub(super) unavailable: bool,
    /// Watches that begin with all objects are refused, as by servers before 1.32.
    pub(super) no_streaming_lists: bool,
    /// Objects of these names are left out of lists that need not be the newest.
    pub(super) unlisted: BTreeSet<String>,
}

/// Something that concerns watches that are under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signal {
    /// Counts changes.
    pub(super) changes: u64,
    /// Counts disconnections: who began at a lower one is cut off.
    pub(super) disconnections: u64,
    /// Counts expirations: who began at a lower one is told 410.
    pub(super) expirations: u64,
    /// Counts bookmarks.
    pub(super) bookmarks: u64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    signal: watch::Sender<Signal>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) faults: Faults,
    /// Whose requests are served; without it all is allowed.
    pub(super) account: Option<Account>,
    pub(super) recorded: Vec<Recorded>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            signal: watch::channel(Signal::default()).0,
        }
    }
}

impl State {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes objects, and tells those who watch.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let done = change(&mut self.lock().store);
        self.signal(|signal| signal.changes += 1);
        done
    }

    pub(super) fn signal(&self, change: impl FnOnce(&mut Signal)) {
        self.signal.send_modify(change);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Signal> {
        self.signal.subscribe()
    }

    /// How many watches are under way.
    pub(super) fn watches(&self) -> usize {
        self.signal.receiver_count()
    }
}
