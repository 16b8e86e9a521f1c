//! What has been done and found so far, by all threads.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    pods::ProxyKind,
    traffic::{Fault, Kind, Output, Progress},
};

/// The number of faults that are kept with all their text.
const MAX_KEPT: usize = 200;

/// A fault, when and where it was found, and what was done at that time.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) at: Duration,
    pub(crate) place: String,
    pub(crate) during: String,
    pub(crate) fault: Fault,
}

/// The state of a run.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The traffic of the pods that stay, by proxy.
    pub(crate) traffic: BTreeMap<ProxyKind, Progress>,
    /// That of the pods that come and go.
    pub(crate) visitors: Progress,
    /// The number of pods that came and went.
    pub(crate) visits: u64,
    /// The number of failed attempts to start a pod, for lack of an agent.
    pub(crate) failed_starts: u64,
    /// How often each disturbance was completed.
    pub(crate) disturbances: BTreeMap<&'static str, u64>,
    /// The current or last disturbance.
    pub(crate) during: String,
    /// By kind.
    pub(crate) counts: BTreeMap<Kind, usize>,
    /// The first violations.
    pub(crate) violations: Vec<Violation>,
}

impl State {
    /// The number of all violations.
    pub(crate) fn violation_count(&self) -> usize {
        self.counts.values().sum()
    }

    /// The traffic of all pods that stay.
    pub(crate) fn total(&self) -> Progress {
        let mut total = Progress::default();
        self.traffic
            .values()
            .for_each(|progress| total.add(progress));
        total
    }
}

/// The state, shared by all threads.
#[derive(Clone)]
pub(crate) struct Ledger {
    started: Instant,
    state: Arc<Mutex<State>>,
    is_ending: Arc<AtomicBool>,
    /// Held shared while a pod comes and goes.
    visits: Arc<RwLock<()>>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            state: Arc::default(),
            is_ending: Arc::default(),
            visits: Arc::default(),
        }
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a pod comes and goes.
    pub(crate) fn visit(&self) -> RwLockReadGuard<'_, ()> {
        self.visits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no pod comes or goes; while this is held, none does.
    pub(crate) fn quiet(&self) -> RwLockWriteGuard<'_, ()> {
        self.visits.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets threads that run until the end return.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Records a violation, and prints it at once: the rest of the run may show why.
    pub(crate) fn violate(&self, place: &str, fault: Fault) {
        let at = self.elapsed();
        let mut state = self.state();
        *state.counts.entry(fault.kind).or_default() += 1;
        if state.violations.len() >= MAX_KEPT {
            return;
        }
        let violation = Violation {
            at,
            place: place.to_owned(),
            during: state.during.clone(),
            fault,
        };
        eprintln!("soak: VIOLATION {violation}");
        state.violations.push(violation);
    }

    /// The output of a process of a pod that stays.
    pub(crate) fn of_pod(&self, place: &str, proxy: ProxyKind) -> PodOutput {
        PodOutput {
            ledger: self.clone(),
            place: place.to_owned(),
            proxy: Some(proxy),
        }
    }

    /// The output of a process of a pod that comes and goes, or of none.
    pub(crate) fn of_visitor(&self, place: &str) -> PodOutput {
        PodOutput {
            ledger: self.clone(),
            place: place.to_owned(),
            proxy: None,
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            at,
            place,
            during,
            fault,
        } = self;
        let Fault {
            kind,
            what,
            expected,
            seen,
        } = fault;
        let (at, kind) = (at.as_secs_f64(), kind.word());
        write!(
            formatter,
            "{kind}, at {at:.1} s, {place}: {what}: expected {expected}; seen: {seen} (during: {during})"
        )
    }
}

impl Progress {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.old_exchanges += other.old_exchanges;
        self.new_exchanges += other.new_exchanges;
        self.bytes += other.bytes;
    }
}

/// Where a process's counts and faults go.
pub(crate) struct PodOutput {
    ledger: Ledger,
    place: String,
    proxy: Option<ProxyKind>,
}

impl Output for PodOutput {
    fn count(&self, progress: &Progress) {
        let mut state = self.ledger.state();
        match self.proxy {
            Some(proxy) => state.traffic.entry(proxy).or_default().add(progress),
            None => state.visitors.add(progress),
        }
    }

    fn fault(&self, fault: Fault) {
        self.ledger.violate(&self.place, fault);
    }
}
