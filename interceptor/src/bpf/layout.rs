//! Under which names the maps are pinned, and so which of them two builds have in common.
//!
//! A map's pin bears a digest of its definition: a build whose map is another one finds none by that
//! name and makes its own, and what is defined alike is shared. Maps that mean something only
//! together bear one digest of all their definitions. So while builds change places
//! (`crate::dataplane::upgrade`),
//!
//! - **policies** are compiled anew, from their records, where that group is another;
//! - **stand-ins**: with another group, what is open stays connected, but questions for original
//!   destinations of connections that are open are answered with ENOENT (`getpeername`: with the
//!   stand-in), and a connection that is being made as the programs change is refused;
//! - **listeners** are found anew by walking the sockets, where that group is another, before the
//!   programs that ask for them change; connections to one that begins to listen between this and
//!   that are refused for that long;
//! - **asked**: with another map, UDP sockets that are connected to a DNS server are answered in the
//!   agent's name until they connect again;
//! - **calls**: with another group, each network namespace's own program is replaced by itself;
//! - **counts** begin at 0, with another map.
//!
//! The records are what all builds have in common: their map's definition never changes, and a
//! policy's value begins with its [`interceptor_ebpf::PolicyId`], by which its record is found.

use std::{collections::BTreeMap, sync::LazyLock};

use super::embedded::{self, AYA_LOGS, OFFSETS};
use crate::digest;

/// Maps that mean something only together, the one first that makes the others matter: it goes first
/// when they are taken away, so that nobody who comes back finds it without the others.
struct Group {
    /// Counts up when the same bytes come to mean something else.
    revision: u8,
    maps: &'static [&'static str],
}

/// The policies, by the cookies of their network namespaces.
pub const POLICIES: &str = "icept_policies";
/// The ports whose listeners are noted.
pub const LISTENER_PORTS: &str = "icept_lports";
/// What the program that looks at a network namespace has found.
pub const NETNS_STATE: &str = "icept_fib_gen";
/// How many connections there were of each kind.
pub const COUNTS: &str = "icept_counts";

const GROUPS: [Group; 12] = [
    Group {
        revision: 3,
        maps: &[
            POLICIES,
            "icept_ports",
            "icept_prefixes",
            "icept_routes",
            "icept_groups",
            "icept_ifaces",
        ],
    },
    Group {
        revision: 1,
        maps: &["icept_next", "icept_forward", "icept_stand_ins"],
    },
    Group {
        revision: 2,
        maps: &[LISTENER_PORTS, "icept_listeners"],
    },
    Group {
        revision: 1,
        maps: &["icept_usage"],
    },
    Group {
        revision: 1,
        maps: &["icept_share"],
    },
    Group {
        revision: 1,
        maps: &["icept_self"],
    },
    Group {
        revision: 1,
        maps: &["icept_asked"],
    },
    Group {
        revision: 1,
        maps: &["icept_calls", "icept_shared"],
    },
    Group {
        revision: 1,
        maps: &[OFFSETS],
    },
    Group {
        revision: 1,
        maps: &[NETNS_STATE],
    },
    Group {
        revision: 1,
        maps: &[COUNTS],
    },
    Group {
        revision: 1,
        maps: &[AYA_LOGS],
    },
];

/// The records, pinned under their plain name by every build.
pub const RECORDS: &str = "icept_settings";

/// The name that each map is pinned under.
static PINS: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let groups = GROUPS.iter().flat_map(|group| {
        let digest = group.digest();
        let pin = move |name| (name, format!("{name}-{digest:08x}"));
        group.maps.iter().copied().map(pin)
    });
    groups.chain([(RECORDS, RECORDS.to_owned())]).collect()
});

impl Group {
    fn digest(&self) -> u32 {
        let mut text = vec![self.revision];
        for name in self.maps {
            text.extend(name.bytes());
            let definition = embedded::map_definition(name).unwrap_or_default();
            text.extend(definition.into_iter().flat_map(u32::to_le_bytes));
        }
        let digest = digest::of(&text);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "half of it tells a handful of definitions apart"
        )]
        let half = digest as u32;
        half
    }
}

/// Every map that is pinned, with its pin's name.
pub fn pins() -> impl Iterator<Item = (&'static str, &'static str)> {
    PINS.iter().map(|(name, pin)| (*name, pin.as_str()))
}

/// The name of the pin of the map called `name`. (One that is not pinned has its own.)
#[must_use]
pub fn pin(name: &'static str) -> &'static str {
    PINS.get(name).map_or(name, String::as_str)
}

/// Whether a pin is of this build's layout.
#[must_use]
pub fn is_own(pin: &str) -> bool {
    PINS.values().any(|own| own == pin)
}

/// The name of the map that a pin of any layout is of.
#[must_use]
pub fn map_of(pin: &str) -> &str {
    pin.split_once('-').map_or(pin, |(name, _)| name)
}

/// Whether the map called `name` is the first of its group.
#[must_use]
pub fn is_first(name: &str) -> bool {
    GROUPS.iter().any(|group| group.maps.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_map_of_the_object_has_its_place() {
        let mut known: Vec<_> = pins().map(|(name, _)| name).collect();
        let mut pinned = embedded::pinned_maps();
        known.sort_unstable();
        pinned.sort_unstable();
        assert_eq!(known, pinned);
    }

    /// By which any build finds what another has attached.
    #[test]
    fn the_records_are_what_they_have_always_been() {
        assert_eq!(pin(RECORDS), RECORDS);
        let definition = embedded::map_definition(RECORDS).expect("records");
        let [kind, key, value, entries, flags] = definition;
        assert_eq!([kind, key, value, entries, flags], [1, 8, 1024, 1 << 16, 1]);
        assert_eq!(std::mem::offset_of!(interceptor_ebpf::Policy, id), 0);
    }

    #[test]
    fn a_pin_tells_its_map_and_its_layout() {
        let pin = pin(POLICIES);
        assert!(is_own(pin) && is_own(RECORDS));
        assert_eq!(map_of(pin), POLICIES);
        assert!(!is_own(POLICIES) && !is_own("icept_policies-0"));
    }
}
