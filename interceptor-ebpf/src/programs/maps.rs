//! All maps, and the constants that are set when the object is loaded.
//!
//! Maps marked `pinned` are shared by all pods of the machine and outlive the processes that use
//! them. All hash maps are `BPF_F_NO_PREALLOC`: they allocate memory as they fill, and an element's
//! memory belongs to the map until the program ends (RCU), which makes the references below sound.
//! From Linux 6.1 on the memory of a deleted element may be reused in the meantime
//! (`bpf_mem_alloc`): so userspace waits for running programs before it adds elements after it has
//! replaced or deleted some.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, SockHash},
};
use interceptor_ebpf::{
    Call, Counts, DnsSocketState, EVENT_BUFFER, ForwardKey, GroupKey, Interface, InterfaceKey,
    KernelOffsets, LISTENERS_IN_ALL, ListenerKey, ListenerPort, ListenerPortKey, MAX_PODS,
    NetnsCookie, NetnsState, PodCounts, Policy, PortPage, PortPageKey, PrefixFlags, PrefixKey,
    Route, SETTINGS_CHUNK, STAND_INS_IN_ALL, SelfConnection, SettingsKey, Share, SlotKey,
    StandInEntry, StandInNumber, StandInUsage, Uplink, UplinkKey,
};

/// The offsets of the running kernel, set at load.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<KernelOffsets> = Global::new(KernelOffsets::UNKNOWN);

const PODS: u32 = MAX_PODS;

/// The number of ports with registered listeners, of all pods.
const LISTENER_PORTS_IN_ALL: u32 = if cfg!(feature = "other-layout") {
    PODS * 8
} else {
    PODS * 4
};

/// The number of concurrent handshakes of pods with themselves.
const HANDSHAKES: u32 = 1 << 13;

/// The policy of each captured network namespace. A namespace is captured if it has an entry here.
#[map(name = "icept_policies")]
pub(crate) static POLICIES: HashMap<NetnsCookie, Policy> = HashMap::pinned(PODS, BPF_F_NO_PREALLOC);

/// The port lists of the policies.
#[map(name = "icept_ports")]
pub(crate) static PORTS: HashMap<PortPageKey, PortPage> =
    HashMap::pinned(1 << 18, BPF_F_NO_PREALLOC);

/// The included and excluded prefixes of the policies.
#[map(name = "icept_prefixes")]
pub(crate) static PREFIXES: LpmTrie<PrefixKey, PrefixFlags> =
    LpmTrie::pinned(1 << 20, BPF_F_NO_PREALLOC);

/// The routes of the pods.
#[map(name = "icept_routes")]
pub(crate) static ROUTES: LpmTrie<PrefixKey, Route> = LpmTrie::pinned(1 << 20, BPF_F_NO_PREALLOC);

/// The owner groups that the policies list.
#[map(name = "icept_groups")]
pub(crate) static GROUPS: HashMap<GroupKey, u8> = HashMap::pinned(PODS * 64, BPF_F_NO_PREALLOC);

/// The interfaces of the pods.
#[map(name = "icept_ifaces")]
pub(crate) static INTERFACES: HashMap<InterfaceKey, Interface> =
    HashMap::pinned(PODS * 4, BPF_F_NO_PREALLOC);

/// The interfaces at which strict mode is enforced.
#[map(name = "icept_uplinks")]
pub(crate) static UPLINKS: HashMap<UplinkKey, Uplink> =
    HashMap::pinned(PODS * 4, BPF_F_NO_PREALLOC);

/// The connected sockets that strict mode has permitted to leave the pod. The kernel deletes an
/// entry with its socket.
#[btf_map(name = "icept_permitted")]
pub(crate) static PERMITTED: SkStorage<u32> = SkStorage::new();

/// The records of the policies. For userspace only.
#[map(name = "icept_settings")]
static SETTINGS: HashMap<SettingsKey, [u8; SETTINGS_CHUNK]> =
    HashMap::pinned(1 << 16, BPF_F_NO_PREALLOC);

