//! The soak's side of a process of the traffic.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use interceptor_testkit::{
    interruption::ensure_uninterrupted, sidecar::launch::LaunchContext, spawn::spawn,
};

use super::{
    exchange::Identity,
    protocol::{Command, Fault, Job, Line, Progress},
};
/// The first argument of a process of the traffic.
pub(crate) const WORKER: &str = "worker";

/// Time limit of a process's next line: longer than that of a connection.
const LINE_TIMEOUT: Duration = Duration::from_mins(10);
/// How often a wait looks for Ctrl-C.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Where counts and faults go.
pub(crate) trait Output: Send + 'static {
    fn count(&self, progress: &Progress);
    fn fault(&self, fault: Fault);
}

/// A process of the traffic. Killed when dropped.
pub(crate) struct Worker {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
}

impl Worker {
    /// Starts one, and returns once it is ready.
    pub(crate) fn start(
        name: &str,
        context: LaunchContext<'_>,
        job: &Job,
        output: impl Output,
    ) -> Result<Self> {
        let arguments = [WORKER.to_owned(), serde_json::to_string(job)?];
        let mut command = context.command(&env::current_exe()?, &arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command).with_context(|| name.to_owned())?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Line::Progress(progress)) => output.count(&progress),
                    Ok(Line::Fault(fault)) => output.fault(fault),
                    // The receiver may be dropped at the end.
                    Ok(line) => drop(sender.send(line)),
                    Err(error) => eprintln!("soak: {line:?}: {error}"),
                }
            }
        });
        let worker = Self {
            name: name.to_owned(),
            child,
            stdin,
            lines,
        };
        match worker.line()? {
            Line::Ready => Ok(worker),
            other => bail!("{name}: {other:?}"),
        }
    }

    /// Lets it open its connections.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.command(&Command::Begin)
    }

    /// Waits until all connections that stay open are open.
    pub(crate) fn wait_until_held(&self) -> Result<()> {
        match self.line()? {
            Line::Held => Ok(()),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// Who responds at `to`.
    pub(crate) fn probe(&mut self, to: SocketAddr) -> Result<Result<Identity, String>> {
        self.command(&Command::Probe(to))?;
        match self.line()? {
            Line::Probed(result) => Ok(result),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    /// Lets it use every open connection once more and end.
    pub(crate) fn end(&mut self) {
        drop(self.stdin.take());
    }

    /// The number of open connections at its end.
    pub(crate) fn ended(&self) -> Result<usize> {
        match self.line()? {
            Line::Ended(open) => Ok(open),
            other => bail!("{}: {other:?}", self.name),
        }
    }

    fn command(&mut self, command: &Command) -> Result<()> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        let stdin = self.stdin.as_mut().context("it is ending")?;
        Ok(stdin.write_all(line.as_bytes())?)
    }

    fn line(&self) -> Result<Line> {
        let mut waited = Duration::ZERO;
        while waited < LINE_TIMEOUT {
            ensure_uninterrupted()?;
            match self.lines.recv_timeout(POLL_INTERVAL) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => bail!("{} has exited", self.name),
                Err(RecvTimeoutError::Timeout) => waited += POLL_INTERVAL,
            }
        }
        bail!("{}: no reply within {LINE_TIMEOUT:?}", self.name)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Writes a line to the soak.
pub(super) fn print(line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
