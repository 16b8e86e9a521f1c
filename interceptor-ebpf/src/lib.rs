//! The code that Interceptor's BPF programs and userspace share: the policy, the decision, and the
//! layout of all map keys and values.
//!
//! This library is `no_std` and compiles for both sides. Only [`decide`] computes
//! verdicts; the BPF programs of this package's binary are shims that collect the facts of a
//! [`Flow`] and apply the [`Verdict`].
//!
//! An [`Address`] is in network byte order; ports are in host byte order everywhere.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "BPF-to-BPF calls cost stack, and the verifier knows less in the callee"
)]

// The decision: pure functions of the facts and the policy.
mod decide;
mod flow;
mod reason;

// Keys and values of maps.
mod address;
mod call;
mod count;
mod event;
mod keys;
mod layout;
mod listener;
mod policy;
mod route;
mod share;
mod stand_in;

// Members of the kernel's structures.
mod kernel;

pub use address::Address;
pub use call::{CALL_WORDS, CALLER_SHIFT, Call};
pub use count::{COUNTS, Counted, Counts, Direction, Outcome, PodCounts};
pub use decide::{PolicyLookups, Verdict, decide};
pub use event::{COMMAND_LENGTH, EVENT_BUFFER, Event};
pub use flow::{Flow, Inbound, Outbound, Owner, Transport};
pub use kernel::{FibGeneration, KernelOffsets, NetnsState, UNKNOWN_OFFSET};
pub use keys::{
    Destination, DnsSocketState, ForwardKey, GroupKey, Interface, InterfaceKey, NetnsCookie,
    PolicyId, PortPage, PortPageKey, PrefixKey, SETTINGS_CHUNK, SelfConnection, SettingsKey,
    SlotKey, StandInEntry, StandInUsage, Uplink, UplinkKey,
};
pub use listener::{
    LISTENER_ADDRESSES, ListenerAddress, ListenerKey, ListenerPort, ListenerPortKey,
    MAX_LISTENER_PORTS,
};
pub use policy::{
    DNS_CAPTURE_PORT, DNS_PORT, InterfaceFlags, Listener, MAX_OWNERS, OTHER, OwnerIds, Policy,
    PolicyFlags, PortFlags, PrefixFlags, V4Prefix,
};
pub use reason::{Reason, Refusal};
pub use route::{Route, RouteFlags};
pub use share::{
    LISTENERS_IN_ALL, MAX_LISTENER_SLOTS, MAX_PODS, MAX_STAND_INS, STAND_INS_IN_ALL, Share,
};
pub use stand_in::{
    SOURCELESS, SOURCES, STAND_IN_V4_PREFIX_LEN, STAND_IN_V6_PREFIX_LEN, StandIn, StandInNumber,
    StandInRange, slot_key,
};
