//! The cost of a `getsockopt(2)` program for calls of other options.

use std::cell::RefCell;

use anyhow::{Result, bail};
use interceptor_testkit::{interceptor, users::APP};

use crate::{
    Contestant, Pod, Row, Scale, Section, Unit,
    load::{LoadReply, LoadRequest, Worker},
    pod::{attach, stock},
    rounds::take_turns,
    summary::quantile,
};

/// The measurements of a turn; the median counts.
const CALLS_PER_TURN: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq)]
enum CallSite {
    Without,
    Outside,
    OtherNamespace,
    Inside,
}

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let pod = Pod::new(Contestant::Interceptor, &stock())?;
    let direct = Pod::new(Contestant::Direct, &stock())?;
    let outside = direct.worker_at(APP, &direct.cgroup().child("pod")?)?;
    let other = direct.worker_at(APP, &pod.pod_cgroup()?)?;
    let inside = pod.worker_at(APP, &pod.pod_cgroup()?)?;
    let is_attached = RefCell::new(true);
    let subjects = [
        ("without Interceptor".to_owned(), CallSite::Without),
        ("outside mesh pods".to_owned(), CallSite::Outside),
        (
            "a mesh pod's cgroup, another namespace".to_owned(),
            CallSite::OtherNamespace,
        ),
        ("inside a mesh pod".to_owned(), CallSite::Inside),
    ];
    let turns = take_turns(scale.attaches, &subjects, |site| {
        set_attached(
            &pod,
            &mut is_attached.borrow_mut(),
            *site != CallSite::Without,
        )?;
        measure(
            match site {
                CallSite::Without | CallSite::Outside => &outside,
                CallSite::OtherNamespace => &other,
                CallSite::Inside => &inside,
            },
            scale.getsockopt_calls,
        )
    })?;
    set_attached(&pod, &mut is_attached.borrow_mut(), true)?;
    let numbers = turns.numbers(|nanoseconds| *nanoseconds);
    Ok(Section {
        method: format!(
            "getsockopt(SO_ERROR), {} calls {CALLS_PER_TURN} times a turn, of which the median \
             counts, {} rounds; between turns Interceptor is detached and attached. It is attached \
             at the pod's own cgroup.",
            scale.getsockopt_calls, scale.attaches
        ),
        rows: vec![Row::against_first("one call", Unit::Nanoseconds, &numbers)],
        ..Section::default()
    })
}

fn set_attached(pod: &Pod, is_attached: &mut bool, wanted: bool) -> Result<()> {
    if *is_attached != wanted {
        if wanted {
            attach(pod.netns().path(), &pod.pod_cgroup()?, &stock())?;
        } else {
            interceptor::detach(pod.netns().path())?;
        }
        *is_attached = wanted;
    }
    Ok(())
}

fn measure(worker: &Worker, count: u32) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..CALLS_PER_TURN {
        match worker.call(&LoadRequest::GetOption { count })? {
            LoadReply::Nanoseconds(nanoseconds) => times.push(nanoseconds),
            other => bail!("{other:?}"),
        }
    }
    Ok(quantile(&times, 0.5))
}
