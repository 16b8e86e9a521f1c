//! The driver's side of a load process.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process::{self, Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_testkit::{
    actor::{User, process::ActorConfig},
    command::own_binary,
    netns::Netns,
    spawn::spawn,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{LoadConfig, LoadReply, LoadRequest};
use crate::environment::cpus;

/// The program of all load processes, in the driver's directory.
const BINARY: &str = "bench";

/// The option before the configuration of a load process.
pub const LOAD: &str = "--load";

/// Time limit of a request, beyond its own duration: a hundred thousand connections.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(5);

/// A load process. Killed when dropped.
pub(crate) struct Worker {
    name: String,
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Worker {
    /// Starts one; it serves `serves` when this returns. Clients and servers use different
    /// processors if there are two, which makes times steadier.
    pub(crate) fn start(
        name: &str,
        user: User,
        netns: &Netns,
        cgroup: &Path,
        serves: &[u16],
    ) -> Result<Self> {
        let actor = ActorConfig {
            name: name.to_owned(),
            cgroup: Some(cgroup.to_owned()),
            netns: netns.namespace(),
            uid: user.uid,
            gid: user.gid,
            parent: process::id().cast_signed(),
        };
        let cpus = cpus()?;
        let cpu = if serves.is_empty() {
            cpus.first()
        } else {
            cpus.last()
        };
        let config = LoadConfig {
            actor,
            cpu: cpu.copied(),
            serves: serves.to_vec(),
        };
        let mut command = Command::new(own_binary(BINARY)?);
        command
            .args([LOAD, &serde_json::to_string(&config)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn(command)?;
        let stdin = child.stdin.take().context("stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let worker = Self {
            name: name.to_owned(),
            child,
            pipes: Mutex::new((stdin, stdout)),
        };
        worker.receive().with_context(|| format!("{config:?}"))?;
        Ok(worker)
    }

    /// Sends a request and waits for the reply.
    pub(crate) fn call(&self, request: &LoadRequest) -> Result<LoadReply> {
        self.send(request)?;
        self.receive().with_context(|| format!("{request:?}"))
    }

    /// Sends a request.
    pub(crate) fn send(&self, request: &LoadRequest) -> Result<()> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.0.write_all(line.as_bytes())?;
        Ok(())
    }

    /// Waits for the reply to the last request.
    pub(crate) fn receive(&self) -> Result<LoadReply> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fds = [PollFd::new(pipes.1.get_ref().as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::try_from(REQUEST_TIMEOUT)?)?;
        let name = &self.name;
        ensure!(ready > 0, "{name}: no reply within {REQUEST_TIMEOUT:?}");
        let mut line = String::new();
        pipes.1.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{name} has exited");
        match serde_json::from_str(&line)? {
            LoadReply::Failed(why) => bail!("{name}: {why}"),
            reply => Ok(reply),
        }
    }

    /// Its CPU time in seconds.
    pub(crate) fn used(&self) -> Result<f64> {
        match self.call(&LoadRequest::Usage)? {
            LoadReply::Used(seconds) => Ok(seconds),
            other => bail!("{other:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for before.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}
