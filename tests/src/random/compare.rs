//! Random connections in two worlds, under one random configuration after another.

use std::{fmt, panic, slice, thread};

use anyhow::{Context as _, Result};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

use super::{Flow, flows, runner, shrink};
use crate::{
    agent::protocol::Request,
    scenario::{self, Seen},
    settings::Settings,
    world::{Setup, World},
};

/// How many mismatches are shrunk, which takes some seconds each.
const ENOUGH: usize = 5;

/// How much to compare.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What all hangs on.
    pub seed: u64,
    /// How many times other settings are put in force.
    pub configurations: u64,
    /// How many connections are made under each.
    pub flows: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    configurations: u64,
    flows: usize,
    mismatches: usize,
    /// What differed once, and not when it was repeated.
    passing: usize,
}

impl Tally {
    /// How many connections did not go alike.
    #[must_use]
    pub const fn mismatches(&self) -> usize {
        self.mismatches
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "compared {} configurations, {} flows, {} mismatches",
            self.configurations, self.flows, self.mismatches
        )?;
        if self.passing > 0 {
            write!(formatter, " ({} more did not recur)", self.passing)?;
        }
        Ok(())
    }
}

/// Compares, and tells of every mismatch on stderr.
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
        let differences = worlds.differences(&drawn)?;
        tally.configurations += 1;
        tally.flows += drawn.len();
        for (flow, difference) in trees.iter_mut().zip(differences) {
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
        .map_err(|error| anyhow::anyhow!("nothing drawn: {error}"))
}

/// Counts a mismatch if it recurs, and tells of it.
fn judge(
    worlds: &mut Worlds,
    tally: &mut Tally,
    mut settings: impl ValueTree<Value = Settings>,
    flow: &mut impl ValueTree<Value = Flow>,
    difference: &[String],
) -> Result<()> {
    if !worlds.differ(&settings.current(), &flow.current())? {
        tally.passing += 1;
        let (settings, flow) = (settings.current(), flow.current());
        eprintln!("did not recur: {settings}\n{flow}\n{difference:#?}");
        return Ok(());
    }
    tally.mismatches += 1;
    let drawn = flow.current();
    if tally.mismatches > ENOUGH {
        let settings = settings.current();
        eprintln!("{settings}\n{drawn}\n{difference:#?}");
        return Ok(());
    }
    // Settings that cannot be put in force show nothing.
    let settings = shrink(&mut settings, |simpler| {
        worlds.differ(simpler, &drawn).unwrap_or(false)
    });
    let flow = shrink(flow, |simpler| {
        worlds.differ(&settings, simpler).unwrap_or(false)
    });
    worlds.set(&settings)?;
    let differences = worlds.differences(slice::from_ref(&flow))?;
    eprintln!("{}", case(&settings, &flow, &differences.concat()));
    Ok(())
}

/// A mismatch, as a test of it is written.
fn case(settings: &Settings, flow: &Flow, difference: &[String]) -> String {
    let difference = difference.join("\n//     ");
    format!(
        "// iptables | Interceptor\n//     {difference}\n\
         #[test]\nfn it_has_a_name() {{\n    let settings = {settings};\n    \
         differential(\n        &Setup::with(settings),\n        \
         &[Scenario::new(\"it has a name\", |run| {{\n            \
         {flow}.go(run)?;\n            Ok(())\n        }})],\n    );\n}}\n"
    )
}

/// The world behind iptables, and the one that it is compared with.
struct Worlds([World; 2]);

impl Worlds {
    fn set(&mut self, settings: &Settings) -> Result<()> {
        self.in_each(|world| world.set(settings))
            .map(drop)
            .with_context(|| settings.to_string())
    }

    /// Whether a connection does not go alike under these settings.
    fn differ(&mut self, settings: &Settings, flow: &Flow) -> Result<bool> {
        self.set(settings)?;
        let differences = self.differences(slice::from_ref(flow))?;
        Ok(!differences.concat().is_empty())
    }

    /// What differs between connections, made one after the other.
    fn differences(&mut self, flows: &[Flow]) -> Result<Vec<Vec<String>>> {
        let [iptables, other] = self.in_each(|world| {
            flows
                .iter()
                .map(|flow| see(world, flow))
                .collect::<Result<Vec<_>>>()
        })?;
        let both = iptables.iter().zip(&other);
        Ok(both
            .map(|(iptables, other)| scenario::compare(iptables, other))
            .collect())
    }

    /// Works in both worlds at once.
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

fn see(world: &World, flow: &Flow) -> Result<Seen> {
    let seen = scenario::observe(world, |run| flow.go(run));
    world.actor(flow.who())?.must(&Request::CloseAll)?;
    Ok(seen)
}
