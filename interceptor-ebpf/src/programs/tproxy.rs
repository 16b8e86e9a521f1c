//! TPROXY: the proxy's connection to the app, which comes from the client's own address, is told from
//! the client's by the interface: only what the pod itself sends comes in by `lo`. Nothing has to be
//! remembered, and nothing from outside can be taken for it.

use interceptor_ebpf::PolicyFlags;

use super::{context::SockOps, pod::Pod};

/// A socket of `pod` is about to send its SYN. If it is the proxy's, in a client's name, to an address of the
/// pod's own, that would come in as if by the interface which has the address
/// (`ip_route_output_key_hash_rcu`, `ipv6_rcv`), unless the socket knows no interface but `lo`: then
/// the local routing table has no way, and the mark's table has.
#[inline(always)]
pub(crate) fn keep_to_loopback(mut socket: SockOps, pod: Pod) {
    let policy = pod.policy;
    if !policy.flags.contains(PolicyFlags::TPROXY) || socket.mark() != policy.mark {
        return;
    }
    let (from, to) = (socket.local_address(), socket.remote_address());
    if pod.way(to).is_own && !pod.way(from).is_own {
        // Fails for who is bound to another interface and may not change that: what cannot be told
        // from a client's connection is captured as one.
        let _bound = socket.bind_to_loopback();
    }
}
