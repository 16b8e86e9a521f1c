//! `sockops`: what happens to a TCP socket.
//!
//! Called for every state that a connection goes through: all that does not matter returns at once.
//! LISTEN and CONNECT need no callback flag, which another program could clear.

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB},
    macros::sock_ops,
    programs::SockOpsContext,
};

use super::{context::SockOps, listeners, tproxy};

#[sock_ops]
pub(crate) fn icept_sockops(context: SockOpsContext) -> u32 {
    let socket = SockOps::new(context.ops);
    match context.op() {
        BPF_SOCK_OPS_TCP_LISTEN_CB => listeners::note_new_listener(socket),
        BPF_SOCK_OPS_TCP_CONNECT_CB => tproxy::keep_to_loopback(socket),
        _ => {}
    }
    1
}
