//! A watch: one line for each event, until the client closes it.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, timeout_at},
};

use super::{
    parameters::{Parameters, Version},
    resource::Target,
    selector::Selector,
    state::{Inner, Signal, State},
    status::Failure,
    store::event,
};

/// The duration of a watch without a timeout.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1800;

struct Watch {
    state: Arc<State>,
    signal: Receiver<Signal>,
    started: Signal,
    path: String,
    selector: Selector,
    version: u64,
    bookmarks: Option<u64>,
    lines: VecDeque<Value>,
    end: Instant,
    over: bool,
}

/// Starts a watch.
pub(super) fn start(
    state: &Arc<State>,
    inner: &Inner,
    path: &str,
    target: &Target<'_>,
    parameters: &Parameters,
) -> Result<Response, Failure> {
    let selector = parameters.selector()?;
    let store = &inner.store;
    let initial = || store.list(target, &selector);
    let (version, objects) = match parameters.version()? {
        Version::At(version) if !parameters.wants_initial_events() => (version, Vec::new()),
        Version::Any | Version::At(_) if parameters.wants_initial_events() => {
            (store.version(), initial())
        }
        // A watch without a start version gets all current objects first.
        _ => (store.version(), initial()),
    };
    let mut lines: VecDeque<_> = objects
        .iter()
        .map(|object| event("ADDED", object))
        .collect();
    if parameters.wants_initial_events() {
        lines.push_back(bookmark(target, version, true));
    }
    // A deleted version is reported in the watch, as the watch cache does.
    let known = store.ensure_known(version);
    let over = known.is_err();
    if let Err(failure) = known {
        lines.push_back(event("ERROR", &failure.to_object()));
    }
    let signal = state.subscribe();
    let started = *signal.borrow();
    let seconds = parameters
        .timeout_seconds
        .unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let watch = Watch {
        state: Arc::clone(state),
        signal,
        started,
        path: path.to_owned(),
        selector,
        version,
        bookmarks: parameters.wants_bookmarks().then_some(started.bookmarks),
        lines,
        end: Instant::now() + Duration::from_secs(seconds),
        over,
    };
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    Ok((
        [(CONTENT_TYPE, "application/json")],
        Body::from_stream(lines),
    )
        .into_response())
}

impl Watch {
    /// The next line; an error closes the connection in the middle.
    async fn next(&mut self) -> Option<io::Result<String>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(format!("{line}\n")));
            }
            if self.over {
                return None;
            }
            let now = *self.signal.borrow_and_update();
            if now.disconnections != self.started.disconnections {
                self.over = true;
                return Some(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.collect_events(now);
            let is_idle = self.lines.is_empty() && !self.over;
            if is_idle && timeout_at(self.end, self.signal.changed()).await.is_err() {
                return None;
            }
        }
    }

    /// Adds the events of the changes since the last call.
    fn collect_events(&mut self, now: Signal) {
        let Some(target) = Target::parse(&self.path) else {
            self.over = true;
            return;
        };
        let inner = self.state.lock();
        if now.expirations != self.started.expirations {
            let failure = Failure::expired(self.version, inner.store.version());
            self.lines.push_back(event("ERROR", &failure.to_object()));
            self.over = true;
            return;
        }
        let events = inner.store.since(self.version, &target, &self.selector);
        self.lines.extend(events);
        self.version = inner.store.version();
        if self.bookmarks.is_some_and(|sent| sent != now.bookmarks) {
            self.bookmarks = Some(now.bookmarks);
            self.lines.push_back(bookmark(&target, self.version, false));
        }
    }
}

fn bookmark(target: &Target<'_>, version: u64, ends_initial_events: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if ends_initial_events {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({
        "kind": target.resource.kind,
        "apiVersion": target.resource.api_version(),
        "metadata": metadata,
    });
    event("BOOKMARK", &object)
}
