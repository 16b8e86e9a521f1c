//! Network namespaces: how users specify them, how to enter them, and what an attach adds to them.

use std::{
    fmt,
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process,
    str::FromStr,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use interceptor_ebpf::NetnsCookie;
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use userns::IdMaps;

use crate::host;

pub(crate) mod addresses;
pub(crate) mod changes;
pub(crate) mod clsact;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod interfaces;
pub mod istio_rules;
pub(crate) mod listening;
pub mod localhost_routes;
pub(crate) mod netlink;
pub mod network;
mod policy_rules;
mod raw_netlink;
pub(crate) mod route_limits;
pub(crate) mod routes;
pub(crate) mod sock_diag;
pub mod stand_in_routes;
pub(crate) mod stand_in_rule;
mod sys;
pub(crate) mod tables;
pub(crate) mod tcp_activity;
pub(crate) mod tcp_sockets;
pub(crate) mod tproxy;
pub(crate) mod uplinks;
pub(crate) mod userns;

/// How a user specifies a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsSpec {
    /// The namespace of a process.
    Process(u32),
    /// A file such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    File(PathBuf),
}

impl FromStr for NetnsSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(pid) if pid > 0 => Ok(Self::Process(pid)),
            _ if text.contains('/') => Ok(Self::File(text.into())),
            _ => Err(
                "expected the path of a network namespace, such as /run/netns/NAME or \
                 /proc/PID/ns/net, or a process ID"
                    .to_owned(),
            ),
        }
    }
}

impl NetnsSpec {
    /// The file to open.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Process(pid) => format!("/proc/{pid}/ns/net").into(),
            Self::File(path) => path.clone(),
        }
    }

    /// The process, if the namespace is specified by one.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        let path = match self {
            Self::Process(pid) => return Some(*pid),
            Self::File(path) => path.to_str()?,
        };
        match path.strip_prefix("/proc/")?.strip_suffix("/ns/net")? {
            "self" => Some(process::id()),
            pid => pid.parse().ok(),
        }
    }
}

impl fmt::Display for NetnsSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(formatter)
    }
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    cookie: NetnsCookie,
}

/// The identity of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// The identity of a namespace by its file, without opening it.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// The host's network namespace.
    pub fn of_host() -> Result<Self> {
        Self::at(&host::netns_path()?)
    }

    /// This process's network namespace: the host's with `hostNetwork`, or that of a node which is
    /// itself a container with its own network.
    pub fn of_self() -> Result<Self> {
        Self::at(Path::new("/proc/self/ns/net"))
    }

    fn at(path: &Path) -> Result<Self> {
        Self::of(path).with_context(|| format!("cannot read the identity of {}", path.display()))
    }
}

impl Netns {
    /// Opens a network namespace.
    ///
    /// # Minimum kernel version
    ///
    /// 5.14, for `SO_NETNS_COOKIE`.
    pub fn open(spec: &NetnsSpec) -> Result<Self> {
        let path = spec.path();
        let what = match spec {
            NetnsSpec::Process(pid) => format!("process {pid} (--netns {pid})"),
            NetnsSpec::File(path) => format!("--netns {}", path.display()),
        };
        let file = File::open(&path).with_context(|| {
            format!(
                "{what}: cannot open the network namespace {}",
                path.display()
            )
        })?;
        check_is_netns(&file).with_context(|| {
            format!(
                "{what}: {} is not a network namespace: expected a path such as /run/netns/NAME or \
                 /proc/PID/ns/net, or a process ID",
                path.display()
            )
        })?;
        let cookie = enter(&file, cookie_of_calling_thread)
            .and_then(|cookie| cookie)
            .with_context(|| format!("{what}: cannot read the network namespace's cookie"))?;
        Ok(Self { file, path, cookie })
    }

    /// Finds a network namespace by a process in it.
    #[must_use]
    pub fn find(inode: u64, cookie: NetnsCookie) -> Option<Self> {
        fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(NetnsSpec::Process)
            .filter(|process| NetnsId::of(&process.path()).is_ok_and(|id| id.inode == inode))
            .filter_map(|process| Self::open(&process).ok())
            .find(|netns| netns.cookie == cookie)
    }

    /// The path that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's ID of the namespace, not reused until reboot.
    #[must_use]
    pub const fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// The namespace's identity.
    pub fn id(&self) -> Result<NetnsId> {
        let metadata = self.file.metadata()?;
        Ok(NetnsId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Fails for the host's namespace: attaching it would capture the traffic of the whole machine.
    pub fn check_not_hosts(&self) -> Result<()> {
        let is_hosts =
            NetnsId::of_host().is_ok_and(|hosts| self.id().is_ok_and(|own| own == hosts));
        if is_hosts {
            bail!(
                "--netns {} is the host's network namespace: specify a pod's network namespace",
                self.path.display()
            );
        }
        Ok(())
    }

    /// The ID maps of the owning user namespace; nothing for the initial one.
    pub fn ids(&self) -> Result<Option<IdMaps>> {
        IdMaps::of(&self.file).with_context(|| format!("--netns {}", self.path.display()))
    }

    /// The same as [`Netns::run`], without the path of the namespace in errors.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter(&self.file, work).and_then(|result| result)
    }

    /// Runs `work` in the namespace on a new thread: the calling thread stays in its namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.enter(work)
            .with_context(|| format!("in the network namespace {}", self.path.display()))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check_is_netns(file: &File) -> Result<()> {
    let kind = sys::namespace_kind(file).context("not a namespace")?;
    if kind != libc::CLONE_NEWNET {
        bail!("a namespace of another kind");
    }
    Ok(())
}

fn enter<T: Send>(file: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| -> Result<T> {
            setns(file, CloneFlags::CLONE_NEWNET).context(
                "cannot enter the network namespace (root or CAP_SYS_ADMIN is required)",
            )?;
            Ok(work())
        });
        worker
            .join()
            .map_err(|_| anyhow!("the thread in the network namespace panicked"))?
    })
}

fn cookie_of_calling_thread() -> Result<NetnsCookie> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    sys::netns_cookie(&socket)
        .context("the kernel does not support SO_NETNS_COOKIE: Linux 5.14 or later is required")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_processes_and_paths_are_files() {
        assert_eq!("17".parse(), Ok(NetnsSpec::Process(17)));
        let path = "/run/netns/pod";
        assert_eq!(path.parse(), Ok(NetnsSpec::File(path.into())));
        assert!("pod".parse::<NetnsSpec>().is_err());
        assert!("0".parse::<NetnsSpec>().is_err());
        assert!("".parse::<NetnsSpec>().is_err());
    }

    #[test]
    fn the_process_in_a_path_is_recognized() {
        let process = |text: &str| text.parse::<NetnsSpec>().unwrap().process();
        assert_eq!(process("17"), Some(17));
        assert_eq!(process("/proc/17/ns/net"), Some(17));
        assert_eq!(process("/proc/self/ns/net"), Some(process::id()));
        assert_eq!(process("/run/netns/17"), None);
        assert_eq!(process("/proc/17/task/18/ns/net"), None);
    }
}
