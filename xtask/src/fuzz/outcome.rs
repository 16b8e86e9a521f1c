//! What a run of a target has found, from libFuzzer's log.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::paths;

/// libFuzzer's words before the path of a finding's input.
const WRITTEN: &str = "Test unit written to ";

/// The outcome of a run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    target: String,
    /// Missing if libFuzzer did not start.
    executions: Option<u64>,
    /// Edges of the code that were reached.
    coverage: Option<u64>,
    /// Inputs that reach different code.
    corpus: Option<u64>,
    finding: Option<Finding>,
}

/// An input for which a property does not hold, or a run that failed for another reason.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    target: String,
    program: PathBuf,
    input: Option<PathBuf>,
    message: String,
}

impl Outcome {
    /// Of a run of `program`, by its log.
    pub(super) fn new(target: &str, program: &Path, succeeded: bool, log: &str) -> Self {
        let last_number = |label: &str| log.lines().rev().find_map(|line| number(line, label));
        Self {
            target: target.to_owned(),
            executions: last_number("stat::number_of_executed_units:"),
            coverage: last_number(" cov:"),
            corpus: last_number(" corp:"),
            finding: (!succeeded).then(|| Finding::new(target, program, log)),
        }
    }

    pub(super) const fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }
}

/// The number after a label, up to what is not a digit.
fn number(line: &str, label: &str) -> Option<u64> {
    let (_, rest) = line.split_once(label)?;
    let rest = rest.trim_start();
    let end = rest.find(|character: char| !character.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

impl Finding {
    fn new(target: &str, program: &Path, log: &str) -> Self {
        let input = log.lines().rev().find_map(|line| line.split_once(WRITTEN));
        Self {
            target: target.to_owned(),
            program: from_root(program),
            input: input.map(|(_, path)| from_root(Path::new(path))),
            message: message(log),
        }
    }
}

/// The panic, or what libFuzzer says.
fn message(log: &str) -> String {
    const LINES: usize = 6;
    let is_start = |line: &str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
    let lines = log.lines().skip_while(|line| !is_start(line));
    let lines = lines.take_while(|line| !line.starts_with("stack backtrace"));
    let lines = lines.take(LINES);
    let text: Vec<_> = lines.map(|line| format!("  {line}")).collect();
    text.join("\n")
}

fn from_root(path: &Path) -> PathBuf {
    path.strip_prefix(paths::root()).unwrap_or(path).to_owned()
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.display();
        writeln!(formatter, "{}: a finding:\n{}", self.target, self.message)?;
        match &self.input {
            Some(input) => {
                let input = input.display();
                write!(
                    formatter,
                    "  input: {input}\n  repeat it: {program} {input}"
                )
            }
            None => write!(formatter, "  no input: see target/fuzz/{}.log", self.target),
        }
    }
}

/// A row for each target.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let header = ["TARGET", "EXECUTIONS", "COVERAGE", "CORPUS", "FINDINGS"].map(str::to_owned);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows = outcomes.iter().map(|outcome| {
        [
            outcome.target.clone(),
            number(outcome.executions),
            number(outcome.coverage),
            number(outcome.corpus),
            u8::from(outcome.finding.is_some()).to_string(),
        ]
    });
    let lines = std::iter::once(header).chain(rows).map(|cells| {
        let [target, numbers @ ..] = cells;
        let numbers: Vec<_> = numbers.iter().map(|cell| format!("{cell:>11}")).collect();
        format!("{target:<17}{}", numbers.concat())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Seed: 1
#2\tINITED cov: 100 ft: 120 corp: 1/2b exec/s: 0 rss: 31Mb
#4096\tREDUCE cov: 371 ft: 1204 corp: 87/9Kb lim: 4096 exec/s: 2048 rss: 60Mb L: 90/110 MS: 1
";

    #[test]
    fn the_last_numbers_count() {
        let log = format!(
            "{LOG}#5000\tDONE   cov: 372 ft: 1210 corp: 88/9Kb\n\
            stat::number_of_executed_units: 5000\nstat::peak_rss_mb: 61\n"
        );
        let outcome = Outcome::new("wire", Path::new("/bin/wire"), true, &log);
        let row = "wire                    5000        372         88          0";
        assert_eq!(table(&[outcome]).lines().nth(1), Some(row));
    }

    #[test]
    fn a_finding_names_its_input_and_how_to_repeat_it() {
        let root = paths::root().display();
        let log = format!(
            "{LOG}\nthread '<unnamed>' (7) panicked at interceptor/src/fuzzing/wire.rs:9:5:\nnot equal\n\
             ==7== ERROR: libFuzzer: deadly signal\n\
             artifact_prefix='x'; Test unit written to {root}/fuzz/artifacts/wire/crash-1\n"
        );
        let program = paths::root().join("target/fuzz/t/release/wire");
        let outcome = Outcome::new("wire", &program, false, &log);
        let text = outcome.finding().expect("a finding").to_string();
        assert!(text.contains("  not equal\n"), "{text}");
        let repeat = "repeat it: target/fuzz/t/release/wire fuzz/artifacts/wire/crash-1";
        assert!(text.ends_with(repeat), "{text}");
        assert_eq!(outcome.coverage, Some(371));
    }

    #[test]
    fn a_target_that_does_not_start_is_a_finding_without_input() {
        let outcome = Outcome::new("wire", Path::new("/bin/wire"), false, "no such corpus\n");
        let text = outcome.finding().expect("a finding").to_string();
        assert!(text.ends_with("see target/fuzz/wire.log"), "{text}");
    }
}
