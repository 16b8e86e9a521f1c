//! Random connections in two worlds, under many random configurations.

use std::{fmt, panic, slice, thread};

use anyhow::{Context as _, Result, bail};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{Flow, flows, report, runner, shrink};
use crate::{
    actor::protocol::Request,
    scenario::{self, Observed},
    settings::Settings,
    world::{Setup, World},
};

/// The maximum number of mismatches that are shrunk, which takes some seconds each.
const MAX_SHRUNK: usize = 5;

/// The maximum number of mismatches of one run that do not recur. A busy machine causes one now and
/// then (a reply that misses its timeout in one world only); a race in the product causes more.
const MAX_TRANSIENT: usize = 2;

/// The minimum percentages of flows that are captured, and of flows that are not: a comparison of
/// connections that all fail, or all bypass the proxy, shows nothing.
const MIN_PERCENT: usize = 5;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed of all cases.
    pub seed: u64,
    /// The number of configurations.
    pub configurations: u64,
    /// The number of connections in each.
    pub flows: usize,
}

/// The result.
#[derive(Debug, Default)]
pub struct Tally {
    configurations: u64,
    flows: usize,
    /// Flows that reached the proxy.
    captured: usize,
    /// Flows that reached another server.
    passed: usize,
    mismatches: usize,
    /// Flows that differed once, but not when repeated.
    transient: usize,
}

impl Tally {
    /// An error if the run found a difference, or compared too little.
    pub fn verify(&self) -> Result<()> {
        let floor = self.flows * MIN_PERCENT / 100;
        if self.mismatches > 0 {
            bail!("{self}");
        }
        if self.transient > MAX_TRANSIENT {
            bail!("{self}: at most {MAX_TRANSIENT} mismatches may not recur");
        }
        if self.flows == 0 || self.captured < floor || self.passed < floor {
            bail!("{self}: at least {floor} must be captured and {floor} pass");
        }
        Ok(())
    }

    fn count(&mut self, observed: &Observed) {
        self.flows += 1;
        if observed.outcome.starts_with("proxy:") {
            self.captured += 1;
        } else if observed.outcome.contains(':') {
            self.passed += 1;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "compared {} configurations, {} flows ({} captured, {} passed), {} mismatches",
            self.configurations, self.flows, self.captured, self.passed, self.mismatches
        )?;
        if self.transient > 0 {
            write!(formatter, " ({} more did not recur)", self.transient)?;
        }
        Ok(())
    }
}

/// Compares, and prints every mismatch on stderr.
pub fn compare(plan: &Plan) -> Result<Tally> {
    let mut worlds = Worlds(scenario::worlds(&Setup {
        dns: true,
        ..Setup::default()
    })?);
    let mut tally = Tally::default();
    for index in 0..plan.configurations {
        let mut dice = runner(plan.seed, index);
        let settings = draw(&super::settings(), &mut dice)?.current();
        worlds.set(&settings)?;
        let mut trees = (0..plan.flows)
            .map(|_| draw(&flows(&settings), &mut dice))
            .collect::<Result<Vec<_>>>()?;
        let drawn: Vec<_> = trees.iter().map(ValueTree::current).collect();
        let [iptables, other] = worlds.observe(&drawn)?;
        tally.configurations += 1;
        for observed in &iptables {
            tally.count(observed);
        }
        for (flow, difference) in trees.iter_mut().zip(compare_each(&iptables, &other)) {
            if !difference.is_empty() {
                let again = draw(&super::settings(), &mut runner(plan.seed, index))?;
                judge(&mut worlds, &mut tally, again, flow, &difference)?;
            }
        }
    }
    Ok(tally)
}

fn draw<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> Result<S::Tree> {
    strategy
        .new_tree(runner)
        .map_err(|error| anyhow::anyhow!("no case generated: {error}"))
}

