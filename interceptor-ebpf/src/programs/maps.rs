//! Every map, and what is set when the object is loaded.
//!
//! Maps marked `pinned` are shared by all pods of the machine and outlive every process of ours.
//! All hash maps are `BPF_F_NO_PREALLOC`: they take memory as they fill, and what is looked up stays
//! memory of the map until the program ends (RCU), which is what makes the references below sound.
//! That of an element that goes meanwhile may be another's from Linux 6.1 on (`bpf_mem_alloc`): so
//! userspace waits for running programs before it adds anew where it has replaced or removed.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, SockHash},
};
use interceptor_ebpf::{
    Call, Counts, DnsSocketState, ForwardKey, GroupKey, Interface, InterfaceKey, KernelOffsets,
    LISTENERS_IN_ALL, ListenerKey, ListenerPort, ListenerPortKey, MAX_PODS, NetnsCookie,
    NetnsState, Policy, PortPage, PortPageKey, PrefixFlags, PrefixKey, Route, SETTINGS_CHUNK,
    STAND_INS_IN_ALL, SelfConnection, SettingsKey, Share, SlotKey, StandInEntry, StandInNumber,
    StandInUsage,
};

/// Where the running kernel keeps what we read of it.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<KernelOffsets> = Global::new(KernelOffsets::UNKNOWN);

const PODS: u32 = MAX_PODS;

/// How many ports of all pods have listeners that are noted.
const LISTENER_PORTS_IN_ALL: u32 = if cfg!(feature = "other-layout") {
    PODS * 8
} else {
    PODS * 4
};

/// How many connections of pods to themselves may be in their handshake at once.
const HANDSHAKES: u32 = 1 << 13;

/// The policy of each captured network namespace. An entry here is what "captured" means.
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

/// The routing of the pods.
#[map(name = "icept_routes")]
pub(crate) static ROUTES: LpmTrie<PrefixKey, Route> = LpmTrie::pinned(1 << 20, BPF_F_NO_PREALLOC);

/// The owner groups that the policies list.
#[map(name = "icept_groups")]
pub(crate) static GROUPS: HashMap<GroupKey, u8> = HashMap::pinned(PODS * 64, BPF_F_NO_PREALLOC);

/// The interfaces of the pods.
#[map(name = "icept_ifaces")]
pub(crate) static INTERFACES: HashMap<InterfaceKey, Interface> =
    HashMap::pinned(PODS * 4, BPF_F_NO_PREALLOC);

/// The settings that the policies were made from: kept for userspace, read by no program.
#[map(name = "icept_settings")]
static SETTINGS: HashMap<SettingsKey, [u8; SETTINGS_CHUNK]> =
    HashMap::pinned(1 << 16, BPF_F_NO_PREALLOC);

/// The next stand-in number of each pod.
#[map(name = "icept_next")]
pub(crate) static NEXT_STAND_IN: HashMap<NetnsCookie, StandInNumber> =
    HashMap::pinned(PODS, BPF_F_NO_PREALLOC);

/// What each pod has used of its stand-ins.
#[map(name = "icept_usage")]
pub(crate) static STAND_IN_USAGE: HashMap<NetnsCookie, StandInUsage> =
    HashMap::pinned(PODS, BPF_F_NO_PREALLOC);

/// What each pod may use of the tables that all share.
#[map(name = "icept_share")]
pub(crate) static SHARE: Array<Share> = Array::pinned(1, 0);

/// The stand-in that a destination has. For sockets a cache: what counts is in `STAND_INS`.
#[map(name = "icept_forward")]
pub(crate) static FORWARD: HashMap<ForwardKey, StandInNumber> =
    HashMap::pinned(STAND_INS_IN_ALL, BPF_F_NO_PREALLOC);

/// What each stand-in stands for.
#[map(name = "icept_stand_ins")]
pub(crate) static STAND_INS: HashMap<SlotKey, StandInEntry> =
    HashMap::pinned(STAND_INS_IN_ALL, BPF_F_NO_PREALLOC);

/// What is remembered of UDP sockets that ask DNS servers. It goes with the socket.
#[btf_map(name = "icept_asked")]
pub(crate) static DNS_SOCKETS: SkStorage<DnsSocketState> = SkStorage::new();

/// The ports whose listeners are noted, and where to look first among them. Userspace makes the
/// entries.
#[map(name = "icept_lports")]
pub(crate) static LISTENER_PORTS: HashMap<ListenerPortKey, ListenerPort> =
    HashMap::pinned(LISTENER_PORTS_IN_ALL, BPF_F_NO_PREALLOC);

/// The proxies' listening sockets. The kernel takes a socket out when it closes.
#[map(name = "icept_listeners")]
pub(crate) static LISTENERS: SockHash<ListenerKey> = SockHash::pinned(LISTENERS_IN_ALL, 0);

/// The pods' connections to themselves whose handshake is under way. One that is evicted counts as
/// one from outside.
#[map(name = "icept_self")]
pub(crate) static SELF_CONNECTIONS: LruHashMap<SelfConnection, u8> =
    LruHashMap::pinned(HANDSHAKES, 0);

/// What the small program of a network namespace tells the shared one.
#[map(name = "icept_calls")]
pub(crate) static CALLS: PerCpuArray<Call> = PerCpuArray::pinned(1, 0);

/// The shared programs that those small ones call.
#[map(name = "icept_shared")]
static SHARED: ProgramArray = ProgramArray::pinned(1, 0);

/// How many connections there were of each kind.
#[map(name = "icept_counts")]
pub(crate) static COUNTS: PerCpuArray<Counts> = PerCpuArray::pinned(1, 0);

/// The offsets that the programs were loaded with: kept for userspace, which takes long to find them.
#[map(name = "icept_offsets")]
static KNOWN_OFFSETS: Array<KernelOffsets> = Array::pinned(1, 0);

/// What `icept_fib` found. It is run, and this is read, under the machine-wide lock.
#[map(name = "icept_fib_gen")]
pub(crate) static FIB: Array<NetnsState> = Array::pinned(1, 0);
