//! Running other programs with limits.

use std::{
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

/// Seconds after which a program is killed.
const TIMEOUT_SECONDS: &str = "60";

/// How much of the start and of the end of a failed program's stderr an error has: a verifier's log
/// is long, and its end has the reason.
const EXCERPT_LENGTH: usize = 700;

/// `program`, killed if it takes too long.
#[must_use]
pub fn bounded(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--signal=KILL", TIMEOUT_SECONDS])
        .arg(program.into());
    command
}

/// Runs `command` with `input` on its stdin and returns its stdout. Fails if it fails.
pub fn run(command: &mut Command, input: &str) -> Result<String> {
    let output = output(command, input)?;
    let errors = shortened(&String::from_utf8_lossy(&output.stderr));
    let status = output.status;
    ensure!(status.success(), "{command:?}: {status}: {errors}\n{input}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shortened(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= 2 * EXCERPT_LENGTH {
        return text.to_owned();
    }
    let (start, end) = (
        &characters[..EXCERPT_LENGTH],
        &characters[characters.len() - EXCERPT_LENGTH..],
    );
    let [start, end] = [start, end].map(String::from_iter);
    format!("{start} [...] {end}")
}

/// Runs `command` with `input` on its stdin.
pub fn output(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    // A program that fails early does not read its input: its exit status shows it.
    let mut stdin = child.stdin.take().context("stdin")?;
    let _unread = stdin.write_all(input.as_bytes());
    drop(stdin);
    Ok(child.wait_with_output()?)
}

/// Kernel tests fail without root; they do not skip.
pub fn require_root() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "kernel tests require root: they create namespaces and cgroups"
    );
    Ok(())
}

/// The binary `name` of `interceptor-tests`, which cargo puts into the test's directory.
pub fn own_binary(name: &str) -> Result<PathBuf> {
    let exe = env::current_exe()?;
    let mut directory = exe.parent().context("the test has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("deps has no parent")?;
    }
    let path = directory.join(name);
    let shown = path.display();
    ensure!(
        path.exists(),
        "{shown} is missing: build it with `cargo build -p interceptor-tests --bins`"
    );
    Ok(path)
}
