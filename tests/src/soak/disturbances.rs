//! What happens to the node while connections are open. Each disturbance is complete when it returns:
//! an agent is ready, and everything else is as it was before.

mod api_server;
mod builds;
mod observers;
mod routes;
mod settings;
mod tables;

use std::{thread, time::Duration};

use anyhow::Result;
use interceptor_testkit::{interruption::ensure_uninterrupted, node::Node};

use crate::{
    agents::Agents,
    ledger::Ledger,
    pods::SoakPod,
    random::Random,
    traffic::{Fault, Kind},
};

/// What a disturbance acts on.
pub(crate) struct Scene<'a> {
    pub(crate) node: &'a Node,
    pub(crate) agents: Agents<'a>,
    pub(crate) pods: Vec<SoakPod>,
    pub(crate) ledger: Ledger,
    pub(crate) random: Random,
}

/// A disturbance, and its name in the report.
pub(crate) struct Disturbance {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Scene<'_>) -> Result<()>,
}

/// All of them.
pub(crate) const ALL: [Disturbance; 15] = [
    Disturbance {
        name: "settings: an outbound port is excluded, then captured again",
        run: settings::outbound,
    },
    Disturbance {
        name: "settings: an inbound port is excluded, then captured again",
        run: settings::inbound,
    },
    Disturbance {
        name: "agent: SIGKILL, and a new one",
        run: builds::kill,
    },
    Disturbance {
        name: "agent: SIGTERM, and a new one",
        run: builds::restart,
    },
    Disturbance {
        name: "agent: replaced by the other build after SIGKILL",
        run: builds::change_after_kill,
    },
    Disturbance {
        name: "agent: replaced by the other build, which waits for it",
        run: builds::hand_over,
    },
    Disturbance {
        name: "agent: SIGKILL during an upgrade or downgrade",
        run: builds::kill_while_upgrading,
    },
    Disturbance {
        name: "a command of the other build upgrades the pods of a running agent",
        run: builds::upgrade_by_command,
    },
    Disturbance {
        name: "API server: responds with 503 for some time",
        run: api_server::unavailable,
    },
    Disturbance {
        name: "API server: 503 while the agent is restarted",
        run: api_server::unavailable_at_start,
    },
    Disturbance {
        name: "API server: watches are cut off, or expire",
        run: api_server::cut_off,
    },
    Disturbance {
        name: "API server: slow responses",
        run: api_server::slow,
    },
    Disturbance {
        name: "routes, addresses and rules of a pod come and go",
        run: routes::flap,
    },
    Disturbance {
        name: "tables: one is full, or almost full",
        run: tables::fill,
    },
    Disturbance {
        name: "observers of flows come, and are killed",
        run: observers::come_and_go,
    },
];

/// Runs them in an order that the seed determines: all once, then all again in another order.
pub(crate) struct Deck(Vec<&'static Disturbance>);

impl Deck {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn next(&mut self, random: &mut Random) -> &'static Disturbance {
        if self.0.is_empty() {
            self.0.extend(&ALL);
        }
        let index = random.below(self.0.len() as u64);
        self.0
            .swap_remove(usize::try_from(index).unwrap_or_default())
    }
}

impl Scene<'_> {
    /// Runs a disturbance.
    pub(crate) fn disturb(&mut self, disturbance: &Disturbance) -> Result<()> {
        disturbance.name.clone_into(&mut self.ledger.state().during);
        (disturbance.run)(self)?;
        let mut state = self.ledger.state();
        *state.disturbances.entry(disturbance.name).or_default() += 1;
        Ok(())
    }

    /// Waits for a random time.
    fn rest(&mut self, most: Duration) -> Result<()> {
        let time = self.random.duration(most);
        rest(time)
    }

    /// The index of a random pod.
    fn any_pod(&mut self) -> usize {
        let index = self.random.below(self.pods.len() as u64);
        usize::try_from(index).unwrap_or_default()
    }

    fn violate(&self, what: String, expected: String, seen: String) {
        let fault = Fault {
            kind: Kind::Other,
            what,
            expected,
            seen,
        };
        self.ledger.violate("the node", fault);
    }
}

/// Waits, unless there is a Ctrl-C.
pub(crate) fn rest(time: Duration) -> Result<()> {
    const STEP: Duration = Duration::from_millis(100);
    let mut left = time;
    while left > Duration::ZERO {
        ensure_uninterrupted()?;
        let step = left.min(STEP);
        thread::sleep(step);
        left -= step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_disturbance_occurs_before_any_occurs_again() {
        let (mut deck, mut random) = (Deck::new(), Random::new(1, 1));
        for _ in 0..3 {
            let names: BTreeSet<_> = (0..ALL.len())
                .map(|_| deck.next(&mut random).name)
                .collect();
            assert_eq!(names.len(), ALL.len());
        }
    }
}
