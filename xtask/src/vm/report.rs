//! The results of all kernels: printed, and written into the documentation.

use std::{collections::BTreeMap, fmt::Write as _, fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Expectation, Kernel, outcome::Outcome, suite::Suite};
use crate::{
    command::{read, say},
    paths,
};

/// The document, and the lines around its generated part.
const DOCUMENT: &str = "docs/kernels.md";
const START: &str = "<!-- written by `cargo xtask test-vm --write-docs`: do not edit -->\n";
const END: &str = "<!-- end -->\n";

/// The kernel truncates the names of programs.
const NAME_LENGTH: usize = 15;

/// The results of one run.
pub(super) struct Report<'a> {
    pub(super) suite: &'a Suite,
    pub(super) results: &'a [(&'static Kernel, Result<Outcome>)],
}

impl Report<'_> {
    /// Prints the results; fails if one is not as expected.
    pub(super) fn print(&self) -> Result<()> {
        println!("\n{}", self.text()?);
        for (kernel, result) in self.results {
            match result {
                Ok(outcome) => {
                    for test in outcome.tests("FAILED") {
                        println!("kernel {}: failed: {test}", kernel.name);
                    }
                }
                Err(error) => println!("kernel {}: {error:#}", kernel.name),
            }
        }
        let missing = self.unverified()?;
        ensure!(
            missing.is_empty(),
            "the smoke test (testkit/src/smoke.rs) does not load these programs, so their instructions \
             are unknown: {}",
            missing.join(", ")
        );
        let failed: Vec<_> = self
            .results
            .iter()
            .filter(|(kernel, result)| !self.is_expected(kernel, result))
            .map(|(kernel, _)| kernel.name)
            .collect();
        ensure!(
            failed.is_empty(),
            "not as expected on the kernels {}",
            failed.join(", ")
        );
        Ok(())
    }

    /// Writes the results into the documentation.
    pub(super) fn write_document(&self) -> Result<()> {
        let path = paths::root().join(DOCUMENT);
        let document = fs::read_to_string(&path).context(DOCUMENT)?;
        let parts = document
            .split_once(START)
            .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) =
            parts.with_context(|| format!("{DOCUMENT} lacks the lines around the results"))?;
        fs::write(
            &path,
            format!("{before}{START}\n{}\n{END}{after}", self.text()?),
        )?;
        say(&format!("written: {DOCUMENT}"));
        Ok(())
    }

    fn is_expected(&self, kernel: &Kernel, result: &Result<Outcome>) -> bool {
        let Ok(outcome) = result else {
            return false;
        };
        match kernel.expectation {
            Expectation::Lacks(_) => true,
            Expectation::Works => {
                outcome.exit_code == 0 && outcome.tests("ok").len() == self.suite.tests.len()
            }
        }
    }

    fn text(&self) -> Result<String> {
        let date = read(Command::new("date").args(["--utc", "+%F"]))?;
        let mut text = format!("Run on {}.\n\n", date.trim());
        text += &self.kernels()?;
        text += "\nTests that did not run, on each kernel:\n\n";
        writeln!(text, "| tests | number | reason |\n|---|---|---|")?;
        for (unfit, number) in &self.suite.unfit {
            writeln!(text, "| `{}` | {number} | {} |", unfit.tests, unfit.reason)?;
        }
        if self.suite.not_chosen > 0 {
            let number = self.suite.not_chosen;
            let reason = "not in the selection: emulation is slow (`--all` runs them)";
            writeln!(text, "| others | {number} | {reason} |")?;
        }
        text +=
            "\nInstructions that the verifier processed; its limit is 1,000,000 per program:\n\n";
        text += &self.verified()?;
        Ok(text)
    }

    fn kernels(&self) -> Result<String> {
        let mut text =
            "| kernel | version | smoke test | kernel tests |\n|---|---|---|---|\n".to_owned();
        for (kernel, result) in self.results {
            let (version, smoke, tests) = match result {
                Ok(outcome) => (outcome.version(), smoke(kernel, outcome), tests(outcome)),
                Err(_) => ("unknown".to_owned(), "failed".to_owned(), String::new()),
            };
            writeln!(text, "| {} | {version} | {smoke} | {tests} |", kernel.name)?;
        }
        Ok(text)
    }

    /// A row per program, a column per kernel.
    fn verified(&self) -> Result<String> {
        let outcomes: Vec<_> = self.working().collect();
        let mut rows = BTreeMap::new();
        for (column, (_, outcome)) in outcomes.iter().enumerate() {
            for (program, count) in outcome.verified() {
                let row = rows
                    .entry(program)
                    .or_insert_with(|| vec![String::new(); outcomes.len()]);
                row[column] = count.to_string();
            }
        }
        let names: Vec<_> = outcomes.iter().map(|(name, _)| *name).collect();
        let mut text = format!("| program | {} |\n", names.join(" | "));
        writeln!(text, "|---|{}", "---|".repeat(names.len()))?;
        for (program, counts) in rows {
            writeln!(text, "| `{program}` | {} |", counts.join(" | "))?;
        }
        Ok(text)
    }

    fn working(&self) -> impl Iterator<Item = (&'static str, &Outcome)> {
        self.results
            .iter()
            .filter(|(kernel, _)| matches!(kernel.expectation, Expectation::Works))
            .filter_map(|(kernel, result)| Some((kernel.name, result.as_ref().ok()?)))
    }

    /// The programs of the object that were not loaded on some kernel.
    fn unverified(&self) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        let programs = programs()?;
        for (kernel, outcome) in self.working() {
            let verified = outcome.verified();
            let is_missing = |program: &&String| {
                let name = &program[..program.len().min(NAME_LENGTH)];
                verified.iter().all(|(verified, _)| *verified != name)
            };
            let unverified = programs.iter().filter(is_missing);
            missing.extend(unverified.map(|program| format!("{program} ({kernel})")));
        }
        Ok(missing)
    }
}

fn smoke(kernel: &Kernel, outcome: &Outcome) -> String {
    match kernel.expectation {
        Expectation::Lacks(what) => format!("refused: `interceptor check` reports {what}"),
        Expectation::Works if outcome.verified().is_empty() => "failed".to_owned(),
        Expectation::Works => "passed".to_owned(),
    }
}

fn tests(outcome: &Outcome) -> String {
    let [passed, failed] = ["ok", "FAILED"].map(|result| outcome.tests(result).len());
    if passed + failed == 0 {
        String::new()
    } else {
        format!("{passed} passed, {failed} failed")
    }
}

/// The names of the BPF object's programs: functions in sections of their own.
fn programs() -> Result<Vec<String>> {
    let object = paths::target().join("ebpf/interceptor.o");
    let readelf = |what| read(Command::new("readelf").args(["--wide", what]).arg(&object));
    // "[ 2] .text PROGBITS …"
    let sections = readelf("--sections")?;
    let text = sections
        .lines()
        .find(|line| line.contains(" .text "))
        .and_then(|line| line.trim_start_matches([' ', '[']).split(']').next())
        .context("the BPF object has no section .text")?
        .to_owned();
    // "NUMBER VALUE SIZE FUNC GLOBAL DEFAULT SECTION NAME"
    let symbols = readelf("--symbols")?;
    let words = symbols
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(words
        .filter(|words| words.len() == 8 && words[3..5] == ["FUNC", "GLOBAL"])
        .filter(|words| words[6] != text)
        .map(|words| words[7].to_owned())
        .collect())
}
