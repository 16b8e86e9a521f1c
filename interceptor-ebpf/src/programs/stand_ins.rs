//! Finds, allocates, evicts and resolves stand-ins.
//!
//! A pod has its share of the table: the newest stand-ins that it has allocated. Each new one
//! evicts the one that is a share older. A destination that the pod still connects to gets a new
//! stand-in before that, so that no `connect` races with the eviction of its own stand-in.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use interceptor_ebpf::{
    Address, Destination, ForwardKey, NetnsCookie, StandIn, StandInEntry, StandInNumber,
    StandInRange, slot_key,
};
use zerocopy::transmute;

use super::{
    maps::{FORWARD, NEXT_STAND_IN, STAND_IN_USAGE, STAND_INS},
    share,
};

/// The stand-in of `destination`, allocated if it has none. `None` if a table is full.
#[inline(always)]
pub(crate) fn find_or_allocate(netns: NetnsCookie, destination: Destination) -> Option<StandIn> {
    let [first, second, third]: [u64; 3] = transmute!(destination);
    let number = icept_stand_in(netns, first, second, third);
    (number != 0).then(|| StandIn::of(number, &destination))
}

/// The number of the stand-in of a destination, which is passed in three parts; 0 if there is none.
///
/// A global function, so that the verifier verifies it once, and so that its stack frame does not add
/// to that of the connect programs when they call other functions.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_stand_in(netns: u64, first: u64, second: u64, third: u64) -> u64 {
    let destination: Destination = transmute!([first, second, third]);
    let key = ForwardKey::new(netns, destination);
    let Some(counter) = Counter::of(netns) else {
        return 0;
    };
    let share: u64 = share::of_pod().stand_ins.into();
    // The packets of a forwarded connection need the stand-in of its first packet.
    let in_use = if destination.interface == 0 {
        share / 2
    } else {
        share
    };
    // SAFETY: the map does not preallocate.
    if let Some(number) = unsafe { FORWARD.get(key) } {
        if counter.age(*number) <= in_use {
            return *number;
        }
        let _removed = FORWARD.remove(key);
    }
    allocate(key, counter, share)
}

/// The stand-in of `destination`, if it has one.
#[inline(always)]
pub(crate) fn find(netns: NetnsCookie, destination: Destination) -> Option<StandIn> {
    // SAFETY: the map does not preallocate.
    let number = unsafe { FORWARD.get(ForwardKey::new(netns, destination)) }?;
    Some(StandIn::of(*number, &destination))
}

/// Allocates the next number, and evicts the pod's oldest stand-in if the pod has its share: its
/// connections stay open, but `SO_ORIGINAL_DST` returns ENOENT for them from then on.
#[inline(always)]
fn allocate(key: ForwardKey, counter: Counter, share: u64) -> StandInNumber {
    let number = counter.take();
    evict(key.netns, number.wrapping_sub(share));
    let entry = StandInEntry::new(number, key.destination);
    let slot = slot_key(key.netns, number);
    if STAND_INS.insert(slot, entry, 0).is_err() {
        return 0;
    }
    // If `FORWARD` is full, the next connection allocates another. If two CPUs race for the same
    // destination, the first wins: forwarded packets find their stand-in only here.
    if FORWARD.insert(key, number, BPF_NOEXIST.into()).is_err() {
        // SAFETY: the map does not preallocate.
        let first = unsafe { FORWARD.get(key) };
        return first.copied().unwrap_or(number);
    }
    if counter.age(number) > share {
        // The pod has allocated a whole share in the meantime, and the program that evicted this
        // number may have missed the new entry.
        let _removed = FORWARD.remove(key);
        return 0;
    }
    number
}

/// The next number of a pod.
#[derive(Clone, Copy)]
struct Counter(*mut StandInNumber);

impl Counter {
    #[inline(always)]
    fn of(netns: NetnsCookie) -> Option<Self> {
        NEXT_STAND_IN.get_ptr_mut(netns).map(Self)
    }

    /// How many numbers the pod has allocated from `number` on.
    #[inline(always)]
    fn age(self, number: StandInNumber) -> u64 {
        // SAFETY: the entry lives as long as the program runs, and is only ever changed atomically.
        unsafe { self.0.read_volatile() }.wrapping_sub(number)
    }

    #[inline(always)]
    fn take(self) -> StandInNumber {
        fetch_add_one(self.0)
    }
}

/// Evicts the stand-in `number`, if the pod has it.
#[inline(always)]
fn evict(netns: NetnsCookie, number: StandInNumber) {
    let slot = slot_key(netns, number);
    // SAFETY: the map does not preallocate.
    let Some(entry) = (unsafe { STAND_INS.get(slot) }) else {
        return;
    };
    if entry.number != number {
        return;
    }
    remove_forward(netns, entry);
    let _removed = STAND_INS.remove(slot);
    if let Some(usage) = STAND_IN_USAGE.get_ptr_mut(netns) {
        // SAFETY: the entry lives as long as the program runs.
        fetch_add_one(unsafe { &raw mut (*usage).evicted });
    }
}

/// `BPF_ADD | BPF_FETCH`. Rust's atomics are missing on this target, which for Rust has no
/// compare-and-swap.
#[inline(always)]
fn fetch_add_one(number: *mut u64) -> u64 {
    let mut value = 1_u64;
    // SAFETY: the callers' number is aligned, lives as long as the program runs, and is only ever
    // changed atomically.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({number} + 0), {value})",
            number = in(reg) number,
            value = inout(reg) value,
        );
    }
    value
}

#[inline(always)]
fn remove_forward(netns: NetnsCookie, entry: &StandInEntry) {
    let key = ForwardKey::new(netns, entry.destination);
    // SAFETY: the map does not preallocate.
    let current = unsafe { FORWARD.get(key) };
    if current == Some(&entry.number) {
        let _removed = FORWARD.remove(key);
    }
}

/// The destination of `stand_in` in `netns`. `None` if it is no stand-in, was never allocated, or
/// was evicted.
#[inline(always)]
pub(crate) fn resolve(netns: NetnsCookie, stand_in: StandIn) -> Option<Destination> {
    if !StandInRange::contains(stand_in.address) {
        return None;
    }
    // SAFETY: the map does not preallocate.
    let entry = unsafe { STAND_INS.get(stand_in.slot(netns)) }?;
    let same_family = entry.destination.address.is_v4() == stand_in.address.is_v4();
    (same_family && stand_in.matches_number(entry.number)).then_some(entry.destination)
}

/// The destination of a stand-in's address alone, for datagrams from it: the address is unique
/// within 2¹⁷ allocations.
#[inline(always)]
pub(crate) fn resolve_address(
    netns: NetnsCookie,
    address: Address,
) -> Option<&'static Destination> {
    let stand_in = StandIn { address, port: 0 };
    // SAFETY: the map does not preallocate.
    let entry = unsafe { STAND_INS.get(stand_in.slot(netns)) }?;
    stand_in
        .matches_index(entry.number)
        .then_some(&entry.destination)
}
