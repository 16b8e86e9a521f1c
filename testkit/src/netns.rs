//! Network namespaces that exist as long as the process that holds them.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::Ipv6Addr,
    panic,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    actor::{Actor, process::Namespace},
    command::{bounded, require_root, run},
    janitor::{self, Task},
    spawn::spawn,
    users::ROOT,
};

/// Time limit of the kernel's setup of a new interface.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The indices of the ends of cable 0, of the pod and of its peer. Cable 1 has the pod's first index
/// after that of `lo`.
const FIRST_INDICES: [u32; 2] = [1, 100];

/// A network namespace of the test, without a name; `lo` is up. Deleted when dropped, or when the
/// test process exits.
pub struct Netns {
    path: PathBuf,
    _holder: Holder,
}

/// The holder of a network namespace.
enum Holder {
    /// A process in it.
    Process { _actor: Actor },
    /// A file that it is mounted on.
    Mount(PathBuf),
}

impl Holder {
    fn mount_point(path: &Path) -> Result<Self> {
        require_root()?;
        File::create_new(path).with_context(|| path.display().to_string())?;
        janitor::register(&Task::Unmount(path.to_owned()))?;
        Ok(Self::Mount(path.to_owned()))
    }
}

/// Maps the IDs of the user namespace of `inside`, which runs `cat`, and mounts its network
/// namespace at `path`.
fn bind_of_users(inside: &mut Child, first: u32, path: &Path) -> Result<()> {
    let mut stdin = inside.stdin.take().context("stdin")?;
    let stdout = inside.stdout.as_mut().context("stdout")?;
    // Once it echoes a byte, it is in its namespaces.
    stdin.write_all(b"?")?;
    stdout.read_exact(&mut [0])?;
    let of_inside = |file: &str| format!("/proc/{}/{file}", inside.id());
    for map in ["uid_map", "gid_map"] {
        fs::write(of_inside(map), format!("0 {first} 65536"))?;
    }
    bind(&of_inside("ns/net"), path)
}

fn bind(from: &str, path: &Path) -> Result<()> {
    let none = None::<&str>;
    Ok(mount(Some(from), path, none, MsFlags::MS_BIND, none)?)
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Self::Mount(path) = self {
            // Processes in it keep it.
            let _unmounted = umount2(path.as_path(), MntFlags::MNT_DETACH);
            let _removed = fs::remove_file(path);
        }
    }
}

