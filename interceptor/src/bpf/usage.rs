//! How full the shared maps are.

use anyhow::{Context as _, Result};
use aya::maps::{MapError, MapInfo};

use super::{layout, maps::Maps, pins::Pins};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// The name that the map is pinned by.
    pub name: &'static str,
    /// How many entries are in it.
    pub entries: u32,
    /// How many there is room for.
    pub capacity: u32,
}

/// Counts the entries of every map whose entries come and go: one system call for each entry.
/// Nothing while nothing is attached.
pub fn read() -> Result<Vec<MapUsage>> {
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
        // Entries that come and go meanwhile may have the kernel begin anew, again and again.
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
