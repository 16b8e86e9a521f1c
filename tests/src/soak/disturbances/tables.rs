//! Tables that all pods share are full, or almost full, of entries of pods that do not exist.
//!
//! A bpffs has no size to be limited: its objects only need kernel memory. What can run full are these
//! tables. Of those that a connection or a pod needs, enough is left for the soak's own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_testkit::bpf::maps::Map;

use super::Scene;

/// How long a table stays full at most.
const MAX_TIME: Duration = Duration::from_secs(4);
/// Entries per call.
const BATCH: u32 = 1 << 12;
/// The first bytes of the added keys: no network namespace has such a cookie.
const FOREIGN: u32 = u32::MAX;

/// A table, and the number of its entries that are left free.
const TABLES: [(&str, u32); 3] = [
    // Without an entry here, a new connection to a known destination gets another stand-in.
    ("icept_forward", 0),
    // A new destination needs an entry. Each of the pods has about 2000, and its older ones.
    ("icept_stand_ins", 1 << 17),
    // A new pod needs an entry.
    ("icept_next", 32),
];

pub(super) fn fill(scene: &mut Scene<'_>) -> Result<()> {
    let Some((name, left)) = scene.random.pick(&TABLES).copied() else {
        return Ok(());
    };
    let Some(map) = Map::of_interceptor(name)? else {
        return Ok(());
    };
    let filled = fill_up(&map, left).with_context(|| name.to_owned());
    let rested = scene.rest(MAX_TIME);
    let emptied = empty(&map).with_context(|| name.to_owned());
    filled?;
    rested?;
    emptied
}

/// Adds foreign entries until `left` are free, or none.
fn fill_up(map: &Map, left: u32) -> Result<()> {
    let most = map.max_entries().saturating_sub(left);
    let mut added = 0;
    while added < most {
        let count = BATCH.min(most - added);
        let keys: Vec<u8> = (added..added + count)
            .flat_map(|number| key(map, number))
            .collect();
        let done = map.fill(&keys)?;
        added += done;
        if done < count {
            break;
        }
    }
    Ok(())
}

fn key(map: &Map, number: u32) -> Vec<u8> {
    let mut key = vec![0xff; map.key_size()];
    key[..4].copy_from_slice(&FOREIGN.to_ne_bytes());
    key[4..8].copy_from_slice(&number.to_ne_bytes());
    key
}

/// Removes the foreign entries, whether or not they are still there: the agent may have swept.
fn empty(map: &Map) -> Result<()> {
    for number in 0..map.max_entries() {
        match map.remove(&key(map, number)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}
