//! The number of entries in the shared maps.

use anyhow::{Context as _, Result};
use aya::maps::{MapError, MapInfo};
use serde::Serialize;

use super::{layout, maps::Maps, pins::Pins};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MapUsage {
    pub name: &'static str,
    pub entries: u32,
    pub capacity: u32,
}

/// Counts the entries of every map with a varying number of entries: one system call for each entry.
/// Empty if no pod is attached.
pub(crate) fn read() -> Result<Vec<MapUsage>> {
    let pins = Pins::new();
    let Some(maps) = Maps::open_if_complete(&pins.maps())? else {
        return Ok(Vec::new());
    };
    let usage = |name, keys: &mut dyn Iterator<Item = Result<(), MapError>>| -> Result<MapUsage> {
        let pin = pins.maps().join(layout::pin(name));
        let info = MapInfo::from_pin(&pin);
        let capacity =
            info.with_context(|| format!("cannot read the map info of {}", pin.display()))?;
        let capacity = capacity.max_entries();
        // Concurrent changes may make the kernel restart the iteration repeatedly, so it is limited.
        let entries = keys.zip(0..capacity).filter(|(key, _)| key.is_ok()).count();
        let entries = u32::try_from(entries).unwrap_or(capacity);
        Ok(MapUsage {
            name,
            entries,
            capacity,
        })
    };
    macro_rules! all {
        ($($field:ident: $name:literal),* $(,)?) => {
            vec![$(usage($name, &mut maps.$field.keys().map(|key| key.map(drop)))?),*]
        };
    }
    Ok(all! {
        policies: "icept_policies",
        ports: "icept_ports",
        prefixes: "icept_prefixes",
        routes: "icept_routes",
        groups: "icept_groups",
        interfaces: "icept_ifaces",
        settings: "icept_settings",
        forward: "icept_forward",
        stand_ins: "icept_stand_ins",
        listener_ports: "icept_lports",
        listeners: "icept_listeners",
    })
}
