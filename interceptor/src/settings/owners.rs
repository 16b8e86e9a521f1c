//! The proxy's UIDs and GIDs, and the groups whose connections are captured.

use interceptor_ebpf::{MAX_OWNERS, OwnerIds};
use nix::unistd::{Group, User};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    SettingError,
    flags::{ENVOY_USER, OWNER_GROUPS, OWNER_GROUPS_EXCLUDE, PROXY_GID, PROXY_UID},
    numbers::parse_decimal,
    source::{Given, Source},
    words,
};

/// istio-iptables' default.
const DEFAULT_UID: &str = "1337";

/// istio-iptables' own limit: it puts all of them into one rule.
pub(crate) const MAX_OWNER_GROUPS: usize = 64;

/// A list of UIDs or GIDs that fits into a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ids(Vec<u32>);

impl Ids {
    /// The IDs in the order of the rules.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Converts each ID.
    pub fn try_map<E>(&self, convert: impl Fn(u32) -> Result<u32, E>) -> Result<Self, E> {
        let ids = self.0.iter().copied().map(convert);
        ids.collect::<Result<_, _>>().map(Self)
    }
}

impl From<&Ids> for OwnerIds {
    fn from(ids: &Ids) -> Self {
        Self::new(&ids.0).expect("the proxy's IDs were counted when they were parsed")
    }
}

/// Reads the proxy's IDs from a record. The build that wrote it may have had a higher limit.
pub(super) fn read_proxy_ids<'de, D: Deserializer<'de>>(record: D) -> Result<Ids, D::Error> {
    let ids = Ids::deserialize(record)?;
    match ids.0.len() {
        0..=MAX_OWNERS => Ok(ids),
        count => Err(D::Error::custom(format!(
            "{count} IDs of the proxy: at most {MAX_OWNERS} are allowed"
        ))),
    }
}

/// Groups of processes, by whether their connections are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerGroups {
    /// All groups except these are captured.
    AllBut(Ids),
    /// Only these groups are captured; none, if the list is empty.
    Only(Ids),
}

impl OwnerGroups {
    /// Converts each ID.
    pub fn try_map<E>(&self, convert: impl Fn(u32) -> Result<u32, E>) -> Result<Self, E> {
        match self {
            Self::AllBut(ids) => ids.try_map(convert).map(Self::AllBut),
            Self::Only(ids) => ids.try_map(convert).map(Self::Only),
        }
    }
}

/// The proxy's UIDs as set; if empty, the UID of the user `$ENVOY_USER`, or 1337.
fn given_uids(source: &Source<'_>) -> Given {
    let given = source.get(&PROXY_UID);
    if !given.value.is_empty() {
        return given;
    }
    let user = source.get(&ENVOY_USER).value;
    let uid = user_id(&user).map(|uid| uid.to_string());
    Given {
        value: uid.unwrap_or_else(|| DEFAULT_UID.to_owned()),
        ..given
    }
}

pub(super) fn proxy_uids(source: &Source<'_>) -> Result<Ids, SettingError> {
    given_uids(source).parse(|list| parse(list, &USERS, MAX_OWNERS))
}

/// The proxy's GIDs: the UIDs, unless they are set.
pub(super) fn proxy_gids(source: &Source<'_>) -> Result<Ids, SettingError> {
    let mut given = source.get(&PROXY_GID);
    // Set but empty means the default here, too.
    if given.value.is_empty() {
        given.value = given_uids(source).value;
    }
    given.parse(|list| parse(list, &GROUPS, MAX_OWNERS))
}

/// The groups whose connections are captured. Exclusions have an effect only if all groups are included.
pub(super) fn groups(source: &Source<'_>) -> Result<OwnerGroups, SettingError> {
    let list = |given: Given| given.parse(|list| parse(list, &GROUPS, MAX_OWNER_GROUPS));
    let included = source.get(&OWNER_GROUPS);
    if included.value == "*" {
        list(source.get(&OWNER_GROUPS_EXCLUDE)).map(OwnerGroups::AllBut)
    } else {
        list(included).map(OwnerGroups::Only)
    }
}

/// The names of users or groups.
struct Names {
    what: &'static str,
    id: fn(&str) -> Option<u32>,
}

const USERS: Names = Names {
    what: "user",
    id: user_id,
};

const GROUPS: Names = Names {
    what: "group",
    id: group_id,
};

/// Parses a list of at most `limit` IDs or names.
fn parse(text: &str, names: &Names, limit: usize) -> Result<Ids, String> {
    let ids = words(text)
        .map(|item| parse_id(item, names))
        .collect::<Result<Vec<_>, _>>()?;
    if ids.len() > limit {
        return Err(format!(
            "has {} IDs: at most {limit} are allowed",
            ids.len()
        ));
    }
    Ok(Ids(ids))
}

fn parse_id(item: &str, names: &Names) -> Result<u32, String> {
    let id = parse_decimal(item).filter(|id| *id != u32::MAX);
    id.or_else(|| (names.id)(item)).ok_or_else(|| {
        format!(
            "{item:?} is neither a number from 0 to 4294967294 without leading zeros nor the name of a {} of this system",
            names.what
        )
    })
}

fn user_id(name: &str) -> Option<u32> {
    User::from_name(name).ok()?.map(|user| user.uid.as_raw())
}

fn group_id(name: &str) -> Option<u32> {
    Group::from_name(name).ok()?.map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uids(text: &str) -> Result<Ids, String> {
        parse(text, &USERS, MAX_OWNERS)
    }

    #[test]
    fn ids_and_names_keep_their_order() {
        assert_eq!(uids("1337,root, 3").unwrap().as_slice(), [1337, 0, 3]);
        let groups = parse("root", &GROUPS, MAX_OWNERS).unwrap();
        assert_eq!(groups.as_slice(), [0]);
    }

    #[test]
    fn an_invalid_id_is_an_error() {
        for bad in [
            "-1",
            "4294967295",
            "4294967296",
            "no-such-user",
            "1 2",
            " ",
            "01337",
            "+5",
            "0x10",
            "a\0b",
        ] {
            assert!(uids(bad).is_err(), "{bad}");
        }
        let many = vec!["1"; MAX_OWNERS + 1].join(",");
        assert!(uids(&many).unwrap_err().contains("at most 16"));
    }

    /// A finding of the fuzz target `map_records`.
    #[test]
    fn a_record_with_too_many_ids_is_an_error() {
        let read = |count: usize| {
            let text = serde_json::to_string(&vec![1337; count]).unwrap();
            read_proxy_ids(&mut serde_json::Deserializer::from_str(&text))
        };
        assert_eq!(read(MAX_OWNERS).unwrap().as_slice(), [1337; MAX_OWNERS]);
        let error = read(MAX_OWNERS + 1).unwrap_err().to_string();
        assert!(
            error.starts_with("17 IDs of the proxy: at most 16"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn nothing_panics_and_the_order_is_kept(ids: Vec<u32>) {
            let text: Vec<_> = ids.iter().map(ToString::to_string).collect();
            match parse(&text.join(","), &GROUPS, MAX_OWNER_GROUPS) {
                Ok(parsed) => prop_assert_eq!(parsed.as_slice(), &ids[..]),
                Err(_) => prop_assert!(ids.len() > MAX_OWNER_GROUPS || ids.contains(&u32::MAX)),
            }
        }
    }
}
