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
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray, SockHash},
};
use interceptor_ebpf::{
    Asked, Call, Counts, ForwardKey, GroupKey, Interface, InterfaceKey, KernelOffsets,
    ListenerHint, ListenerKey, ListenerPortKey, NetnsCookie, NetnsState, Policy, PortPage,
    PortPageKey, PrefixFlags, PrefixKey, Route, SETTINGS_CHUNK, SettingsKey, SlotKey, StandInEntry,
    StandInNumber,
};

/// Where the running kernel keeps what we read of it.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<KernelOffsets> = Global::new(KernelOffsets::UNKNOWN);

/// How many pods one machine holds.
const PODS: u32 = 4096;

/// How many addresses and ports have listeners that are noted.
const HINTS: u32 = if cfg!(feature = "other-layout") {
    PODS * 4
} else {
    PODS * 8
};

/// How many stand-ins all pods of one machine have together. (The buckets alone take 16 bytes each.)
const STAND_INS_IN_ALL: u32 = 1 << 18;

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
pub(crate) static ASKED: SkStorage<Asked> = SkStorage::new();

/// The ports whose listeners are noted.
#[map(name = "icept_lports")]
pub(crate) static LISTENER_PORTS: HashMap<ListenerPortKey, u8> =
    HashMap::pinned(PODS * 4, BPF_F_NO_PREALLOC);

/// Where the sockets of an address and port were last put and found in `LISTENERS`.
#[map(name = "icept_lhints")]
pub(crate) static LISTENER_HINTS: HashMap<ListenerKey, ListenerHint> =
    HashMap::pinned(HINTS, BPF_F_NO_PREALLOC);

/// The proxies' listening sockets. The kernel takes a socket out when it closes.
#[map(name = "icept_listeners")]
pub(crate) static LISTENERS: SockHash<ListenerKey> = SockHash::pinned(1 << 16, 0);

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
