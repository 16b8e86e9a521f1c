//! Open connections: how many there may be, and which of them is closed for a new one.
//!
//! A client that can reach the webhook can open connections and send nothing, or send slowly. Such
//! connections end after a time, and earlier if a new connection needs their place. So they keep no
//! API server out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::metrics::ConnectionMetrics;

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Open connections. The API servers of a cluster keep a few each.
    pub(super) connections: usize,
    /// How long the TLS handshake may take.
    pub(super) handshake: Duration,
    /// How long a new connection may be open before its first request has arrived.
    pub(super) first_request: Duration,
    /// How long a connection may be open without a request. API servers close theirs after 90 s.
    pub(super) idle: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        connections: 1024,
        handshake: Duration::from_secs(5),
        first_request: Duration::from_secs(10),
        idle: Duration::from_mins(2),
    };
}

/// The open connections. Copies share them.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) limits: Limits,
    metrics: ConnectionMetrics,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_number: BTreeMap<u64, Arc<Activity>>,
}

/// What a connection is doing.
#[derive(Debug)]
struct Activity {
    state: Mutex<State>,
    evicted: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Requests in progress.
    requests: usize,
    has_served: bool,
    /// When it was opened, or when its last request ended.
    since: Instant,
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    number: u64,
    activity: Arc<Activity>,
    all: Connections,
}

/// A request that is in progress until this is dropped.
#[derive(Debug)]
pub(super) struct Request(Arc<Activity>);

impl Connections {
    pub(super) fn new(limits: Limits, metrics: ConnectionMetrics) -> Self {
        Self {
            limits,
            metrics,
            open: Arc::default(),
        }
    }

    /// A place for a new connection. If there is none, the place of one without a request, which is
    /// then closed. `None` if all have requests in progress.
    pub(super) fn open(&self) -> Option<OpenConnection> {
        let mut open = self.lock();
        if open.by_number.len() >= self.limits.connections {
            if !open.evict() {
                self.metrics.rejected();
                return None;
            }
            self.metrics.evicted();
        }
        let activity = Arc::new(Activity::new());
        open.last += 1;
        let number = open.last;
        open.by_number.insert(number, Arc::clone(&activity));
        Some(OpenConnection {
            number,
            activity,
            all: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes a connection without a request: first one that never had any, and of these the oldest.
    /// Returns whether there is one.
    fn evict(&mut self) -> bool {
        let idle = self.by_number.iter().filter_map(|(number, activity)| {
            let state = *activity.lock();
            (state.requests == 0).then_some((state.has_served, state.since, *number))
        });
        let number = idle.min().map(|(.., number)| number);
        let evicted = number.and_then(|number| self.by_number.remove(&number));
        evicted.is_some_and(|activity| {
            activity.evicted.notify_one();
            true
        })
    }
}

impl Activity {
    fn new() -> Self {
        let state = State {
            requests: 0,
            has_served: false,
            since: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            evicted: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnection {
    /// The limits of all connections.
    pub(super) const fn limits(&self) -> &Limits {
        &self.all.limits
    }

    /// What marks requests as in progress.
    pub(super) fn requests(&self) -> impl Fn() -> Request + Clone + use<> {
        let activity = Arc::clone(&self.activity);
        move || {
            activity.lock().requests += 1;
            Request(Arc::clone(&activity))
        }
    }

    /// Completes when the connection is to be closed: it has had no request for too long, or its
    /// place is needed.
    pub(super) async fn closing(&self) {
        loop {
            let deadline = self.deadline();
            if deadline <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = self.activity.evicted.notified() => return,
            }
        }
    }

    /// When it is to be closed, or when that is to be decided again.
    fn deadline(&self) -> Instant {
        let state = *self.activity.lock();
        let Limits {
            first_request,
            idle,
            ..
        } = self.all.limits;
        match state.requests {
            0 if state.has_served => state.since + idle,
            0 => state.since + first_request,
            _ => Instant::now() + idle,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.all.lock().by_number.remove(&self.number);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        state.has_served = true;
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::webhook::{injector::Injector, metrics::Metrics};

    const SHORT: Duration = Duration::from_millis(20);

    fn with_limits(limits: Limits) -> Connections {
        Connections::new(limits, ConnectionMetrics::default())
    }

    fn connections(count: usize) -> Connections {
        with_limits(Limits {
            connections: count,
            ..Limits::DEFAULT
        })
    }

    async fn is_closing(connection: &OpenConnection) -> bool {
        timeout(SHORT, connection.closing()).await.is_ok()
    }

    #[tokio::test]
    async fn a_connection_without_requests_makes_place_for_a_new_one() {
        let all = connections(3);
        let [busy, served, silent] = [(); 3].map(|()| all.open().unwrap());
        let request = busy.requests()();
        drop(served.requests()());
        let newer = all.open().unwrap();
        assert!(is_closing(&silent).await);
        assert!(!is_closing(&served).await);
        let _request = newer.requests()();
        let _newest = all.open().unwrap();
        assert!(is_closing(&served).await);
        assert!(!is_closing(&busy).await);
        drop(request);
        assert!(!is_closing(&busy).await);
    }

    #[test]
    fn closed_connections_are_counted() {
        let metrics = Metrics::new(Injector::default());
        let limits = Limits {
            connections: 2,
            ..Limits::DEFAULT
        };
        let all = Connections::new(limits, metrics.connections.clone());
        let open = [(); 5].map(|()| all.open().unwrap());
        let _requests = [&open[3], &open[4]].map(|connection| connection.requests()());
        assert!(all.open().is_none());
        let text = metrics.text().unwrap();
        for metric in [
            "connections_evicted_total 3",
            "connections_rejected_total 1",
        ] {
            let line = format!("interceptor_webhook_{metric}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }

    #[tokio::test]
    async fn no_request_in_progress_is_ended_for_a_new_connection() {
        let all = connections(1);
        let busy = all.open().unwrap();
        let request = busy.requests()();
        assert!(all.open().is_none());
        drop((request, busy));
        assert!(all.open().is_some());
    }

    #[tokio::test]
    async fn a_connection_without_requests_is_closed_in_time() {
        let all = with_limits(Limits {
            first_request: Duration::ZERO,
            ..Limits::DEFAULT
        });
        let connection = all.open().unwrap();
        let requests = connection.requests();
        let request = requests();
        assert!(!is_closing(&connection).await);
        drop(request);
        assert!(!is_closing(&connection).await);
        assert!(is_closing(&all.open().unwrap()).await);
        let all = with_limits(Limits {
            idle: Duration::ZERO,
            ..Limits::DEFAULT
        });
        let connection = all.open().unwrap();
        assert!(!is_closing(&connection).await);
        drop(connection.requests()());
        assert!(is_closing(&connection).await);
    }
}
