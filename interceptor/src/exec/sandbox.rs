//! The network namespace and the cgroup of a command.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process, thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rtnetlink::LinkUnspec;

use super::Network;
use crate::{
    cgroup::Hierarchy,
    netns::{Netns, NetnsSpec, addresses::LOOPBACK_INDEX, netlink},
};

/// Where `ip netns` finds network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Where a sandbox is, or will be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) cgroup: PathBuf,
    pub(super) netns: NetnsSpec,
    /// Whether the network namespace is the sandbox's own.
    pub(super) has_own_netns: bool,
}

impl Place {
    /// With the names of this process: a cgroup below its own, and a network namespace unless one exists.
    pub(super) fn new(network: &Network) -> Result<Self> {
        let name = format!("interceptor-exec-{}", process::id());
        let netns = match network {
            Network::Existing(netns) => netns.clone(),
            Network::Outside { .. } | Network::Isolated => {
                NetnsSpec::File(Path::new(NETNS_DIR).join(&name))
            }
        };
        Ok(Self {
            cgroup: own_cgroup()?.join(&name),
            has_own_netns: !matches!(network, Network::Existing(_)),
            netns,
        })
    }

    /// Makes the sandbox. What is made when it fails, [`super::cleanup`] removes.
    pub(super) fn make(self) -> Result<Sandbox> {
        if self.has_own_netns {
            let path = self.netns.path();
            make_netns(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let Self { cgroup, netns, .. } = self;
        fs::create_dir(&cgroup)
            .with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
        let netns = Netns::open(&netns)?;
        Ok(Sandbox { netns, cgroup })
    }
}

/// Where the command and its proxy run.
pub(crate) struct Sandbox {
    pub(crate) netns: Netns,
    /// Contains all processes of the sandbox, and nothing else.
    pub(crate) cgroup: PathBuf,
}

fn own_cgroup() -> Result<PathBuf> {
    let hierarchy = Hierarchy::find()?;
    let own = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    hierarchy
        .cgroup_of_process(&own)
        .context("this process is in no cgroup of the cgroup2 hierarchy")
}

/// Mounts a new network namespace, whose `lo` is up, at `path`.
fn make_netns(path: &Path) -> Result<()> {
    const NONE: Option<&str> = None;

    fs::create_dir_all(NETNS_DIR)?;
    File::create_new(path)?;
    let enter = || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Some("/proc/thread-self/ns/net");
        mount(own, path, NONE, MsFlags::MS_BIND, NONE)?;
        set_loopback_up()
    };
    // On a thread of its own: this process stays in its network namespace.
    let mounted = thread::scope(|scope| scope.spawn(enter).join());
    mounted.map_err(|_| anyhow!("the thread panicked"))?
}

fn set_loopback_up() -> Result<()> {
    netlink::run(async |handle| {
        let up = LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
        handle.link().set(up).execute().await.context("lo")
    })
}
