//! Where and as whom an actor acts.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    process,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Gid, Pid, Uid, getppid, setfsgid, setfsuid, setgid, setgroups, setuid},
};
use serde::{Deserialize, Serialize};

/// Where and as whom an actor acts: its command line, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActorConfig {
    /// What it is called in messages and in what its servers say.
    pub name: String,
    /// The cgroup to be in. Without one it stays in its parent's.
    pub cgroup: Option<PathBuf>,
    /// The network namespace to be in.
    pub netns: Namespace,
    /// The user to be.
    pub uid: u32,
    /// The group to be.
    pub gid: u32,
    /// The process with which to die.
    pub parent: i32,
}

/// Which network namespace to be in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one, which lives as long as the actor.
    New,
    /// The one at this path.
    At(PathBuf),
}

impl ActorConfig {
    /// Goes there. The order matters: another user may neither choose its cgroup nor its namespace.
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

    /// Asks to be killed when the parent dies, and sees whether it has died before it was asked.
    fn die_with_parent(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        ensure!(
            getppid() == Pid::from_raw(self.parent),
            "the parent is gone"
        );
        Ok(())
    }
}

/// Changes user and group, and goes on dying with the parent: a change of credentials clears that.
pub(super) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    setgid(Gid::from_raw(gid))?;
    setuid(Uid::from_raw(uid))?;
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

/// Opens sockets as somebody else from now on. It is the kernel that forbids it, and it does not say.
pub(super) fn own_sockets_as(uid: u32, gid: u32) {
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
}
