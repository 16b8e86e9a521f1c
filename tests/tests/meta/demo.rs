//! The demo shows that everything is as behind iptables, and leaves nothing when it is interrupted.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Lines, Read as _},
    process::{Child, ChildStderr, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{cgroup, command::own_binary, spawn::spawn};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A running demo. Killed when dropped.
struct Demo {
    child: Child,
    progress: Lines<BufReader<ChildStderr>>,
}

impl Demo {
    fn start() -> Result<Self> {
        let mut command = Command::new(own_binary("demo")?);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command)?;
        let progress = BufReader::new(child.stderr.take().context("stderr")?).lines();
        Ok(Self { child, progress })
    }

    /// Waits until it prints `what` for the `count`th time.
    fn await_progress(&mut self, what: &str, count: usize) -> Result<()> {
        for _ in 0..count {
            let matches =
                |line: &io::Result<String>| line.as_ref().is_ok_and(|line| line.contains(what));
            let found = self.progress.find(matches);
            found.with_context(|| format!("the demo does not print: {what}"))??;
        }
        Ok(())
    }

    fn cgroups(&self) -> Result<Vec<String>> {
        let prefix = format!("{}{}-", cgroup::PREFIX, self.child.id());
        let names = fs::read_dir(cgroup::mount()?)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        Ok(names
            .into_iter()
            .filter(|name| name.starts_with(&prefix))
            .collect())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn everything_is_as_behind_iptables() -> Result<()> {
    let mut demo = Demo::start()?;
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
        let mut demo = Demo::start()?;
        demo.await_progress(what, count)?;
        kill(Pid::from_raw(demo.child.id().cast_signed()), signal)?;
        let status = demo.child.wait()?;
        ensure!(status.code() == Some(130), "{what}: {status}");
        let left = demo.cgroups()?;
        ensure!(left.is_empty(), "{what}: {left:?}");
    }
    Ok(())
}
