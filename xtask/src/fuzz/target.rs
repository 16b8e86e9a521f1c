//! One fuzz target, and a run of it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::outcome::Outcome;
use crate::{command::say, paths};

/// Limits of one input: an endless loop, and memory in MiB.
const TIMEOUT_SECONDS: u32 = 10;
const MEMORY: u32 = 2048;

pub(super) struct Target {
    name: String,
    program: PathBuf,
}

impl Target {
    /// A target that was built into this directory.
    pub(super) fn new(name: &str, programs: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: programs.join(name),
        }
    }

    /// Runs until a finding, or for this time.
    pub(super) fn run(&self, seconds: u32) -> Result<Outcome> {
        let Self { name, program } = self;
        let dir = super::output_dir();
        let found = created(&dir.join("corpus").join(name))?;
        let artifacts = created(&super::directory().join("artifacts").join(name))?;
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let status = Command::new(program)
            .current_dir(paths::root())
            .arg("-print_final_stats=1")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={TIMEOUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            // With a slash at its end: the start of the names of files.
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            // New inputs go to the first directory.
            .arg(&found)
            .arg(super::directory().join("corpus").join(name))
            .stderr(file)
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        say(&format!("fuzz: {name}: {status}"));
        let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        Ok(Outcome::new(name, program, status.success(), &text))
    }
}

fn created(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir.to_owned())
}
