//! The namespace, cgroup and user of an actor.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    process,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::{set_keepcaps, set_pdeathsig},
        signal::Signal,
    },
    unistd::{Gid, Pid, Uid, getppid, setfsgid, setfsuid, setgid, setgroups, setuid},
};
use serde::{Deserialize, Serialize};

use super::raw;

/// The namespace, cgroup and user of an actor: its command line, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActorConfig {
    /// Its name in messages and in its servers' replies.
    pub name: String,
    /// The cgroup to join. `None` stays in the parent's.
    pub cgroup: Option<PathBuf>,
    /// The network namespace to join.
    pub netns: Namespace,
    /// The user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The process whose exit kills the actor.
    pub parent: i32,
}

/// The network namespace to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one, which lives as long as the actor.
    New,
    /// The one at this path.
    At(PathBuf),
}

impl ActorConfig {
    /// Joins them. The order matters: an unprivileged user may choose neither its cgroup nor its
    /// namespace.
    pub fn enter(&self) -> Result<()> {
        self.die_with_parent()?;
        if let Some(cgroup) = &self.cgroup {
            let procs = cgroup.join("cgroup.procs");
            fs::write(&procs, process::id().to_string())
                .with_context(|| procs.display().to_string())?;
        }
        match &self.netns {
            Namespace::New => unshare(CloneFlags::CLONE_NEWNET)?,
            Namespace::At(path) => {
                let file = File::open(path).with_context(|| path.display().to_string())?;
                setns(file, CloneFlags::CLONE_NEWNET)?;
            }
        }
        setgroups(&[])?;
        become_user(self.uid, self.gid)?;
        self.die_with_parent()
    }

    /// Requests SIGKILL at the parent's exit, and checks that the parent had not exited before.
    fn die_with_parent(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        ensure!(
            getppid() == Pid::from_raw(self.parent),
            "the parent process has exited"
        );
        Ok(())
    }
}

/// Changes user and group, and requests SIGKILL at the parent's exit again: a change of credentials
/// resets it.
pub(super) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    setgid(Gid::from_raw(gid))?;
    setuid(Uid::from_raw(uid))?;
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

/// The same, with some of the capabilities that the process has.
pub(super) fn become_user_with(uid: u32, gid: u32, capabilities: &[u32]) -> io::Result<()> {
    set_keepcaps(true)?;
    become_user(uid, gid)?;
    let mask = capabilities
        .iter()
        .fold(0, |mask, number| mask | 1_u64 << number);
    Ok(raw::set_capabilities(mask)?)
}

/// From now on, the process's sockets belong to another user. If the kernel does not permit the
/// change, these calls do not report it.
pub(super) fn own_sockets_as(uid: u32, gid: u32) {
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
}

/// Creates a user namespace, in which the process has all capabilities, and enters it.
pub(super) fn own_user_namespace(with_network: bool) -> io::Result<()> {
    let mut namespaces = CloneFlags::CLONE_NEWUSER;
    namespaces.set(CloneFlags::CLONE_NEWNET, with_network);
    Ok(unshare(namespaces)?)
}
