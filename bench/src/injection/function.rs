//! The function: a pod in, a pod out, without I/O.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use interceptor_injection::{Config, Outcome, inject, review::review};
use serde_json::Value;

use super::{Scale, configuration::Sidecar, latency, pods::Workloads};
use crate::Section;

/// Workloads whose results are in the memo.
const WORKLOADS: usize = 100;

pub(super) fn run(sidecars: &[Sidecar], scale: &Scale) -> Result<Section> {
    let workloads = Workloads::new(WORKLOADS);
    let count = scale.injections;
    let mut rows = Vec::new();
    let measures: [(&str, Measure); 3] = [
        ("inject, not in the memo", rendered),
        ("inject, in the memo", memoised),
        ("a review, in the memo", reviewed),
    ];
    for (what, measure) in measures {
        let times = sidecars.iter().map(|sidecar| {
            Ok((
                sidecar.name(),
                measure(&sidecar.config()?, &workloads, count)?,
            ))
        });
        rows.extend(latency::rows(what, &times.collect::<Result<Vec<_>>>()?));
    }
    Ok(Section {
        method: format!(
            "One thread injects {count} pods, each once. \"Not in the memo\": each pod has an \
             annotation that no other has. \"In the memo\": the pods are of {WORKLOADS} workloads, \
             whose first pods have been injected before; the built-in sidecar has no memo. \"A \
             review\" also has its JSON parsed, and its patch computed and encoded."
        ),
        rows,
        ..Section::default()
    })
}

type Measure = fn(&Config, &Workloads, usize) -> Result<Vec<Duration>>;

fn rendered(config: &Config, workloads: &Workloads, count: usize) -> Result<Vec<Duration>> {
    (0..count)
        .map(|number| timed(config, &workloads.unique_pod(number)))
        .collect()
}

fn memoised(config: &Config, workloads: &Workloads, count: usize) -> Result<Vec<Duration>> {
    warm(config, workloads)?;
    (WORKLOADS..WORKLOADS + count)
        .map(|number| timed(config, &workloads.pod(number)))
        .collect()
}

fn reviewed(config: &Config, workloads: &Workloads, count: usize) -> Result<Vec<Duration>> {
    warm(config, workloads)?;
    (WORKLOADS..WORKLOADS + count)
        .map(|number| {
            let body = workloads.review(number, false);
            let start = Instant::now();
            let review = review(&body, "/inject", &[], |pod, subject| {
                inject(pod, subject, config)
            });
            let text = review.response.to_string();
            let took = start.elapsed();
            ensure!(text.contains("\"patch\""), "not injected: {text}");
            Ok(took)
        })
        .collect()
}

fn warm(config: &Config, workloads: &Workloads) -> Result<()> {
    for number in 0..WORKLOADS {
        timed(config, &workloads.pod(number))?;
    }
    Ok(())
}

fn timed(config: &Config, pod: &Value) -> Result<Duration> {
    let subject = Workloads::subject();
    let start = Instant::now();
    let outcome = black_box(inject(pod, &subject, config));
    let took = start.elapsed();
    ensure!(
        matches!(outcome, Ok(Outcome::Inject(_))),
        "the pod was not injected: {outcome:?}"
    );
    Ok(took)
}
