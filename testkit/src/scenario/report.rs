//! Differences between two worlds.

use std::{env, fmt::Write as _};

use anyhow::Result;

use super::{Observed, Run, Scenario};
use crate::world::World;

/// The maximum number of reported details per scenario: once the outcome differs, everything else
/// does.
const MAX_DETAILS: usize = 6;

/// A scenario with a difference between the worlds, or an unexpected outcome.
pub(super) struct Difference {
    scenario: String,
    details: Vec<String>,
}

/// Runs every scenario in both worlds.
pub(super) fn differences(worlds: &[World; 2], scenarios: &[Scenario]) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for scenario in scenarios {
        let [iptables, other] = worlds.each_ref().map(|world| play(world, scenario));
        let mut details = compare(&iptables.observations, &other.observations);
        for run in [iptables, other] {
            let mechanism = run.world().mechanism();
            let surprises = run.surprises.into_iter();
            details.extend(surprises.map(|surprise| format!("{mechanism:?}: {surprise}")));
        }
        for world in worlds {
            world.reset()?;
        }
        if !details.is_empty() {
            let scenario = scenario.name.clone();
            differences.push(Difference { scenario, details });
        }
    }
    Ok(differences)
}

fn play<'w>(world: &'w World, scenario: &Scenario) -> Run<'w> {
    let mut run = Run::new(world);
    if let Err(error) = (scenario.play)(&mut run) {
        run.surprises.push(format!("{error:#}"));
    }
    if env::var_os("INTERCEPTOR_TEST_SHOW").is_some() {
        eprintln!(
            "{:?} {}: {:#?}",
            world.mechanism(),
            scenario.name,
            run.observations
        );
    }
    run
}

/// The observations of `play` in a world.
///
/// An error of the harness is not an observation: two worlds that both fail would look equal.
pub fn observe(world: &World, play: impl Fn(&mut Run<'_>) -> Result<()>) -> Result<Observed> {
    let mut run = Run::new(world);
    play(&mut run)?;
    Ok(Observed {
        outcome: run.outcome().to_owned(),
        observations: run.observations,
    })
}

/// The differences between observations.
#[must_use]
pub fn compare(iptables: &[(String, String)], other: &[(String, String)]) -> Vec<String> {
    let mut details = Vec::new();
    for index in 0..iptables.len().max(other.len()) {
        let (left, right) = (iptables.get(index), other.get(index));
        if left != right {
            let show = |observations: Option<&(String, String)>| {
                observations.map_or("nothing".to_owned(), |(what, value)| {
                    format!("{what}: {value}")
                })
            };
            details.push(format!("{:<60} | {}", show(left), show(right)));
        }
    }
    details
}

/// All differences, as text.
pub(super) fn text(differences: &[Difference], of: usize) -> String {
    let mut text = format!(
        "{} of {of} scenarios differ (iptables | other):\n",
        differences.len()
    );
    for Difference { scenario, details } in differences {
        // Writing to a string does not fail.
        let _written = writeln!(text, "  {scenario}");
        for detail in details.iter().take(MAX_DETAILS) {
            let _written = writeln!(text, "      {detail}");
        }
        if let Some(more) = details.len().checked_sub(MAX_DETAILS + 1) {
            let _written = writeln!(text, "      and {} more", more + 1);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observations(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(what, value): &(&str, &str)| ((*what).to_owned(), (*value).to_owned());
        list.iter().map(own).collect()
    }

    #[test]
    fn equal_observations_do_not_differ() {
        let list = observations(&[("connect", "ok"), ("peer", "10.2.0.9:80")]);
        assert!(compare(&list, &list).is_empty());
    }

    #[test]
    fn another_value_and_a_missing_one_differ() {
        let iptables = observations(&[("connect", "ok"), ("peer", "10.2.0.9:80")]);
        let other = observations(&[("connect", "ECONNREFUSED")]);
        let details = compare(&iptables, &other);
        assert_eq!(details.len(), 2);
        assert!(details[0].contains("connect: ok"));
        assert!(details[1].contains("nothing"));
    }
}