/// The next stand-in number of each pod.
#[map(name = "icept_next")]
pub(crate) static NEXT_STAND_IN: HashMap<NetnsCookie, StandInNumber> =
    HashMap::pinned(PODS, BPF_F_NO_PREALLOC);

/// The use of each pod's stand-ins.
#[map(name = "icept_usage")]
pub(crate) static STAND_IN_USAGE: HashMap<NetnsCookie, StandInUsage> =
    HashMap::pinned(PODS, BPF_F_NO_PREALLOC);

/// The part of the shared tables that each pod may use.
#[map(name = "icept_share")]
pub(crate) static SHARE: Array<Share> = Array::pinned(1, 0);

/// The stand-in of a destination. For sockets a cache of `STAND_INS`.
#[map(name = "icept_forward")]
pub(crate) static FORWARD: HashMap<ForwardKey, StandInNumber> =
    HashMap::pinned(STAND_INS_IN_ALL, BPF_F_NO_PREALLOC);

/// The destination of each stand-in.
#[map(name = "icept_stand_ins")]
pub(crate) static STAND_INS: HashMap<SlotKey, StandInEntry> =
    HashMap::pinned(STAND_INS_IN_ALL, BPF_F_NO_PREALLOC);

/// The state of UDP sockets that send DNS queries. The kernel deletes it with the socket.
#[btf_map(name = "icept_asked")]
pub(crate) static DNS_SOCKETS: SkStorage<DnsSocketState> = SkStorage::new();

/// The ports whose listeners are registered, and the slots to search first. Userspace adds the
/// entries.
#[map(name = "icept_lports")]
pub(crate) static LISTENER_PORTS: HashMap<ListenerPortKey, ListenerPort> =
    HashMap::pinned(LISTENER_PORTS_IN_ALL, BPF_F_NO_PREALLOC);

/// The proxies' listening sockets. The kernel removes a socket when it closes.
#[map(name = "icept_listeners")]
pub(crate) static LISTENERS: SockHash<ListenerKey> = SockHash::pinned(LISTENERS_IN_ALL, 0);

/// The pods' connections to themselves, during their handshake. An evicted one counts as one from
/// outside.
#[map(name = "icept_self")]
pub(crate) static SELF_CONNECTIONS: LruHashMap<SelfConnection, u8> =
    LruHashMap::pinned(HANDSHAKES, 0);

/// The cookie that a network namespace's dispatcher passes to the shared program.
#[map(name = "icept_calls")]
pub(crate) static CALLS: PerCpuArray<Call> = PerCpuArray::pinned(1, 0);

/// The shared programs that the dispatchers tail-call.
#[map(name = "icept_shared")]
static SHARED: ProgramArray = ProgramArray::pinned(1, 0);

/// The counters of the connections of all pods.
#[map(name = "icept_counts")]
pub(crate) static COUNTS: PerCpuArray<Counts> = PerCpuArray::pinned(1, 0);

/// The counters of each pod's connections, by [`Policy::counters`]. (Not per CPU: that would need
/// memory for [`MAX_PODS`] pods on every CPU.)
#[map(name = "icept_pod_count")]
pub(crate) static POD_COUNTS: Array<PodCounts> = Array::pinned(PODS, 0);

/// The time (`CLOCK_MONOTONIC`, in nanoseconds) until which an observer reads events; 0 if there is
/// none.
#[map(name = "icept_observed")]
pub(crate) static OBSERVED_UNTIL: Array<u64> = Array::pinned(1, 0);

/// The events that the observer has not read yet.
#[map(name = "icept_events")]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(EVENT_BUFFER, 0);

/// The events that did not fit into the buffer.
#[map(name = "icept_lost")]
pub(crate) static LOST_EVENTS: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);

/// The offsets that the programs were loaded with: a cache for userspace, which is slow to find
/// them.
#[map(name = "icept_offsets")]
static KNOWN_OFFSETS: Array<KernelOffsets> = Array::pinned(1, 0);

/// The result of `icept_fib`. Userspace runs it and reads this under the machine-wide lock.
#[map(name = "icept_fib_gen")]
pub(crate) static FIB: Array<NetnsState> = Array::pinned(1, 0);
