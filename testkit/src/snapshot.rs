//! Compares whole outputs of commands with files in `tests/snapshots`.
//!
//! After an intended change, `SNAPSHOTS=overwrite cargo xtask test` writes the files; review their diff.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result};
use regex::Regex;
use snapbox::{Assert, Data, Redactions};

use crate::command::output;

/// The environment variable that selects what a difference does.
const ACTION: &str = "SNAPSHOTS";

/// Texts that differ from run to run, as regular expressions. A group `redacted` selects a part of the
/// match.
const VOLATILE: [(&str, &str); 9] = [
    ("[TIMESTAMP]", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
    ("[TIME]", r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3}"),
    ("[AGE]", r"(?m)( |, )(?<redacted>\d+s)( |$)"),
    ("[COOKIE]", r#"netns_cookie"?: ?(?<redacted>\d+)"#),
    ("[ID]", r#"cgroup_id"?: ?(?<redacted>\d+)"#),
    ("[DIGEST]", r#""?network"?: ?(?<redacted>\d+)"#),
    ("[PID]", r#"(interceptor-tes |"pid":)(?<redacted>\d+)"#),
    ("[PORT]", r"10\.1\.0\.[12]:(?<redacted>[3-6]\d{4})"),
    ("[VERSION]", r"\b0\.1\.0\b"),
];

/// Compares with snapshots, with the texts of one test replaced.
#[derive(Debug)]
pub struct Snapshots {
    redactions: Redactions,
}

impl Snapshots {
    /// `own` are texts that differ from run to run, and what replaces each: `[NAME]`.
    pub fn new(own: &[(&'static str, String)]) -> Result<Self> {
        let mut redactions = Redactions::new();
        for (placeholder, text) in own {
            redactions.insert(placeholder, text.clone())?;
        }
        for (placeholder, pattern) in VOLATILE {
            redactions.insert(placeholder, Regex::new(pattern)?)?;
        }
        Ok(Self { redactions })
    }

    /// Runs a command, and compares its output and its exit code with the snapshot `name`. It has no
    /// environment variables except `PATH`: `--help` shows the values of others.
    ///
    /// # Panics
    ///
    /// If they differ.
    pub fn check(&self, name: &str, command: &mut Command) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let output = output(command.env_clear().env("PATH", path), "");
        let output = output.with_context(|| name.to_owned())?;
        self.compare(name, &text(&output));
        Ok(())
    }

    /// Compares a text with the snapshot `name`.
    ///
    /// # Panics
    ///
    /// If they differ.
    pub fn compare(&self, name: &str, text: &str) {
        Assert::new()
            .action_env(ACTION)
            .redact_with(self.redactions.clone())
            .eq(without_columns(text), Data::read_from(&file(name), None));
    }
}

fn file(name: &str) -> PathBuf {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/snapshots");
    snapshots.join(format!("{name}.txt"))
}

/// Columns are as wide as their longest text, which may differ from run to run: two spaces between them.
fn without_columns(text: &str) -> String {
    let line = |line: &str| {
        let words = line.trim_start();
        let indent = &line[..line.len() - words.len()];
        let columns: Vec<_> = words.split("  ").filter(|part| !part.is_empty()).collect();
        let columns: Vec<_> = columns.iter().map(|part| part.trim()).collect();
        format!("{indent}{}\n", columns.join("  "))
    };
    text.lines().map(line).collect()
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.stderr.is_empty() {
        text += "--- standard error\n";
        text += &String::from_utf8_lossy(&output.stderr);
    }
    match output.status.code() {
        Some(0) => text,
        Some(code) => format!("{text}--- exit code {code}\n"),
        None => format!("{text}--- ended by a signal\n"),
    }
}
