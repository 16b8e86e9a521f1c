//! The proxy's UIDs and GIDs.

use interceptor_ebpf::{MAX_OWNERS, OwnerIds};
use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};

use super::{Given, Source, split};

/// What istio-iptables falls back on.
const DEFAULT_UID: &str = "1337";

/// A list of UIDs or GIDs that fits into a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct Ids(Vec<u32>);

impl Ids {
    /// The IDs in the order of the rules.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl TryFrom<Vec<u32>> for Ids {
    type Error = String;

    fn try_from(ids: Vec<u32>) -> Result<Self, Self::Error> {
        if ids.len() <= MAX_OWNERS {
            Ok(Self(ids))
        } else {
            Err(format!(
                "has {} IDs: at most {MAX_OWNERS} are allowed",
                ids.len()
            ))
        }
    }
}

impl From<Ids> for Vec<u32> {
    fn from(ids: Ids) -> Self {
        ids.0
    }
}

impl From<&Ids> for OwnerIds {
    fn from(ids: &Ids) -> Self {
        Self::new(&ids.0).expect("a list of IDs is never longer than a policy's")
    }
}

/// The proxy's UIDs as given; if empty, the UID of the user `$ENVOY_USER`, else 1337.
pub(super) fn proxy_uids(source: &Source<'_>, flag: Option<&str>) -> Given {
    let given = source.get("--proxy-uid", flag, "PROXY_UID", "");
    if !given.value.is_empty() {
        return given;
    }
    let user = source.get("", None, "ENVOY_USER", "istio-proxy").value;
    let uid = user_id(&user).map(|uid| uid.to_string());
    Given {
        value: uid.unwrap_or_else(|| DEFAULT_UID.to_owned()),
        ..given
    }
}

/// Parses a list of UIDs or user names.
pub(super) fn parse_uids(text: &str) -> Result<Ids, String> {
    parse(text, user_id, "user")
}

/// Parses a list of GIDs or group names.
pub(super) fn parse_gids(text: &str) -> Result<Ids, String> {
    parse(text, group_id, "group")
}

fn parse(text: &str, by_name: fn(&str) -> Option<u32>, kind: &str) -> Result<Ids, String> {
    split(text)
        .map(|item| {
            let id = item.parse().ok().filter(|id| *id != u32::MAX);
            id.or_else(|| by_name(item)).ok_or_else(|| {
                format!(
                    "{item:?} is neither a number from 0 to 4294967294 nor the name of a {kind} \
                     of this system"
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?
        .try_into()
}

fn user_id(name: &str) -> Option<u32> {
    User::from_name(name).ok()?.map(|user| user.uid.as_raw())
}

fn group_id(name: &str) -> Option<u32> {
    Group::from_name(name).ok()?.map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_taken_in_order() {
        assert_eq!(parse_uids("1337,root, 3").unwrap().as_slice(), [1337, 0, 3]);
        assert_eq!(parse_gids("root").unwrap().as_slice(), [0]);
    }

    #[test]
    fn what_cannot_be_an_id_is_an_error() {
        for bad in ["-1", "4294967295", "4294967296", "no-such-user", "1 2"] {
            assert!(parse_uids(bad).is_err(), "{bad}");
        }
        let many = vec!["1"; MAX_OWNERS + 1].join(",");
        assert!(parse_uids(&many).unwrap_err().contains("at most 16"));
    }
}
