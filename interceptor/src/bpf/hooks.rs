//! The hooks, with the kernel's attach types.

use aya_obj::generated::bpf_attach_type::{
    self, BPF_CGROUP_GETSOCKOPT, BPF_CGROUP_INET_SOCK_CREATE, BPF_CGROUP_INET4_CONNECT,
    BPF_CGROUP_INET4_GETPEERNAME, BPF_CGROUP_INET4_GETSOCKNAME, BPF_CGROUP_INET6_CONNECT,
    BPF_CGROUP_INET6_GETPEERNAME, BPF_CGROUP_INET6_GETSOCKNAME, BPF_CGROUP_SETSOCKOPT,
    BPF_CGROUP_SOCK_OPS, BPF_CGROUP_UDP4_RECVMSG, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_RECVMSG,
    BPF_CGROUP_UDP6_SENDMSG, BPF_SK_LOOKUP, BPF_TCX_EGRESS, BPF_TCX_INGRESS,
};

/// A program of the object and where it attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program's name in the object, in `bpftool` and as a pin.
    pub program: &'static str,
    /// The kernel's attach type.
    pub attach_type: bpf_attach_type,
}

/// The hooks of cgroups, in the order in which they are attached: listeners are registered and original
/// destinations returned before the first connection is captured.
pub(crate) const CGROUP_HOOKS: [Hook; 14] = [
    hook("icept_sockops", BPF_CGROUP_SOCK_OPS),
    hook("icept_create", BPF_CGROUP_INET_SOCK_CREATE),
    hook("icept_origdst", BPF_CGROUP_GETSOCKOPT),
    hook("icept_setopt", BPF_CGROUP_SETSOCKOPT),
    hook("icept_name4", BPF_CGROUP_INET4_GETSOCKNAME),
    hook("icept_name6", BPF_CGROUP_INET6_GETSOCKNAME),
    hook("icept_peer4", BPF_CGROUP_INET4_GETPEERNAME),
    hook("icept_peer6", BPF_CGROUP_INET6_GETPEERNAME),
    hook("icept_receive4", BPF_CGROUP_UDP4_RECVMSG),
    hook("icept_receive6", BPF_CGROUP_UDP6_RECVMSG),
    hook("icept_send4", BPF_CGROUP_UDP4_SENDMSG),
    hook("icept_send6", BPF_CGROUP_UDP6_SENDMSG),
    hook("icept_connect4", BPF_CGROUP_INET4_CONNECT),
    hook("icept_connect6", BPF_CGROUP_INET6_CONNECT),
];

/// The hook of every captured network namespace.
pub(crate) const LOOKUP: Hook = hook("icept_lookup", BPF_SK_LOOKUP);

/// The hooks of interfaces that may receive connections to forward: replies are rewritten before the
/// first connection is captured.
pub(crate) const INTERFACE_HOOKS: [Hook; 2] = [
    hook("icept_egress", BPF_TCX_EGRESS),
    hook("icept_ingress", BPF_TCX_INGRESS),
];

/// The hooks of strict mode on the node's side of a pod's interface: what the pod sends arrives there.
pub(crate) const STRICT_AT_NODE: [Hook; 2] = [
    hook("icept_leave", BPF_TCX_INGRESS),
    hook("icept_enter", BPF_TCX_EGRESS),
];

/// The same at the pod's interface itself.
pub(crate) const STRICT_AT_POD: [Hook; 2] = [
    hook("icept_leave", BPF_TCX_EGRESS),
    hook("icept_enter", BPF_TCX_INGRESS),
];

/// The `iter/tcp` program that finds listeners that are open already.
pub(crate) const ITER_PROGRAM: &str = "icept_iter";

/// The program that reads the state of a network namespace's routing tables.
pub(crate) const FIB_PROGRAM: &str = "icept_fib";

/// The hook of this program.
pub(crate) fn find(program: &str) -> Option<Hook> {
    let all = CGROUP_HOOKS.into_iter().chain([LOOKUP]);
    all.chain(INTERFACE_HOOKS)
        .chain(STRICT_AT_NODE)
        .find(|hook| hook.program == program)
}

const fn hook(program: &'static str, attach_type: bpf_attach_type) -> Hook {
    Hook {
        program,
        attach_type,
    }
}
