//! The differential test: the same steps in two worlds, whose observations must be equal.
//!
//! `INTERCEPTOR_TEST_WORLD=iptables` compares iptables with itself, which shows whether a scenario
//! is deterministic; `INTERCEPTOR_TEST_SHOW=1` prints all observations.

mod dial;
mod query;
mod report;
mod run;

use std::env;

use anyhow::Result;
pub use dial::{ConnectMode, Dial, address};
pub use query::{Query, Sending, receive};
pub use report::{compare, observe};
pub use run::Run;

use crate::world::{Mechanism, Setup, World};

/// Names and values of observations.
pub type Observations = Vec<(String, String)>;

/// All observations of one connection or query.
pub struct Observed {
    /// The server that responded, or the errno.
    pub outcome: String,
    /// The details.
    pub observations: Observations,
}

type Play = Box<dyn Fn(&mut Run<'_>) -> Result<()>>;

/// Steps, with a name.
pub struct Scenario {
    name: String,
    play: Play,
}

impl Scenario {
    /// The scenario `name`: `play` executes the steps and records observations.
    pub fn new(
        name: impl Into<String>,
        play: impl Fn(&mut Run<'_>) -> Result<()> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            play: Box::new(play),
        }
    }

    /// One dial with the expected `outcome`: the server that responds, or the errno.
    #[must_use]
    pub fn dial(name: &str, outcome: &'static str, dial: Dial) -> Self {
        Self::new(format!("{name} ({})", dial.to()), move |run| {
            dial.execute(run)?;
            run.expect_outcome(outcome);
            Ok(())
        })
    }

    /// One query over UDP with the expected `outcome`: the server that responds, or the errno.
    #[must_use]
    pub fn query(name: &str, outcome: &'static str, query: Query) -> Self {
        Self::new(format!("{name} ({})", query.what()), move |run| {
            query.execute(run)?;
            run.expect_outcome(outcome);
            Ok(())
        })
    }
}

/// Runs every scenario in both worlds of `setup`, and panics with all differences.
#[track_caller]
pub fn differential(setup: &Setup, scenarios: &[Scenario]) {
    let result = worlds(setup).and_then(|worlds| report::differences(&worlds, scenarios));
    match result {
        Ok(differences) if differences.is_empty() => {}
        Ok(differences) => panic!("{}", report::text(&differences, scenarios.len())),
        Err(error) => panic!("{error:#?}"),
    }
}

/// The iptables world and the one to compare: Interceptor's, or, to test the tests themselves
/// (`INTERCEPTOR_TEST_WORLD=iptables`), another one of iptables.
pub fn worlds(setup: &Setup) -> Result<[World; 2]> {
    let other = match env::var("INTERCEPTOR_TEST_WORLD").as_deref() {
        Ok("iptables") => Mechanism::Iptables,
        _ => Mechanism::Interceptor,
    };
    Ok([
        World::new(Mechanism::Iptables, setup)?,
        World::new(other, setup)?,
    ])
}
