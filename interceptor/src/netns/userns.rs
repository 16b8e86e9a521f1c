//! The users and groups of a pod that has a user namespace of its own (`hostUsers: false`).
//!
//! The programs compare the kernel's IDs, which are those in the initial user namespace. `xt_owner`
//! translates the IDs of its rules the same way, by the user namespace that the network namespace
//! belongs to (`owner_mt`: `make_kuid(net->user_ns, …)`), and refuses IDs without a mapping
//! (`owner_check`).

use std::{fs, fs::File, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, bail};

use super::sys;
use crate::settings::Settings;

/// `PROC_USER_INIT_INO` (`include/linux/proc_ns.h`): the inode of the first user namespace.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The ID maps of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    uids: IdMap,
    gids: IdMap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct IdMap(Vec<Extent>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

impl IdMaps {
    /// The maps of the user namespace that a network namespace belongs to; `None` if that is the initial
    /// one.
    pub(super) fn of(netns: &File) -> Result<Option<Self>> {
        let owner = sys::owning_user_namespace(netns)
            .context("cannot open the user namespace that owns the network namespace")?;
        let owner = File::from(owner);
        if owner.metadata()?.ino() == INITIAL_USER_NAMESPACE {
            return Ok(None);
        }
        // At the time of a CNI ADD the user namespace may have no process whose maps can be read.
        let process = sys::process_in_user_namespace(&owner)
            .context("cannot enter the pod's user namespace")?;
        let read = |name| {
            let path = format!("/proc/{}/{name}", process.id());
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            IdMap::parse(&text).with_context(|| format!("cannot parse {path}: {text}"))
        };
        Ok(Some(Self {
            uids: read("uid_map")?,
            gids: read("gid_map")?,
        }))
    }

    /// The settings with every ID translated to the initial user namespace.
    pub fn translate(&self, settings: &Settings) -> Result<Settings> {
        let uid = |id| self.uids.outside(id, "UID");
        let gid = |id| self.gids.outside(id, "GID");
        Ok(Settings {
            proxy_uids: settings.proxy_uids.try_map(uid)?,
            proxy_gids: settings.proxy_gids.try_map(gid)?,
            owner_groups: settings.owner_groups.try_map(gid)?,
            ..settings.clone()
        })
    }
}

impl IdMap {
    /// Lines of `INSIDE OUTSIDE COUNT` (`user_namespaces(7)`).
    fn parse(text: &str) -> Option<Self> {
        let extents = text.lines().map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
            Some(Extent {
                inside: numbers.next()??,
                outside: numbers.next()??,
                count: numbers.next()??,
            })
        });
        extents.collect::<Option<_>>().map(Self)
    }

    fn outside(&self, id: u32, what: &str) -> Result<u32> {
        let found = self.0.iter().find_map(|extent| {
            let offset = id.checked_sub(extent.inside)?;
            (offset < extent.count).then(|| extent.outside.checked_add(offset))?
        });
        let Some(outside) = found else {
            bail!(
                "the pod's user namespace (hostUsers: false) does not map {what} {id}: use IDs that \
                 it maps"
            );
        };
        Ok(outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_their_extents() {
        let map = IdMap::parse("         0     100000      65536\n 70000 5 1\n").unwrap();
        assert_eq!(map.outside(1337, "UID").unwrap(), 101_337);
        assert_eq!(map.outside(65_535, "UID").unwrap(), 165_535);
        assert_eq!(map.outside(70_000, "UID").unwrap(), 5);
        for unknown in [65_536, 70_001, u32::MAX] {
            let error = map.outside(unknown, "UID").unwrap_err().to_string();
            assert!(error.contains(&format!("UID {unknown}")), "{error}");
        }
    }

    #[test]
    fn an_invalid_map_is_none() {
        assert_eq!(IdMap::parse("0 1"), None);
        assert_eq!(IdMap::parse("a b c"), None);
        assert_eq!(IdMap::parse(""), Some(IdMap(Vec::new())));
    }
}
