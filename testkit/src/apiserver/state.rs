//! The state that the server's handlers and the test share.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{rbac::Account, store::Store};

/// A request that was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The verb in the words of RBAC rules: `get`, `list`, `watch`, `create`, `patch` ...; the HTTP
    /// method for an unknown resource.
    pub verb: String,
    /// The path.
    pub path: String,
    /// The query string.
    pub query: String,
    /// The request body.
    pub body: Value,
    /// The status code of the response.
    pub status: u16,
}

/// The injected failures.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// The delay of every response.
    pub(super) delay: Duration,
    /// Whether every response is 503.
    pub(super) unavailable: bool,
    /// Whether watches that start with all objects are refused, as by servers before 1.32.
    pub(super) no_streaming_lists: bool,
    /// The names of objects that are missing in lists that need not be the newest.
    pub(super) unlisted: BTreeSet<String>,
    /// The plural names of resources that are not installed.
    pub(super) uninstalled: BTreeSet<String>,
}

/// Counters of changes that open watches react to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signal {
    /// Changes of objects.
    pub(super) changes: u64,
    /// Disconnections: a watch that started at a lower count is closed.
    pub(super) disconnections: u64,
    /// Expirations: a watch that started at a lower count gets 410.
    pub(super) expirations: u64,
    /// Bookmarks.
    pub(super) bookmarks: u64,
}

/// The whole state of the server.
#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    signal: watch::Sender<Signal>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) faults: Faults,
    /// The account whose requests are served; `None` allows everything.
    pub(super) account: Option<Account>,
    pub(super) recorded: Vec<Recorded>,
    /// Audit annotations and warnings of admission webhooks, one object for each call.
    pub(super) admissions: Vec<Value>,
    /// The network namespaces of pods whose ports are forwarded, by namespace and name.
    pub(super) forwards: BTreeMap<(String, String), PathBuf>,
    services: BTreeMap<(String, String), VecDeque<SocketAddr>>,
}

impl Inner {
    /// Replaces the endpoints of a Service.
    pub(super) fn set_endpoints(&mut self, namespace: &str, name: &str, endpoints: &[SocketAddr]) {
        let key = (namespace.to_owned(), name.to_owned());
        self.services
            .insert(key, endpoints.iter().copied().collect());
    }

    /// An endpoint of a Service: each in turn.
    pub(super) fn next_endpoint(&mut self, namespace: &str, name: &str) -> Option<SocketAddr> {
        let key = (namespace.to_owned(), name.to_owned());
        let endpoints = self.services.get_mut(&key)?;
        endpoints.rotate_left(usize::from(!endpoints.is_empty()));
        endpoints.back().copied()
    }
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

    /// Changes objects, and notifies watches.
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

    /// The number of open watches.
    pub(super) fn watches(&self) -> usize {
        self.signal.receiver_count()
    }
}
