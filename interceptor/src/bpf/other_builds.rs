//! The pins of other builds.
//!
//! Their programs are recognized by the directory, their maps by the names ([`layout`]). Only what all
//! builds have in common is read from the maps: a policy's value starts with its ID.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use interceptor_ebpf::{NetnsCookie, PolicyId};

use super::{embedded, layout, link, pins, pins::Pins, sys};

/// The pins of all builds except this.
#[derive(Debug, Default)]
pub(crate) struct OtherBuilds {
    maps: Vec<String>,
    programs: Vec<String>,
}

impl OtherBuilds {
    /// Lists them.
    pub(crate) fn find(pins: &Pins) -> Result<Self> {
        let mut maps = pins::names_in(&pins.maps())?;
        maps.retain(|pin| !layout::is_own(pin));
        // In the order of their removal.
        maps.sort_by_key(|pin| !layout::is_first(layout::map_of(pin)));
        let mut programs = pins::names_in(&pins.programs())?;
        programs.retain(|build| build != embedded::build_id());
        Ok(Self { maps, programs })
    }

    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.maps.is_empty() && self.programs.is_empty()
    }

    /// Whether another build has a map `name` of its own.
    #[must_use]
    pub(crate) fn has_own(&self, name: &str) -> bool {
        self.maps.iter().any(|pin| layout::map_of(pin) == name)
    }

    /// The network namespaces that other builds have attached, with the keys of their records.
    pub(crate) fn attached(&self, pins: &Pins) -> Result<Vec<(NetnsCookie, PolicyId)>> {
        let mut attached = Vec::new();
        for pin in &self.maps {
            if layout::map_of(pin) == layout::POLICIES {
                let pin = pins.maps().join(pin);
                let policies = policies(&pin);
                attached
                    .extend(policies.with_context(|| format!("cannot read {}", pin.display()))?);
            }
        }
        Ok(attached)
    }

    /// Removes them, programs first: if programs are pinned, their maps must be, too.
    pub(crate) fn remove(&self, pins: &Pins) -> Result<()> {
        for build in &self.programs {
            pins::remove_tree(&pins.programs().join(build))?;
        }
        for pin in &self.maps {
            link::remove_pin(&pins.maps().join(pin))?;
        }
        Ok(())
    }
}

/// Whether another build has policies in `dir`.
pub(super) fn has_policies(dir: &Path) -> Result<bool> {
    let is_foreign = |pin: &String| layout::map_of(pin) == layout::POLICIES && !layout::is_own(pin);
    Ok(pins::names_in(dir)?.iter().any(is_foreign))
}

/// Every entry of a map of policies, whatever follows the ID in its values.
fn policies(pin: &Path) -> Result<Vec<(NetnsCookie, PolicyId)>> {
    let map = MapData::from_pin(pin)?;
    let info = map.info()?;
    let (key_size, value_size) = (info.key_size() as usize, info.value_size() as usize);
    ensure!(
        key_size == size_of::<NetnsCookie>() && value_size >= size_of::<PolicyId>(),
        "its keys or values have an unknown size"
    );
    let mut policies = Vec::new();
    let mut last = None;
    // The caller holds the lock, so no other command changes the map.
    while let Some(key) = sys::map_next_key(map.fd(), last.as_deref(), key_size)? {
        if let Some(value) = sys::map_lookup(map.fd(), &key, value_size)?
            && let (Some(cookie), Some(id)) = (key.first_chunk(), value.first_chunk())
        {
            policies.push((
                NetnsCookie::from_ne_bytes(*cookie),
                PolicyId::from_ne_bytes(*id),
            ));
        }
        last = Some(key);
    }
    Ok(policies)
}
