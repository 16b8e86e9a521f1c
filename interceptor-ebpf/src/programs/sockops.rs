//! `sockops`: events of TCP sockets.
//!
//! Called for every state of a connection: other events return at once. The events handled here
//! need no callback flag, which another program could clear.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};

use super::{context::SockOps, listeners, pod::Pod, self_connections};

#[sock_ops]
pub(crate) fn icept_sockops(context: SockOpsContext) -> u32 {
    let socket = SockOps::new(context.ops);
    match context.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => listeners::register_new_listener(socket),
        BPF_SOCK_OPS_TCP_CONNECT_CB => handle_connect(&socket),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => handle_established(&socket),
        _ => {}
    }
    1
}

/// A socket is about to send its SYN.
#[inline(always)]
fn handle_connect(socket: &SockOps) {
    if let Some(pod) = Pod::of(socket.netns()) {
        self_connections::record_handshake(socket, pod);
    }
}

/// A connecting socket has received the SYN-ACK.
#[inline(always)]
fn handle_established(socket: &SockOps) {
    if let Some(pod) = Pod::of(socket.netns()) {
        self_connections::remove_handshake(socket, pod);
    }
}