/// Counts and prints a mismatch.
fn judge(
    worlds: &mut Worlds,
    tally: &mut Tally,
    mut settings: impl ValueTree<Value = Settings>,
    flow: &mut impl ValueTree<Value = Flow>,
    difference: &[String],
) -> Result<()> {
    if !worlds.differ(&settings.current(), &flow.current())? {
        tally.transient += 1;
        let case = case(&settings.current(), &flow.current(), difference);
        return report(&format!("// Did not recur.\n{case}"));
    }
    tally.mismatches += 1;
    let drawn = flow.current();
    if tally.mismatches > MAX_SHRUNK {
        return report(&case(&settings.current(), &drawn, difference));
    }
    // Settings that fail to apply show nothing.
    let settings = shrink(&mut settings, |simpler| {
        worlds.differ(simpler, &drawn).unwrap_or(false)
    });
    let flow = shrink(flow, |simpler| {
        worlds.differ(&settings, simpler).unwrap_or(false)
    });
    worlds.set(&settings)?;
    let differences = worlds.differences(slice::from_ref(&flow))?;
    report(&case(&settings, &flow, &differences.concat()))
}

/// A mismatch, as the source of a test.
fn case(settings: &Settings, flow: &Flow, difference: &[String]) -> String {
    let difference = difference.join("\n//     ");
    format!(
        "// iptables | Interceptor\n//     {difference}\n\
         #[test]\nfn it_has_a_name() {{\n    let settings = {settings};\n    \
         differential(\n        &Setup::with(settings),\n        \
         &[Scenario::new(\"it has a name\", |run| {{\n            \
         {flow}.execute(run)?;\n            Ok(())\n        }})],\n    );\n}}\n"
    )
}

/// The world behind iptables, and the world that it is compared with.
struct Worlds([World; 2]);

impl Worlds {
    fn set(&mut self, settings: &Settings) -> Result<()> {
        self.in_each(|world| world.set(settings))
            .map(drop)
            .with_context(|| settings.to_string())
    }

    /// Whether a connection differs under these settings.
    fn differ(&mut self, settings: &Settings, flow: &Flow) -> Result<bool> {
        self.set(settings)?;
        let differences = self.differences(slice::from_ref(flow))?;
        Ok(!differences.concat().is_empty())
    }

    /// The differences of connections, made one after the other.
    fn differences(&mut self, flows: &[Flow]) -> Result<Vec<Vec<String>>> {
        let [iptables, other] = self.observe(flows)?;
        Ok(compare_each(&iptables, &other))
    }

    /// The observations of connections, made one after the other.
    fn observe(&mut self, flows: &[Flow]) -> Result<[Vec<Observed>; 2]> {
        self.in_each(|world| flows.iter().map(|flow| observe(world, flow)).collect())
    }

    /// Runs `work` in both worlds at once.
    fn in_each<T: Send>(
        &mut self,
        work: impl Fn(&mut World) -> Result<T> + Sync,
    ) -> Result<[T; 2]> {
        let work = &work;
        let [iptables, other] = &mut self.0;
        thread::scope(|scope| {
            let other = scope.spawn(move || work(other));
            let iptables = work(iptables);
            let other = other
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked));
            Ok([iptables?, other?])
        })
    }
}

fn observe(world: &World, flow: &Flow) -> Result<Observed> {
    let observed = scenario::observe(world, |run| flow.execute(run))
        .with_context(|| format!("{:?}: {flow}", world.mechanism()))?;
    world.actor(flow.role())?.must(&Request::CloseAll)?;
    Ok(observed)
}

/// The differences, flow by flow.
fn compare_each(iptables: &[Observed], other: &[Observed]) -> Vec<Vec<String>> {
    let both = iptables.iter().zip(other);
    both.map(|(iptables, other)| scenario::compare(&iptables.observations, &other.observations))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Tally = Tally {
        configurations: 1,
        flows: 100,
        captured: 20,
        passed: 20,
        mismatches: 0,
        transient: MAX_TRANSIENT,
    };

    #[test]
    fn a_run_that_compared_enough_passes() {
        GOOD.verify().unwrap();
    }

    #[test]
    fn a_mismatch_fails_a_run() {
        let tally = Tally {
            mismatches: 1,
            ..GOOD
        };
        tally.verify().unwrap_err();
    }

    #[test]
    fn too_many_mismatches_that_do_not_recur_fail_a_run() {
        let tally = Tally {
            transient: MAX_TRANSIENT + 1,
            ..GOOD
        };
        tally.verify().unwrap_err();
    }

    #[test]
    fn a_run_that_compared_too_little_fails() {
        let vacuous = [
            Tally { flows: 0, ..GOOD },
            Tally {
                captured: 0,
                ..GOOD
            },
            Tally { passed: 0, ..GOOD },
        ];
        for tally in vacuous {
            tally.verify().unwrap_err();
        }
    }
}