impl Netns {
    /// Creates one. The process that holds it is in `cgroup`, if given.
    pub fn new(name: &str, cgroup: Option<&Path>) -> Result<Self> {
        require_root()?;
        let holder = Actor::start(name, ROOT, Namespace::New, cgroup)?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.pid()));
        Self::set_up(path, Holder::Process { _actor: holder })
    }

    /// Creates one that is mounted at `path`, as container runtimes do: it needs no process.
    pub fn mounted(path: &Path) -> Result<Self> {
        let holder = Holder::mount_point(path)?;
        let make = || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            bind("/proc/thread-self/ns/net", path)
        };
        thread::scope(|scope| scope.spawn(make).join())
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))?;
        Self::set_up(path.to_owned(), holder)
    }

    /// The same, owned by a user namespace of its own, whose IDs start at `first`.
    pub fn mounted_of_users(path: &Path, first: u32) -> Result<Self> {
        let holder = Holder::mount_point(path)?;
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut inside = spawn(command)?;
        let made = bind_of_users(&mut inside, first, path);
        // It exits when its stdin is closed.
        inside.wait()?;
        made?;
        Self::set_up(path.to_owned(), holder)
    }

    fn set_up(path: PathBuf, holder: Holder) -> Result<Self> {
        let netns = Self {
            path,
            _holder: holder,
        };
        // No duplicate address detection: an address can be used at once.
        netns.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        // A new namespace inherits the machine's value.
        netns.sysctl("net.ipv4.ip_forward", "0")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace argument of an actor.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace::At(self.path.clone())
    }

    /// Runs `ip` with each line of `commands`, all in one process: `addr add 10.1.0.2/24 dev eth0`.
    /// Waits for the routes of added IPv6 addresses, which the kernel adds asynchronously.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.enter(|| run(bounded("ip").args(["-batch", "-"]), commands))?;
        for line in commands.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["addr", "add", address, "dev", device, "nodad"] = words[..] {
                let (address, _) = address.split_once('/').context("an address has a /")?;
                let address: Ipv6Addr = address.parse()?;
                self.wait_for_route(device, "an address", |route| {
                    route.is_local && route.destination == address
                })?;
            }
        }
        Ok(())
    }

    /// Sets `net.a.b`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
        self.enter(|| fs::write(&path, value).with_context(|| format!("{name} = {value}")))
    }

    /// Connects `device` here and `other_device` in `other` by a veth pair. Both get hardware
    /// addresses made from `number`, so that link-local addresses are the same in every run. Their
    /// indices differ: the kernel may report the carrier a second later if they are equal
    /// (`linkwatch_urgent_event`).
    pub fn cable(&self, device: &str, other: &Self, other_device: &str, number: u8) -> Result<()> {
        let netns = other.path.display();
        let [index, other_index] = FIRST_INDICES.map(|first| first + u32::from(number));
        self.ip(&format!(
            "link add {device} index {index} address 02:00:00:00:{number:02x}:02 type veth \
             peer name {other_device} index {other_index} address 02:00:00:00:{number:02x}:01 netns {netns}\n\
             link set {device} up"
        ))?;
        other.ip(&format!("link set {other_device} up"))?;
        self.wait_for_link_local(device)?;
        other.wait_for_link_local(other_device)
    }

    /// Waits for the last asynchronous change after a link is up: later changes of routes would
    /// make the pod's copied ones stale.
    fn wait_for_link_local(&self, device: &str) -> Result<()> {
        self.wait_for_route(device, "a link-local address", |route| {
            route.is_local && route.destination.is_unicast_link_local()
        })?;
        self.wait_for_route(device, "multicast", |route| {
            route.destination == Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)
        })
    }

    fn wait_for_route(
        &self,
        device: &str,
        what: &str,
        is_expected: impl Fn(&Route) -> bool + Sync,
    ) -> Result<()> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let routes =
                self.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/ipv6_route")?))?;
            let mut parsed = routes.lines().filter_map(|line| Route::parse(line, device));
            if parsed.any(|route| is_expected(&route)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{device}: no route of {what} within {SETTLE_TIMEOUT:?}: {routes}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs `work` in a thread in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        Self::enter_at(&self.path, work)
    }

    /// The same in the namespace at `path`.
    pub fn enter_at<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let enter_and_work = || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        thread::scope(|scope| scope.spawn(enter_and_work).join())
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

/// A line of `/proc/net/ipv6_route`. (To run `ip` for each look would take most of a test's time.)
struct Route {
    destination: Ipv6Addr,
    is_local: bool,
}

impl Route {
    /// `None` if it is not a route of `device`.
    fn parse(line: &str, device: &str) -> Option<Self> {
        /// `RTF_LOCAL`
        const LOCAL: u32 = 0x8000_0000;

        let fields: Vec<_> = line.split_whitespace().collect();
        let [destination, .., flags, name] = fields[..] else {
            return None;
        };
        let destination = u128::from_str_radix(destination, 16).ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (name == device).then_some(Self {
            destination: destination.into(),
            is_local: flags & LOCAL != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_from_the_kernels_table() {
        let line = "fd000001000000000000000000000002 80 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000000 00000003 00000000 80200001     eth0";
        let route = Route::parse(line, "eth0").expect("a route");
        assert_eq!(route.destination, "fd00:1::2".parse::<Ipv6Addr>().unwrap());
        assert!(route.is_local);
        assert!(Route::parse(line, "eth1").is_none());
        let line = line.replace("80200001", "00000001");
        assert!(!Route::parse(&line, "eth0").expect("a route").is_local);
    }
}
