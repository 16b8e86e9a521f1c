//! A pod's packet to an address of its own has the interface of that address as its incoming
//! interface (`ip_route_output_key_hash_rcu`, `ip6_rcv_core`), like a packet from outside with a
//! spoofed source. Neither address nor interface distinguishes them. So a connection of the pod to
//! itself is recorded during its handshake.

use aya_ebpf::bindings::BPF_ANY;
use interceptor_ebpf::{Address, NetnsCookie, SelfConnection, StandInRange};

use super::{context::SockOps, maps::SELF_CONNECTIONS, pod::Pod};

/// A socket is about to send its SYN.
#[inline(always)]
pub(crate) fn record_handshake(socket: &SockOps, pod: Pod) {
    if is_to_self(socket, pod) {
        // If the table is full, the connection counts as one from outside.
        let _recorded = SELF_CONNECTIONS.insert(key(socket, pod.netns), 0, BPF_ANY.into());
    }
}

/// The handshake of a connecting socket is complete.
#[inline(always)]
pub(crate) fn remove_handshake(socket: &SockOps, pod: Pod) {
    if is_to_self(socket, pod) {
        let _removed = SELF_CONNECTIONS.remove(key(socket, pod.netns));
    }
}

/// Whether the destination is an address of the pod, except those whose packets arrive on `lo`: no
/// packet from outside does.
#[inline(always)]
fn is_to_self(socket: &SockOps, pod: Pod) -> bool {
    let to = socket.remote_address();
    !to.is_loopback() && !StandInRange::contains(to) && pod.owns(to)
}

/// Whether the pod itself has sent the SYN from `from` to `to`.
#[inline(always)]
pub(crate) fn is_in_handshake(
    netns: NetnsCookie,
    from: (Address, u16),
    to: (Address, u16),
) -> bool {
    let key = SelfConnection::new(netns, from, to);
    // SAFETY: the value is not read.
    unsafe { SELF_CONNECTIONS.get(key) }.is_some()
}

#[inline(always)]
fn key(socket: &SockOps, netns: NetnsCookie) -> SelfConnection {
    SelfConnection::new(
        netns,
        (socket.local_address(), socket.local_port()),
        (socket.remote_address(), socket.remote_port()),
    )
}
