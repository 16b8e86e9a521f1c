//! The process that removes the sandbox when `exec` has exited, even if that was killed.
//!
//! It waits for the end of a pipe whose other end only `exec` has, in a process group of its own, so that
//! Ctrl-C does not reach it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

use super::{inside::own_binary, sandbox::Place};
use crate::{
    dataplane::Dataplane,
    netns::{Netns, NetnsSpec},
    stdio::{self, message},
};

/// The hidden command that calls [`Remains::remove_after_input`].
pub(crate) const COMMAND: &str = "exec-cleanup";

/// What it prints when it can do its work.
const READY: &str = "ready\n";

/// How long killed processes may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The running process. Removes the sandbox when dropped.
pub(super) struct Cleanup(Child);

impl Cleanup {
    /// Starts it, before there is anything to remove.
    pub(super) fn start(place: &Place, file: Option<&Path>) -> Result<Self> {
        let remains = Remains {
            cgroup: place.cgroup.clone(),
            netns: place.netns.path(),
            has_own_netns: place.has_own_netns,
            file: file.map(Path::to_owned),
        };
        let mut command = Command::new(own_binary()?);
        command
            .arg(COMMAND)
            .arg(serde_json::to_string(&remains)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let cleanup = command.spawn().map(Self);
        cleanup
            .context("cannot start a process of this binary")?
            .when_ready()
    }

    fn when_ready(mut self) -> Result<Self> {
        let stdout = self.0.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == READY, "the process for the cleanup has exited");
        Ok(self)
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // It prints what it cannot remove.
        let _status = self.0.wait();
    }
}

/// What has to be removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Remains {
    cgroup: PathBuf,
    netns: PathBuf,
    has_own_netns: bool,
    /// A file for the sandbox, which `exec` removes itself unless it is killed.
    file: Option<PathBuf>,
}

impl Remains {
    /// Waits for the end of the input, then removes everything.
    pub(crate) fn remove_after_input(&self) -> Result<()> {
        // One that exists can be gone at the end: the path may be of a process.
        let existing = self.open_netns();
        stdio::print(READY)?;
        io::stdin().read_to_end(&mut Vec::new())?;
        // While a process of the sandbox runs, it stays captured.
        remove_cgroup(&self.cgroup).context("cannot end the sandbox, which stays captured")?;
        let removals = [
            self.detach(existing.ok()),
            self.remove_netns(),
            self.remove_file(),
        ];
        for error in removals.into_iter().filter_map(Result::err) {
            message!("interceptor: cannot remove all of the sandbox: {error:#}");
        }
        Ok(())
    }

    /// In a network namespace that existed, this lets open connections of other processes complete.
    fn detach(&self, existing: Option<Netns>) -> Result<()> {
        let netns = match existing {
            Some(netns) => netns,
            None if self.netns.exists() => self.open_netns()?,
            None => return Ok(()),
        };
        Dataplane::new().detach(&netns).map(drop)
    }

    fn open_netns(&self) -> Result<Netns> {
        Netns::open(&NetnsSpec::File(self.netns.clone()))
    }

    /// The kernel deletes the network namespace then.
    fn remove_netns(&self) -> Result<()> {
        if !self.has_own_netns || !self.netns.exists() {
            return Ok(());
        }
        // Fails if it was not mounted yet.
        let _unmounted = umount2(&self.netns, MntFlags::MNT_DETACH);
        fs::remove_file(&self.netns)
            .with_context(|| format!("cannot remove {}", self.netns.display()))
    }

    fn remove_file(&self) -> Result<()> {
        match &self.file {
            Some(file) if file.exists() => Ok(fs::remove_file(file)?),
            _ => Ok(()),
        }
    }
}

/// Kills every process of a cgroup, and removes it. A process that `exec` has started may join it until it
/// is removed.
fn remove_cgroup(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let kill = cgroup.join("cgroup.kill");
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        fs::write(&kill, "1").with_context(|| format!("cannot write {}", kill.display()))?;
        match remove_dirs(cgroup) {
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("cannot remove {}", cgroup.display()));
            }
            Err(_) => thread::sleep(POLL_INTERVAL),
            Ok(()) => return Ok(()),
        }
    }
}

/// Removes a cgroup and those that the command has made below it. Fails while a process is in one.
fn remove_dirs(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_dirs(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
