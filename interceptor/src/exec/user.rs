//! The user that a program in the sandbox runs as.

use std::{env, ffi::CString};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunAs {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

impl RunAs {
    /// Without other groups.
    pub(crate) fn ids(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            groups: vec![gid],
        }
    }

    /// The user with this name or UID; a UID needs no entry in the list of users.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let by_id = name.parse().ok();
        let user = match by_id {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(name),
        };
        match (user.context("cannot read the list of users")?, by_id) {
            (Some(user), _) => Self::of(&user),
            (None, Some(uid)) => Ok(Self::ids(uid, uid)),
            (None, None) => bail!("--user {name}: there is no such user"),
        }
    }

    /// The user who called `sudo`, otherwise that of this process.
    pub(crate) fn caller() -> Result<Self> {
        match env::var("SUDO_UID") {
            Ok(uid) => Self::named(&uid),
            Err(_) => Self::named(&Uid::current().to_string()),
        }
    }

    fn of(user: &User) -> Result<Self> {
        let name = CString::new(user.name.as_str())?;
        let groups = getgrouplist(&name, user.gid)
            .with_context(|| format!("cannot read the groups of {}", user.name))?;
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        })
    }

    /// Lets this process run as the user, for good.
    pub(crate) fn become_user(&self) -> Result<()> {
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setgroups(&groups)
            .and_then(|()| setresgid(gid, gid, gid))
            .and_then(|()| setresuid(uid, uid, uid))
            .with_context(|| format!("cannot run as UID {}, GID {}", self.uid, self.gid))
    }
}
