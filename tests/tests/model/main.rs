//! `decide` against a model of iptables: the same settings, once as flags that the product parses
//! and compiles, once as rules that the model loads; then connection after connection.

mod easy_to_get_wrong;
mod flow;
mod product;

use std::{ops::Range, thread};

use flow::{Connection, connections};
use interceptor_tests::{
    agent::protocol::Family,
    model::Firewall,
    random::{number, report, runner, seed, settings, shrink},
    rules,
    settings::Settings,
};
use product::Product;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};

/// How many connections are tried under each settings.
const CONNECTIONS: u64 = 250;

/// `INTERCEPTOR_MODEL_FLOWS` is how many, `INTERCEPTOR_SEED` from which seed.
#[test]
fn decide_is_what_the_rules_do() {
    let seed = seed().expect("a seed");
    let flows = number("INTERCEPTOR_MODEL_FLOWS", 1_000_000).expect("a number of flows");
    let configurations = flows.div_ceil(CONNECTIONS);
    let half = configurations / 2;
    let tally = thread::scope(|scope| {
        let first = scope.spawn(|| compare(seed, 0..half));
        let second = compare(seed, half..configurations);
        first.join().expect("a comparison").and(second)
    });
    let Tally {
        flows, captured, ..
    } = tally;
    report(&format!(
        "compared {configurations} settings, {flows} flows, {captured} of them captured \
         (INTERCEPTOR_SEED={seed})"
    ))
    .expect("an output");
    assert!(
        tally.mismatch.is_none(),
        "{}",
        tally.mismatch.unwrap_or_default()
    );
}

/// What came of comparing.
#[derive(Default)]
struct Tally {
    flows: u64,
    captured: u64,
    mismatch: Option<String>,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            flows: self.flows + other.flows,
            captured: self.captured + other.captured,
            mismatch: self.mismatch.or(other.mismatch),
        }
    }
}

/// Compares until there is a connection on which both do not agree.
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
            tally.flows += 1;
            tally.captured += u64::from(both.expected(&connection).is_some());
            if both.differ(&connection) {
                tally.mismatch = Some(tell(&mut settings, &mut tree));
                return tally;
            }
        }
    }
    tally
}

fn draw<S: Strategy>(strategy: &S, dice: &mut TestRunner) -> S::Tree {
    strategy.new_tree(dice).expect("something drawn")
}

fn tell(
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

/// Settings in both readings.
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
