//! TPROXY: the proxy's connection to the app comes from the client's own address, as the client's
//! connection does. The interface distinguishes them: only the pod's own packets arrive on `lo`. So
//! no state is needed, and no packet from outside is mistaken for one of the proxy's.

use interceptor_ebpf::Outbound;

use super::{context::SockAddr, pod::Pod};

/// Binds the socket to `lo` if the proxy connects it, with a client's address, to an address of the
/// pod itself. Otherwise the incoming interface of its packets would be the one with the address
/// (`ip_route_output_key_hash_rcu`, `ipv6_rcv`). Bound to `lo`, the socket finds no route in the
/// local table, and one in the mark's table.
///
/// This must happen before the kernel chooses the source port. Two sockets that are bound to
/// different interfaces may have the same addresses and ports (`__inet_check_established`), so a
/// socket that is bound only after that may get the port of one that is connected.
#[inline(always)]
pub(crate) fn keep_to_loopback(call: &mut SockAddr, pod: Pod, flow: &Outbound) {
    let is_to_app = flow.is_marked && flow.via_loopback;
    if is_to_app && !flow.source.is_unspecified() && !pod.owns(flow.source) {
        // Fails for a socket that is bound to another interface and may not change that: it cannot
        // be distinguished from a client's connection, and is captured as one.
        let _bound = call.bind_to_loopback();
    }
}
