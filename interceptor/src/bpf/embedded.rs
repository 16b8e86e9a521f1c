//! The BPF object that is part of this binary, and the maps that it declares.

use std::{collections::HashMap, sync::LazyLock};

use crate::digest;

/// Built by `cargo xtask build-ebpf`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("INTERCEPTOR_EBPF_OBJECT"));

/// The map that caches the kernel offsets while any pod is attached: finding them is slow.
pub(super) const OFFSETS: &str = "icept_offsets";

/// The maps that the object declares.
static MAPS: LazyLock<HashMap<String, aya_obj::Map>> = LazyLock::new(|| {
    aya_obj::Object::parse(OBJECT).map_or_else(|_| HashMap::new(), |object| object.maps)
});

/// Distinguishes the programs of this build from those of another.
#[must_use]
pub(crate) fn build_id() -> &'static str {
    // Every change needs the ID, and the object is large.
    static BUILD: LazyLock<String> = LazyLock::new(|| format!("{:016x}", digest::of(OBJECT)));
    &BUILD
}

/// The definition of the map `name`: its type, key size, value size, capacity and flags.
pub(super) fn map_definition(name: &str) -> Option<[u32; 5]> {
    let map = MAPS.get(name)?;
    Some([
        map.map_type(),
        map.key_size(),
        map.value_size(),
        map.max_entries(),
        map.map_flags(),
    ])
}

/// The maps that are pinned: all except those that the compiler adds, which start with a dot.
#[cfg(test)]
pub(super) fn pinned_maps() -> Vec<&'static str> {
    let names = MAPS.keys().map(String::as_str);
    names.filter(|name| !name.starts_with('.')).collect()
}
