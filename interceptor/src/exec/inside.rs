//! Starts a program in the sandbox, by a process of this binary that enters it and becomes the program.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use serde::{Deserialize, Serialize};

use super::{resolv_conf::RESOLV_CONF, sandbox::Sandbox, user::RunAs};
use crate::stdio::message;

/// The hidden command that calls [`Entry::become_program`].
pub(crate) const COMMAND: &str = "exec-inside";

/// A program to start.
pub(super) struct Program<'a> {
    pub(super) command: &'a [OsString],
    pub(super) user: &'a RunAs,
    /// What it has in place of `/etc/resolv.conf`, if anything.
    pub(super) resolv_conf: Option<&'a Path>,
}

/// Where the program's input comes from, and its output goes to.
#[derive(Clone, Copy)]
pub(super) enum Output<'a> {
    /// Those of this process.
    Inherited,
    /// No input. The output goes to the file, or to standard error.
    Log(Option<&'a Path>),
}

impl Program<'_> {
    /// Starts it.
    pub(super) fn start(&self, sandbox: &Sandbox, output: Output<'_>) -> Result<Child> {
        let entry = Entry {
            cgroup: sandbox.cgroup.clone(),
            netns: sandbox.netns.path().to_owned(),
            user: self.user.clone(),
            resolv_conf: self.resolv_conf.map(Path::to_owned),
        };
        let mut command = Command::new(own_binary()?);
        command
            .arg(COMMAND)
            .arg(serde_json::to_string(&entry)?)
            .arg("--")
            .args(self.command);
        if let Output::Log(file) = output {
            let (stdout, stderr) = log(file)?;
            command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            // Ctrl-C ends the command first, which may need the proxy for that.
            command.process_group(0);
        }
        command
            .spawn()
            .context("cannot start a process of this binary")
    }
}

/// This binary.
pub(super) fn own_binary() -> Result<PathBuf> {
    env::current_exe().context("cannot find this binary")
}

fn log(file: Option<&Path>) -> Result<(Stdio, Stdio)> {
    let Some(path) = file else {
        let stderr = || io::stderr().as_fd().try_clone_to_owned();
        return Ok((stderr()?.into(), stderr()?.into()));
    };
    let open = || {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("cannot write {}", path.display()))
    };
    Ok((open()?.into(), open()?.into()))
}

/// What the process enters before it becomes the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    cgroup: PathBuf,
    netns: PathBuf,
    user: RunAs,
    resolv_conf: Option<PathBuf>,
}

/// Exit code if there is no such program, as of `env(1)`.
const NOT_FOUND: u8 = 127;
/// Exit code if the program cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

impl Entry {
    /// Becomes the program. Returns an exit code if that fails.
    pub(crate) fn become_program(&self, command: &[OsString]) -> u8 {
        match self.enter().and_then(|()| execute(command)) {
            Ok(code) => code,
            Err(error) => {
                message!("interceptor: {error:#}");
                super::FAILED
            }
        }
    }

    fn enter(&self) -> Result<()> {
        let procs = self.cgroup.join("cgroup.procs");
        fs::write(&procs, process::id().to_string())
            .with_context(|| format!("cannot write {}", procs.display()))?;
        // This process has one thread.
        let netns = File::open(&self.netns)
            .with_context(|| format!("cannot open {}", self.netns.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        if let Some(file) = &self.resolv_conf {
            replace_resolv_conf(file)
                .with_context(|| format!("cannot mount {} as {RESOLV_CONF}", file.display()))?;
        }
        self.user.become_user()
    }
}

/// Only in a mount namespace of this process and its children.
fn replace_resolv_conf(file: &Path) -> Result<()> {
    const NONE: Option<&str> = None;

    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    mount(Some(file), RESOLV_CONF, NONE, MsFlags::MS_BIND, NONE)?;
    Ok(())
}

/// Returns only if the program cannot be executed.
fn execute(command: &[OsString]) -> Result<u8> {
    let (program, arguments) = command.split_first().context("no command")?;
    let error = Command::new(program).args(arguments).exec();
    message!("interceptor: cannot run {}: {error}", program.display());
    Ok(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}
