//! `decide` against a model of iptables: the same settings, once as flags that the product parses
//! and compiles, once as rules that the model loads; then connection after connection.

mod easy_to_get_wrong;
mod flow;
mod product;

use std::{fmt, ops::Range, thread};

use anyhow::{Context as _, Result, bail};
use flow::{Connection, connections};
use interceptor_testkit::{
    actor::protocol::Family,
    model::Firewall,
    random::{fixed_seed, fresh_seed, number, report, runner, settings, shrink},
    rules,
    settings::Settings,
};
use product::Product;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

/// The number of connections under each settings.
const CONNECTIONS: u64 = 250;

/// Of a hundred flows of either direction, the minimum that are captured, and that pass.
const MIN_PERCENT: u64 = 5;

/// `INTERCEPTOR_MODEL_FLOWS` is the number of flows; `INTERCEPTOR_SEED` replays a run.
#[test]
fn decide_matches_the_rules() -> Result<()> {
    run(fixed_seed()?, 1_000_000)
}

#[test]
fn decide_matches_the_rules_from_a_fresh_seed() -> Result<()> {
    run(fresh_seed()?, 250_000)
}

fn run(seed: u64, flows: u64) -> Result<()> {
    let flows = number("INTERCEPTOR_MODEL_FLOWS", flows)?;
    let configurations = flows.div_ceil(CONNECTIONS);
    let replay = format!("INTERCEPTOR_SEED={seed} INTERCEPTOR_MODEL_FLOWS={flows}");
    report(&format!("comparing: {replay}"))?;
    let half = configurations / 2;
    let tally = thread::scope(|scope| {
        let first = scope.spawn(|| compare(seed, 0..half));
        let second = compare(seed, half..configurations);
        first.join().expect("a comparison").and(second)
    });
    report(&format!(
        "compared {configurations} settings: {tally} ({replay})"
    ))?;
    tally.verify().context(replay)
}

/// The result.
#[derive(Default)]
struct Tally {
    inbound: Count,
    outbound: Count,
    mismatch: Option<String>,
}

/// The counts of a direction's flows.
#[derive(Clone, Copy, Default)]
struct Count {
    captured: u64,
    passed: u64,
}

impl Count {
    fn add(&mut self, is_captured: bool) {
        if is_captured {
            self.captured += 1;
        } else {
            self.passed += 1;
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            captured: self.captured + other.captured,
            passed: self.passed + other.passed,
        }
    }

    /// Whether there are enough of both for a meaningful comparison.
    const fn is_enough(self) -> bool {
        let floor = (self.captured + self.passed) * MIN_PERCENT / 100;
        floor > 0 && self.captured >= floor && self.passed >= floor
    }
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            inbound: self.inbound.and(other.inbound),
            outbound: self.outbound.and(other.outbound),
            mismatch: self.mismatch.or(other.mismatch),
        }
    }

    /// An error if there is a mismatch, or if there could not have been one.
    fn verify(&self) -> Result<()> {
        if let Some(mismatch) = &self.mismatch {
            bail!("{mismatch}");
        }
        if !self.inbound.is_enough() || !self.outbound.is_enough() {
            bail!("{self}: not {MIN_PERCENT}% of either direction captured and passed");
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut count = |direction, Count { captured, passed }| {
            write!(
                formatter,
                "{direction} {captured} captured, {passed} passed"
            )
        };
        count("inbound", self.inbound)?;
        count("; outbound", self.outbound)
    }
}

/// Compares until there is a connection with different results.
fn compare(seed: u64, indices: Range<u64>) -> Tally {
    let mut tally = Tally::default();
    for index in indices {
        let mut dice = runner(seed, index);
        let mut settings = draw(&settings(), &mut dice);
        let both = Both::new(&settings.current());
        let connections = connections();
        for _ in 0..CONNECTIONS {
            let mut tree = draw(&connections, &mut dice);
            let connection = tree.current();
            let count = if connection.is_inbound {
                &mut tally.inbound
            } else {
                &mut tally.outbound
            };
            count.add(both.expected(&connection).is_some());
            if both.differ(&connection) {
                tally.mismatch = Some(describe(&mut settings, &mut tree));
                return tally;
            }
        }
    }
    tally
}

fn draw<S: Strategy>(strategy: &S, dice: &mut TestRunner) -> S::Tree {
    strategy.new_tree(dice).expect("something drawn")
}

fn describe(
    settings: &mut impl ValueTree<Value = Settings>,
    connection: &mut impl ValueTree<Value = Connection>,
) -> String {
    let drawn = connection.current();
    let settings = shrink(settings, |simpler| Both::new(simpler).differ(&drawn));
    let both = Both::new(&settings);
    let connection = shrink(connection, |simpler| both.differ(simpler));
    format!(
        "{settings}\n{connection:?}\niptables: {:?}\ndecide: {:?}",
        both.expected(&connection),
        both.product.verdict(&connection)
    )
}

/// Settings in both forms.
struct Both {
    v4: Firewall,
    /// Without dual-stack there are no rules for IPv6.
    v6: Option<Firewall>,
    product: Product,
    tproxy_mark: u32,
}

impl Both {
    fn new(settings: &Settings) -> Self {
        let load = |family| {
            let rules = rules::input(settings, family).expect("rules");
            Firewall::load(&rules)
        };
        Self {
            v4: load(Family::V4),
            v6: settings.dual_stack.then(|| load(Family::V6)),
            product: Product::new(settings),
            tproxy_mark: settings.tproxy_mark,
        }
    }

    /// The port of the listener that gets the connection, if it is captured.
    fn expected(&self, connection: &Connection) -> Option<u16> {
        let firewall = if connection.destination.is_ipv4() {
            &self.v4
        } else {
            self.v6.as_ref()?
        };
        let mut packet = connection.packet(self.tproxy_mark);
        let outcome = if connection.is_inbound {
            firewall.receive(&mut packet)
        } else {
            firewall.send(&mut packet)
        };
        outcome.captured()
    }

    fn differ(&self, connection: &Connection) -> bool {
        self.expected(connection) != self.product.captured(connection)
    }
}
