//! Running a group's cases in every world.

use std::{fs, path::Path, thread};

use anyhow::{Context as _, Result};

use super::{
    case::{Case, Group},
    defence::Defence,
    outcome::Outcome,
    scene::Scene,
    table,
};

/// Makes every attempt in every world.
///
/// # Panics
///
/// If an outcome is not the expected one, if Interceptor is weaker than iptables, if strict mode is
/// weaker than either, or if the table in
/// `SECURITY.md` shows other outcomes.
pub(crate) fn check(group: &Group) {
    let measured: Vec<_> = thread::scope(|scope| {
        let worlds = Defence::ALL.map(|defence| scope.spawn(move || measure(defence, group)));
        worlds.map(|world| world.join().expect("a world")).into()
    });
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    for (number, case) in group.cases.iter().enumerate() {
        let outcomes: Vec<_> = measured.iter().map(|all| &all[number]).collect();
        failures.extend(judge(case, &outcomes));
        rows.push(table::Row {
            name: case.name,
            who: case.who,
            outcomes: outcomes.iter().map(|outcome| text(outcome)).collect(),
        });
    }
    assert!(
        failures.is_empty(),
        "{}:\n{}",
        group.title,
        failures.join("\n")
    );
    table::compare(group.title, &rows);
}

fn text(outcome: &Result<Outcome>) -> String {
    match outcome {
        Ok(outcome) => outcome.to_string(),
        Err(error) => format!("error: {error:#}"),
    }
}

/// The outcomes of all cases in one world. A case that changes the world gets one of its own.
fn measure(defence: Defence, group: &Group) -> Vec<Result<Outcome>> {
    let mut shared = None;
    group
        .cases
        .iter()
        .map(|case| {
            let kept = shared.take().filter(|_| !case.changes_world);
            let scene = match kept {
                Some(scene) => scene,
                None => Scene::new(defence, &group.setup)?,
            };
            let outcome = attempt(&scene, case);
            if !case.changes_world && scene.reset().is_ok() {
                shared = Some(scene);
            }
            outcome
        })
        .collect()
}

fn attempt(scene: &Scene, case: &Case) -> Result<Outcome> {
    scene.forget_packets()?;
    (case.act)(scene).with_context(|| case.name)
}

/// What is wrong with the outcomes of a case.
fn judge(case: &Case, outcomes: &[&Result<Outcome>]) -> Vec<String> {
    let mut failures = Vec::new();
    for (defence, outcome) in Defence::ALL.into_iter().zip(outcomes) {
        let expected = case.expected(defence);
        if !outcome.as_ref().is_ok_and(|outcome| outcome == expected) {
            let (who, name, outcome) = (case.who, case.name, text(outcome));
            failures.push(format!(
                "{who}, {name}: {defence}: {outcome}, expected: {expected}"
            ));
        }
    }
    if let [Ok(iptables), Ok(interceptor), Ok(strict)] = outcomes {
        failures.extend(compare(case, iptables, interceptor, strict));
    }
    failures
}

/// What is wrong with the outcomes beside each other: strict mode is never weaker than without it or
/// than iptables, and Interceptor is not either, except as documented.
fn compare(
    case: &Case,
    iptables: &Outcome,
    interceptor: &Outcome,
    strict: &Outcome,
) -> Vec<String> {
    let mut failures = Vec::new();
    if strict.is_weaker_than(iptables) || strict.is_weaker_than(interceptor) {
        failures.push("strict mode is weaker");
    }
    failures.extend(match (case.known, interceptor.is_weaker_than(iptables)) {
        (None, true) => Some("weaker than iptables"),
        (Some(_), false) => Some("no longer weaker: remove `known` and its row"),
        (Some(row), true) if !is_documented(row) => Some("docs/differences.md has no such row"),
        _ => None,
    });
    failures
        .iter()
        .map(|what| format!("{}: {what}", case.name))
        .collect()
}

/// Whether `docs/differences.md` has a row that starts like this.
fn is_documented(row: &str) -> bool {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let text = fs::read_to_string(file).expect("docs/differences.md");
    text.lines()
        .any(|line| line.starts_with(&format!("| {row}")))
}
