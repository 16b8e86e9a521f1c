//! The proxy's listening sockets are noted as they begin to listen, and those that already listen
//! when a pod is attached are found by walking its sockets.

use core::ptr;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_map_update_elem};
use interceptor_ebpf::{
    Address, ListenerHint, ListenerKey, ListenerPortKey, NetnsCookie, SLOTS_PER_LISTENER,
};

use super::{
    context::{IteratedTcp, SockOps, bpf_iter__tcp},
    maps::{LISTENER_HINTS, LISTENER_PORTS, LISTENERS},
};

const TCP_LISTEN: u8 = 10;
const EEXIST: i64 = -17;

/// A socket has begun to listen.
#[inline(always)]
pub(crate) fn note_new_listener(socket: SockOps) {
    let netns = socket.netns();
    let port = socket.local_port();
    if !is_wanted(netns, port) {
        return;
    }
    let mut key = ListenerKey::new(netns, socket.local_address(), port);
    let cookie = socket.cookie();
    let insert = |key: &mut ListenerKey| {
        LISTENERS
            // SAFETY: the kernel handed out this context.
            .update(key, unsafe { &mut *socket.as_ptr() }, BPF_NOEXIST.into())
            .err()
            .map_or(0, i64::from)
    };
    // SAFETY: the map does not preallocate.
    if let Some(last) = unsafe { LISTENER_HINTS.get(key) }
        && last.noted == cookie
    {
        // The hook runs once more, at an outer cgroup, and the slot is taken; or the socket has
        // stopped to listen, which has emptied it, and listens again.
        key.slot = last.noted_slot as u16;
        insert(&mut key);
        return;
    }
    note(key, cookie, insert);
}

/// `iter/tcp`, run once in a pod's network namespace: notes the sockets that listen already.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn icept_iter(context: *mut bpf_iter__tcp) -> i32 {
    note_old_listener(IteratedTcp::new(context));
    0
}

#[inline(always)]
fn note_old_listener(iterated: IteratedTcp) {
    let (socket, pointer) = (iterated.socket(), iterated.pointer());
    let port = socket.local_port();
    let netns = socket.netns();
    if pointer.is_null() || socket.state() != TCP_LISTEN || !is_wanted(netns, port) {
        return;
    }
    let key = ListenerKey::new(netns, socket.local_address(), port);
    note(key, 0, |key| {
        let map = (&raw const LISTENERS).cast_mut().cast();
        // SAFETY: map, key and value are of the types that the map was made with.
        unsafe { bpf_map_update_elem(map, ptr::from_ref(key).cast(), pointer, BPF_NOEXIST.into()) }
    });
}

#[inline(always)]
fn is_wanted(netns: NetnsCookie, port: u16) -> bool {
    // SAFETY: the map does not preallocate.
    unsafe { LISTENER_PORTS.get(ListenerPortKey::new(netns, port)) }.is_some()
}

/// Puts a socket into the first free slot of its address and port. `insert` answers with a negative
/// errno or 0.
#[inline(always)]
fn note(mut key: ListenerKey, cookie: u64, insert: impl Fn(&mut ListenerKey) -> i64) {
    let first = key;
    for slot in 0..SLOTS_PER_LISTENER {
        key.slot = slot;
        match insert(&mut key) {
            0 => {
                let hint = ListenerHint {
                    noted: cookie,
                    noted_slot: slot.into(),
                    found_slot: slot.into(),
                };
                let _noted = LISTENER_HINTS.insert(first, hint, 0);
                return;
            }
            EEXIST => {}
            // An MPTCP listener, or no memory: connections are refused for want of a listener.
            _ => return,
        }
    }
}

/// What a redirected connection may be received by, in the kernel's own order
/// (`__inet_lookup_listener`): the exact address, then the wildcard, for IPv4 that of IPv6 too.
#[inline(always)]
pub(crate) fn candidates(exact: Address) -> [Address; 3] {
    if exact.is_v4() {
        [exact, Address::UNSPECIFIED_V4, Address::UNSPECIFIED_V6]
    } else {
        [exact, Address::UNSPECIFIED_V6, Address::UNSPECIFIED_V6]
    }
}
