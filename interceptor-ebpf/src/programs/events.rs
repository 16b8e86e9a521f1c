//! Events for observers: the outcome of each connection, in a ring buffer.
//!
//! Most of the time there is no observer, and the cost is then the test of one number. An observer
//! announces itself by a time until which it reads, which it extends while it runs: events end by
//! themselves after it is killed.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_comm, bpf_ktime_get_ns},
    },
};
use interceptor_ebpf::{
    Address, COMMAND_LENGTH, Counted, Event, NetnsCookie, Outbound, Owner, Transport,
};

use super::{
    maps::{EVENTS, LOST_EVENTS, OBSERVED_UNTIL},
    uapi::{IPPROTO_TCP, IPPROTO_UDP},
};

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) source: Address,
    /// In host byte order; 0 if unknown.
    pub(crate) source_port: u16,
    pub(crate) destination: Address,
    /// In host byte order.
    pub(crate) port: u16,
}

/// What opened a connection.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// The current process, by a socket of this owner.
    Process(Owner, Transport),
    /// A packet; any process may be the current one.
    Packet,
}

/// Whether an observer reads events.
#[inline(always)]
pub(crate) fn are_observed() -> bool {
    let Some(until) = OBSERVED_UNTIL.get_ptr(0) else {
        return false;
    };
    // SAFETY: the value lives as long as the map; userspace writes it at once.
    let until = unsafe { until.read_volatile() };
    // SAFETY: the helper has no arguments.
    until != 0 && unsafe { bpf_ktime_get_ns() } < until
}

/// Writes an event. Call only if [`are_observed`].
#[inline(always)]
pub(crate) fn write(
    netns: NetnsCookie,
    ends: Ends,
    origin: Origin,
    counted: Counted,
    proxy_port: u16,
) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        lose_one();
        return;
    };
    let (owner, protocol, pid) = match origin {
        Origin::Process(owner, Transport::Tcp) => (owner, IPPROTO_TCP, process()),
        Origin::Process(owner, Transport::Udp) => (owner, IPPROTO_UDP, process()),
        Origin::Packet => (Owner::NONE, IPPROTO_TCP, 0),
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the buffer is large enough for the event, and aligned.
    let command = unsafe { &raw mut (*event).command };
    // SAFETY: as above. All members except the command are written here.
    unsafe {
        // SAFETY: the helper has no arguments.
        (&raw mut (*event).time).write(bpf_ktime_get_ns());
        (&raw mut (*event).netns).write(netns);
        (&raw mut (*event).destination).write(ends.destination);
        (&raw mut (*event).source).write(ends.source);
        (&raw mut (*event).pid).write(pid);
        (&raw mut (*event).uid).write(owner.uid);
        (&raw mut (*event).gid).write(owner.gid);
        (&raw mut (*event).outcome).write(counted.index() as u32);
        (&raw mut (*event).port).write(ends.port);
        (&raw mut (*event).source_port).write(ends.source_port);
        (&raw mut (*event).proxy_port).write(proxy_port);
        (&raw mut (*event).protocol).write(protocol as u16);
    }
    match origin {
        // SAFETY: the helper writes the given number of bytes, also if it fails.
        Origin::Process(..) => unsafe {
            bpf_get_current_comm(command.cast(), COMMAND_LENGTH as u32);
        },
        // SAFETY: as above. (One word at a time: an array is set to zero by a function that loops.)
        Origin::Packet => unsafe {
            command.cast::<u64>().write_volatile(0);
            command.cast::<u64>().add(1).write_volatile(0);
        },
    }
    // The observer polls: a wakeup for each event would cost more than the event.
    entry.submit(BPF_RB_NO_WAKEUP.into());
}

/// The ends of a call.
impl From<&Outbound> for Ends {
    #[inline(always)]
    fn from(facts: &Outbound) -> Self {
        Self {
            source: facts.source,
            source_port: 0,
            destination: facts.destination,
            port: facts.port,
        }
    }
}

/// The ID of the current process.
#[inline(always)]
fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The buffer is full.
#[inline(always)]
fn lose_one() {
    if let Some(lost) = LOST_EVENTS.get_ptr_mut(0) {
        // SAFETY: the value lives as long as the map. Another program may interrupt this one, and
        // one of the two is not counted.
        unsafe { lost.write_volatile(lost.read_volatile() + 1) };
    }
}
