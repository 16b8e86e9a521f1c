//! Stand-ins: finding, allotting and resolving them.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use interceptor_ebpf::{
    Address, Destination, ForwardKey, NetnsCookie, StandIn, StandInEntry, StandInNumber,
    StandInRange, slot_key,
};

use super::maps::{FORWARD, NEXT_STAND_IN, STAND_INS};

/// The stand-in of `destination`: the one it has, or a new one. `None` if a table is full.
#[inline(always)]
pub(crate) fn find_or_allot(netns: NetnsCookie, destination: Destination) -> Option<StandIn> {
    let key = ForwardKey::new(netns, destination);
    // SAFETY: the map does not preallocate.
    let number = match unsafe { FORWARD.get(key) } {
        Some(number) => *number,
        None => allot(key)?,
    };
    Some(StandIn::of(number, &destination))
}

/// The stand-in that `destination` has, if it has one.
#[inline(always)]
pub(crate) fn find(netns: NetnsCookie, destination: Destination) -> Option<StandIn> {
    // SAFETY: the map does not preallocate.
    let number = unsafe { FORWARD.get(ForwardKey::new(netns, destination)) }?;
    Some(StandIn::of(*number, &destination))
}

/// Allots the next number. The stand-in whose place it takes, the pod's oldest, is forgotten:
/// connections through it live on, but a question about one is answered with ENOENT from then on.
#[inline(always)]
fn allot(key: ForwardKey) -> Option<StandInNumber> {
    let number = next_number(key.netns)?;
    let slot = slot_key(key.netns, number);
    // SAFETY: the map does not preallocate.
    if let Some(oldest) = unsafe { STAND_INS.get(slot) } {
        forget(key.netns, oldest);
    }
    let entry = StandInEntry::new(number, key.destination);
    STAND_INS.insert(slot, entry, 0).ok()?;
    // Without room there the next connection allots anew. Of two processors that get here with the
    // same destination the first is followed: forwarded packets find their stand-in only here.
    let Err(_) = FORWARD.insert(key, number, BPF_NOEXIST.into()) else {
        return Some(number);
    };
    // SAFETY: the map does not preallocate.
    let first = unsafe { FORWARD.get(key) };
    Some(first.copied().unwrap_or(number))
}

#[inline(always)]
fn next_number(netns: NetnsCookie) -> Option<StandInNumber> {
    let next = NEXT_STAND_IN.get_ptr_mut(netns)?;
    let mut number: StandInNumber = 1;
    // BPF_ADD | BPF_FETCH, which Rust's atomics do not offer here: the target has no
    // compare-and-swap in Rust's eyes.
    //
    // SAFETY: the value is aligned, lives as long as the program runs, and is only ever changed
    // atomically.
    unsafe {
        asm!(
            "{number} = atomic_fetch_add((u64 *)({next} + 0), {number})",
            next = in(reg) next,
            number = inout(reg) number,
        );
    }
    Some(number)
}

#[inline(always)]
fn forget(netns: NetnsCookie, entry: &StandInEntry) {
    let key = ForwardKey::new(netns, entry.destination);
    // SAFETY: the map does not preallocate.
    let current = unsafe { FORWARD.get(key) };
    if current == Some(&entry.number) {
        let _gone = FORWARD.remove(key);
    }
}

/// What `stand_in` stands for in `netns`. `None` if it is no stand-in, was never allotted, or was
/// forgotten.
#[inline(always)]
pub(crate) fn resolve(netns: NetnsCookie, stand_in: StandIn) -> Option<Destination> {
    if !StandInRange::contains(stand_in.address) {
        return None;
    }
    // SAFETY: the map does not preallocate.
    let entry = unsafe { STAND_INS.get(stand_in.slot(netns)) }?;
    let same_family = entry.destination.address.is_v4() == stand_in.address.is_v4();
    (same_family && stand_in.is(entry.number)).then_some(entry.destination)
}

/// The destination that a stand-in's address alone speaks of, for datagrams that come from it: no
/// other has been allotted for at least 2¹⁷ allotments.
#[inline(always)]
pub(crate) fn resolve_address(
    netns: NetnsCookie,
    address: Address,
) -> Option<&'static Destination> {
    let stand_in = StandIn { address, port: 0 };
    // SAFETY: the map does not preallocate.
    let entry = unsafe { STAND_INS.get(stand_in.slot(netns)) }?;
    stand_in
        .has_index_of(entry.number)
        .then_some(&entry.destination)
}
