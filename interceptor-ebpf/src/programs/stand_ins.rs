//! Stand-ins: finding, allotting, evicting and resolving them.
//!
//! A pod has its share of the table: the newest stand-ins that it has allotted. Each new one evicts
//! the one that is a share older. A destination that the pod still connects to gets a new stand-in
//! before that, so that no connect meets the eviction of its own.

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

/// The stand-in of `destination`: the one it has, or a new one. `None` if a table is full.
#[inline(always)]
pub(crate) fn find_or_allot(netns: NetnsCookie, destination: Destination) -> Option<StandIn> {
    let [first, second, third]: [u64; 3] = transmute!(destination);
    let number = icept_stand_in(netns, first, second, third);
    (number != 0).then(|| StandIn::of(number, &destination))
}

/// The number of the stand-in of a destination, which comes in three parts; 0 if there is none.
///
/// A global function, so that the verifier looks at it once, and so that what it keeps on the stack
/// does not add to what the connect programs have there when they call other functions.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icept_stand_in(netns: u64, first: u64, second: u64, third: u64) -> u64 {
    let destination: Destination = transmute!([first, second, third]);
    let key = ForwardKey::new(netns, destination);
    let Some(counter) = Counter::of(netns) else {
        return 0;
    };
    let share: u64 = share::of_pod().stand_ins.into();
    // The packets of a forwarded connection find their way by the stand-in that it began with.
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
        let _gone = FORWARD.remove(key);
    }
    allot(key, counter, share)
}

/// The stand-in that `destination` has, if it has one.
#[inline(always)]
pub(crate) fn find(netns: NetnsCookie, destination: Destination) -> Option<StandIn> {
    // SAFETY: the map does not preallocate.
    let number = unsafe { FORWARD.get(ForwardKey::new(netns, destination)) }?;
    Some(StandIn::of(*number, &destination))
}

/// Allots the next number, and evicts the pod's oldest stand-in if it has its share: connections
/// through it live on, but a question about one is answered with ENOENT from then on.
#[inline(always)]
fn allot(key: ForwardKey, counter: Counter, share: u64) -> StandInNumber {
    let number = counter.take();
    evict(key.netns, number.wrapping_sub(share));
    let entry = StandInEntry::new(number, key.destination);
    let slot = slot_key(key.netns, number);
    if STAND_INS.insert(slot, entry, 0).is_err() {
        return 0;
    }
    // Without room there the next connection allots another. Of two processors that get here with
    // the same destination the first is followed: forwarded packets find their stand-in only here.
    if FORWARD.insert(key, number, BPF_NOEXIST.into()).is_err() {
        // SAFETY: the map does not preallocate.
        let first = unsafe { FORWARD.get(key) };
        return first.copied().unwrap_or(number);
    }
    if counter.age(number) > share {
        // The pod has allotted a whole share meanwhile, and whichever program evicted this number
        // may not have found the entry that was just made.
        let _gone = FORWARD.remove(key);
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

    /// How many numbers the pod has taken since `number`, and that one.
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
    forget(netns, entry);
    let _gone = STAND_INS.remove(slot);
    if let Some(usage) = STAND_IN_USAGE.get_ptr_mut(netns) {
        // SAFETY: the entry lives as long as the program runs.
        fetch_add_one(unsafe { &raw mut (*usage).evicted });
    }
}

/// `BPF_ADD | BPF_FETCH`, which Rust's atomics do not offer here: the target has no
/// compare-and-swap in Rust's eyes.
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
