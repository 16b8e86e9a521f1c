//! The traces of an attach.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{
    bpf::{maps::Map, pins},
    command::{bounded, run},
    netns::Netns,
};

/// Everything that an attach changes: links, the policy, and the pod's addresses, routes and
/// sysctls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The pinned links of the cgroup and the network namespace.
    pub links: Vec<String>,
    /// The current policy, which has a unique ID.
    pub policy: Option<Vec<u8>>,
    /// The output of `ip address`, `ip route`, `ip rule` and `sysctl`.
    pub network: Vec<String>,
}

impl Traces {
    pub(super) fn read(netns: &Netns, cgroup: &Path, cookie: u64) -> Result<Self> {
        let policies = Map::of_interceptor("icept_policies")?;
        Ok(Self {
            links: pins::links(cgroup, cookie)?,
            policy: match policies {
                Some(map) => map.get(&cookie.to_ne_bytes())?,
                None => None,
            },
            network: network(netns)?,
        })
    }

    /// The deleted and the new lines.
    #[must_use]
    pub fn changes_to(&self, now: &Self) -> Vec<String> {
        let (before, now) = (self.lines(), now.lines());
        let deleted = before.iter().filter(|line| !now.contains(line));
        let new = now.iter().filter(|line| !before.contains(line));
        let deleted = deleted.map(|line| format!("deleted: {line}"));
        deleted
            .chain(new.map(|line| format!("new: {line}")))
            .collect()
    }

    fn lines(&self) -> Vec<String> {
        let policy = self
            .policy
            .iter()
            .map(|policy| format!("policy: {policy:?}"));
        let rest = self.links.iter().chain(&self.network).cloned();
        rest.chain(policy).collect()
    }

    /// Whether `::6` is on `lo`.
    #[must_use]
    pub fn has_passthrough_v6(&self) -> bool {
        self.network.iter().any(|line| line.contains("::6/128"))
    }
}

fn network(netns: &Netns) -> Result<Vec<String>> {
    let commands: [&[&str]; 6] = [
        &["ip", "-oneline", "address", "show"],
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "-4", "rule", "show"],
        &["ip", "-6", "rule", "show"],
        &["sysctl", "--all", "--pattern", "fwmark"],
    ];
    let mut lines = Vec::new();
    for command in commands {
        let text = netns.enter(|| run(bounded(command[0]).args(&command[1..]), ""))?;
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    Ok(lines)
}

/// Maps whose keys start with the cookie of a network namespace.
const BY_COOKIE: [&str; 7] = [
    "icept_policies",
    "icept_next",
    "icept_usage",
    "icept_forward",
    "icept_stand_ins",
    "icept_lports",
    "icept_listeners",
];

/// Everything that is stored for a network namespace, or for a policy of it.
pub(super) fn leftovers(netns: &Path, cgroup: &Path, cookie: u64) -> Result<Vec<String>> {
    let mut left = pins::links(cgroup, cookie)?;
    for name in BY_COOKIE {
        let Some(map) = Map::of_interceptor(name)? else {
            continue;
        };
        let keys = map.keys().context(name)?;
        let ours = keys
            .iter()
            .filter(|key| key.starts_with(&cookie.to_ne_bytes()));
        left.extend(ours.map(|key| format!("{name}: {key:?}")));
    }
    left.extend(records_that_name(netns)?);
    left.extend(uplinks_of(cookie)?);
    Ok(left)
}

/// The interfaces that strict mode guards for the pod, whose cookie starts a value.
fn uplinks_of(cookie: u64) -> Result<Vec<String>> {
    let Some(map) = Map::of_interceptor("icept_uplinks")? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for key in map.keys()? {
        let value = map.get(&key)?.unwrap_or_default();
        if value.starts_with(&cookie.to_ne_bytes()) {
            found.push(format!("icept_uplinks: {key:?}"));
        }
    }
    Ok(found)
}

/// A pod's stored settings contain its path.
fn records_that_name(netns: &Path) -> Result<Vec<String>> {
    let Some(map) = Map::of_interceptor("icept_settings")? else {
        return Ok(Vec::new());
    };
    let name = format!("{:?}", netns.display().to_string());
    let mut found = Vec::new();
    for key in map.keys()? {
        let value = map.get(&key)?.unwrap_or_default();
        if String::from_utf8_lossy(&value).contains(&name) {
            found.push(format!("icept_settings: {key:?}"));
        }
    }
    Ok(found)
}

/// `SO_NETNS_COOKIE`
pub fn cookie(netns: &Netns) -> Result<u64> {
    cookie_at(netns.path())
}

/// The same of the network namespace at `path`.
pub fn cookie_at(path: &Path) -> Result<u64> {
    Netns::enter_at(path, || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        Ok(cookie_of(&socket)?)
    })
}

fn cookie_of(socket: &OwnedFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the kernel gets the buffer's true length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
