//! Reviews on a schedule.

mod sender;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use interceptor_testkit::https::Protocol;
use tokio::sync::mpsc;

use self::sender::Sender;
use super::{Scale, configuration::Sidecar, latency, pods::Workloads, webhook::Webhook};
use crate::{Row, Section, Unit};

/// Fewer than the memo holds.
const WORKLOADS: usize = 500;

/// A load.
#[derive(Clone, Copy, Debug)]
struct Plan {
    what: &'static str,
    protocol: Protocol,
    per_second: u32,
    /// Whether each pod has an annotation that no other has, so that no result is in the memo.
    is_unique: bool,
}

const PLANS: [Plan; 3] = [
    Plan {
        what: "1,000/s, HTTP/2",
        protocol: Protocol::Http2,
        per_second: 1_000,
        is_unique: false,
    },
    Plan {
        what: "1,000/s, HTTP/1.1",
        protocol: Protocol::Http1,
        per_second: 1_000,
        is_unique: false,
    },
    Plan {
        what: "200/s, HTTP/2, no pod in the memo",
        protocol: Protocol::Http2,
        per_second: 200,
        is_unique: true,
    },
];

/// What a load had as its result.
#[derive(Debug, Default)]
struct Outcome {
    times: Vec<Duration>,
    errors: Vec<String>,
    peak_memory: f64,
    memo_hits: f64,
}

pub(super) fn run(sidecars: &[Sidecar], scale: &Scale) -> Result<Section> {
    let mut section = Section {
        method: format!(
            "The webhook as a process of its own, with its own certificate; the client is on the \
             same machine. Reviews of pods of {WORKLOADS} workloads are due at equal intervals for \
             {} s, and are sent when they are due: HTTP/2 on one connection, as the API server \
             does; HTTP/1.1 on as many as are needed. Times count from when a review was due to its \
             whole response. Errors are missing or wrong responses. Memory is the process's \
             resident set at its largest.",
            scale.load_seconds
        ),
        ..Section::default()
    };
    for plan in PLANS {
        let mut outcomes = Vec::new();
        for sidecar in sidecars {
            let outcome = plan.run(sidecar, scale).context(plan.what)?;
            section
                .notes
                .extend(outcome.note(plan.what, sidecar.name()));
            outcomes.push((sidecar.name(), outcome));
        }
        section.rows.extend(rows(plan.what, outcomes));
    }
    Ok(section)
}

fn rows(what: &str, outcomes: Vec<(&'static str, Outcome)>) -> Vec<Row> {
    let row = |name: &str, unit, number: fn(&Outcome) -> f64| {
        let numbers: Vec<_> = outcomes
            .iter()
            .map(|(of, outcome)| ((*of).to_owned(), vec![number(outcome)]))
            .collect();
        Row::new(format!("{what}, {name}"), unit, &numbers)
    };
    let others = [
        row("responses", Unit::Count, Outcome::responses),
        row("errors", Unit::Count, Outcome::failures),
        row("found in the memo", Unit::Count, |outcome| {
            outcome.memo_hits
        }),
        row("memory", Unit::Mebibytes, |outcome| {
            outcome.peak_memory / f64::from(1 << 20)
        }),
    ];
    let times: Vec<_> = outcomes
        .into_iter()
        .map(|(of, outcome)| (of, outcome.times))
        .collect();
    latency::rows(what, &times)
        .into_iter()
        .chain(others)
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "at most some hundred thousand")]
impl Outcome {
    fn add(&mut self, done: Result<Duration>) {
        match done {
            Ok(time) => self.times.push(time),
            Err(error) => self.errors.push(format!("{error:#}")),
        }
    }

    fn responses(&self) -> f64 {
        self.times.len() as f64
    }

    fn failures(&self) -> f64 {
        self.errors.len() as f64
    }

    fn note(&self, what: &str, sidecar: &str) -> Option<String> {
        let error = self.errors.first()?;
        Some(format!("{what}, {sidecar}: the first error was: {error}"))
    }
}

impl Plan {
    fn run(&self, sidecar: &Sidecar, scale: &Scale) -> Result<Outcome> {
        let webhook = Webhook::start(sidecar)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut outcome = runtime.block_on(self.send(&webhook, scale))?;
        outcome.peak_memory = webhook.peak_memory()?;
        outcome.memo_hits =
            webhook.metric("interceptor_injection_memo_lookups_total{result=\"hit\"}")?;
        Ok(outcome)
    }

    /// Sends all reviews, each when it is due.
    async fn send(&self, webhook: &Webhook, scale: &Scale) -> Result<Outcome> {
        let workloads = Workloads::new(WORKLOADS);
        let sender = Sender::open(webhook.server(), self.protocol).await?;
        let mut due = schedule(self.per_second / scale.rate_divisor, scale.load_seconds);
        let mut in_progress = FuturesUnordered::new();
        let mut outcome = Outcome::default();
        loop {
            tokio::select! {
                biased;
                Some(done) = in_progress.next() => outcome.add(done),
                next = due.recv() => {
                    let Some((number, time)) = next else { break };
                    let body = workloads.review(number, self.is_unique);
                    let sent = sender.send(number, body);
                    in_progress.push(async move { sent.await.map(|()| time.elapsed()) });
                }
            }
        }
        while let Some(done) = in_progress.next().await {
            outcome.add(done);
        }
        Ok(outcome)
    }
}

/// Numbers and times at equal intervals. Each is received at its time.
fn schedule(per_second: u32, seconds: u32) -> mpsc::UnboundedReceiver<(usize, Instant)> {
    let (send, due) = mpsc::unbounded_channel();
    let start = Instant::now();
    // A thread, because the runtime's timers have a resolution of a millisecond.
    thread::spawn(move || {
        for number in 0..per_second * seconds {
            let time = start + Duration::from_secs(number.into()) / per_second;
            thread::sleep(time.saturating_duration_since(Instant::now()));
            if send.send((number as usize, time)).is_err() {
                return;
            }
        }
    });
    due
}
