//! The demo shows that everything is as behind iptables, and leaves nothing when it is interrupted.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Lines, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{cgroup, command::own_binary, spawn::spawn};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A running demo, or the soak. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    progress: Lines<BufReader<Box<dyn Read>>>,
}

impl Running {
    fn start() -> Result<Self> {
        let mut child = start("demo", &[])?;
        let progress = Box::new(child.stderr.take().context("stderr")?);
        Ok(Self::with(child, progress))
    }

    /// The demo of the injection, which shows its steps on stdout.
    fn start_injection() -> Result<Self> {
        let mut child = start("demo", &["--inject"])?;
        let progress = Box::new(child.stdout.take().context("stdout")?);
        Ok(Self::with(child, progress))
    }

    /// The soak, which shows its progress on stderr.
    pub(crate) fn start_soak(options: &[&str]) -> Result<Self> {
        let mut child = start("soak", options)?;
        let progress = Box::new(child.stderr.take().context("stderr")?);
        Ok(Self::with(child, progress))
    }

    fn with(child: Child, progress: Box<dyn Read>) -> Self {
        let progress = BufReader::new(progress).lines();
        Self { child, progress }
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it prints `what` for the `count`th time.
    pub(crate) fn await_progress(&mut self, what: &str, count: usize) -> Result<()> {
        for _ in 0..count {
            let matches =
                |line: &io::Result<String>| line.as_ref().is_ok_and(|line| line.contains(what));
            let found = self.progress.find(matches);
            found.with_context(|| format!("it does not print: {what}"))??;
        }
        Ok(())
    }

    /// Its cgroups, and its directories in `/run`.
    fn leftovers(&self) -> Result<Vec<String>> {
        let prefix = format!("{}{}-", cgroup::PREFIX, self.child.id());
        let mut found = Vec::new();
        for directory in [cgroup::mount()?, PathBuf::from("/run")] {
            for entry in fs::read_dir(directory)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                found.extend(name.starts_with(&prefix).then_some(name));
            }
        }
        Ok(found)
    }

    /// Waits until it prints `what` for the `count`th time, interrupts it, and expects that
    /// nothing is left.
    pub(crate) fn interrupt(&mut self, signal: Signal, what: &str, count: usize) -> Result<()> {
        self.await_progress(what, count)?;
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)?;
        let status = self.child.wait()?;
        ensure!(status.code() == Some(130), "{what}: {status}");
        let left = self.leftovers()?;
        ensure!(left.is_empty(), "{what}: {left:?}");
        Ok(())
    }
}

fn start(program: &str, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(own_binary(program)?);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(spawn(command)?)
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn everything_is_as_behind_iptables() -> Result<()> {
    let mut demo = Running::start()?;
    let mut table = String::new();
    let mut output = demo.child.stdout.take().context("stdout")?;
    output.read_to_string(&mut table)?;
    let status = demo.child.wait()?;
    ensure!(status.success(), "{status}:\n{table}");
    ensure!(!table.contains('\u{1b}'), "colours, and no terminal");
    Ok(())
}

#[test]
fn nothing_is_left_when_it_is_interrupted() -> Result<()> {
    for (signal, what, count) in [
        (Signal::SIGINT, "setting up", 1),
        (Signal::SIGINT, "interceptor attach", 1),
        (Signal::SIGTERM, "connections", 2),
    ] {
        Running::start()?.interrupt(signal, what, count)?;
    }
    Ok(())
}

#[test]
fn nothing_is_left_when_the_injection_is_interrupted() -> Result<()> {
    for (signal, what) in [
        (Signal::SIGINT, "the pod's containers start"),
        (Signal::SIGTERM, "the webhook's certificate is replaced"),
    ] {
        Running::start_injection()?.interrupt(signal, what, 1)?;
    }
    Ok(())
}
