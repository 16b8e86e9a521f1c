//! The names of the maps' pins, which determine the maps that two builds share.
//!
//! A pin's name contains a digest of the map's definition: a build with another definition finds no map
//! of that name and creates its own, and maps with the same definition are shared. Maps that are valid
//! only together have one digest of all their definitions. During an upgrade
//! (`crate::dataplane::upgrade`), a group with another digest has these effects:
//!
//! - **policies** are compiled again, from their records; the counters of each pod start at 0;
//! - **stand-ins**: open connections stay connected, but queries of their original destinations return
//!   ENOENT (`getpeername`: the stand-in), and a connection whose handshake meets the replacement of
//!   the programs is refused;
//! - **listeners** are registered again by iterating over the sockets, before the programs that look
//!   them up are replaced; if one starts to listen in between, connections to it are refused until the
//!   programs are replaced;
//! - **asked**: UDP sockets that are connected to a DNS server see the DNS proxy as the sender of
//!   responses until they connect again;
//! - **permitted**: strict mode judges the open connections of sockets again, by the settings of now;
//! - **calls**: the own program of each network namespace is replaced one by one;
//! - **counts** start at 0;
//! - **events**: observers read from the new buffer.
//!
//! The records are common to all builds: their map's definition never changes, and a policy's value
//! starts with its [`interceptor_ebpf::PolicyId`], which is the key of its record.

use std::{collections::BTreeMap, sync::LazyLock};

use super::embedded::{self, OFFSETS};
use crate::digest;

/// Maps that are valid only together. The first one makes the others effective: it is removed first, so
/// that no command finds it without the others.
struct Group {
    /// Incremented when the meaning of the same bytes changes.
    revision: u8,
    maps: &'static [&'static str],
}

/// The policies, by the cookies of their network namespaces.
pub(crate) const POLICIES: &str = "icept_policies";
/// The ports whose listeners are registered.
pub(crate) const LISTENER_PORTS: &str = "icept_lports";
/// The result of the program that reads the state of a network namespace.
pub(crate) const NETNS_STATE: &str = "icept_fib_gen";
/// The number of connections of each kind, of each pod.
pub(crate) const POD_COUNTS: &str = "icept_pod_count";
/// The number of connections of each kind, of all pods.
pub(crate) const COUNTS: &str = "icept_counts";

/// The events for observers. Increase the revision if [`interceptor_ebpf::Event`] changes.
pub(crate) const EVENTS: &str = "icept_events";

const GROUPS: [Group; 13] = [
    Group {
        revision: 4,
        maps: &[
            POLICIES,
            "icept_ports",
            "icept_prefixes",
            "icept_routes",
            "icept_groups",
            "icept_ifaces",
            "icept_uplinks",
            POD_COUNTS,
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
        maps: &["icept_permitted"],
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
        maps: &[EVENTS, "icept_observed", "icept_lost"],
    },
];

/// The records. Every build pins them under this name, without a digest.
pub(crate) const RECORDS: &str = "icept_settings";

/// The name of each map's pin.
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
            reason = "half of it distinguishes a handful of definitions"
        )]
        let half = digest as u32;
        half
    }
}

/// Every map that is pinned, with the name of its pin.
pub(crate) fn pins() -> impl Iterator<Item = (&'static str, &'static str)> {
    PINS.iter().map(|(name, pin)| (*name, pin.as_str()))
}

/// The name of the pin of the map `name`. (A map that is not pinned: its own name.)
#[must_use]
pub(crate) fn pin(name: &'static str) -> &'static str {
    PINS.get(name).map_or(name, String::as_str)
}

/// Whether a pin is of this build's layout.
#[must_use]
pub(crate) fn is_own(pin: &str) -> bool {
    PINS.values().any(|own| own == pin)
}

/// The name of the map of a pin, whatever the layout.
#[must_use]
pub(crate) fn map_of(pin: &str) -> &str {
    pin.split_once('-').map_or(pin, |(name, _)| name)
}

/// Whether the map `name` is the first of its group.
#[must_use]
pub(crate) fn is_first(name: &str) -> bool {
    GROUPS.iter().any(|group| group.maps.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_map_of_the_object_is_in_a_group() {
        let mut known: Vec<_> = pins().map(|(name, _)| name).collect();
        let mut pinned = embedded::pinned_maps();
        known.sort_unstable();
        pinned.sort_unstable();
        assert_eq!(known, pinned);
    }

    /// Any build finds by them what another has attached.
    #[test]
    fn the_layout_of_the_records_has_not_changed() {
        assert_eq!(pin(RECORDS), RECORDS);
        let definition = embedded::map_definition(RECORDS).expect("records");
        let [kind, key, value, entries, flags] = definition;
        assert_eq!([kind, key, value, entries, flags], [1, 8, 1024, 1 << 16, 1]);
        assert_eq!(std::mem::offset_of!(interceptor_ebpf::Policy, id), 0);
    }

    #[test]
    fn a_pin_identifies_its_map_and_its_layout() {
        let pin = pin(POLICIES);
        assert!(is_own(pin) && is_own(RECORDS));
        assert_eq!(map_of(pin), POLICIES);
        assert!(!is_own(POLICIES) && !is_own("icept_policies-0"));
    }
}
