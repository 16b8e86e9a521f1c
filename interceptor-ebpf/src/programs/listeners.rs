//! Registers the proxy's listening sockets when they start to listen, and, when a pod is attached,
//! those that already listen, by iterating over its sockets.
//!
//! The sockets of one port and one kind of address share a ring of slots, whose size is the pod's
//! share of the table. When all slots are in use, a new socket replaces one in the newer half: of a
//! group (`SO_REUSEPORT`) the oldest and the newest stay registered, and the kernel finds the
//! others from one of the group.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_map_update_elem,
};
use interceptor_ebpf::{
    Address, ListenerAddress, ListenerKey, ListenerPort, ListenerPortKey, MAX_LISTENER_SLOTS,
};

use super::{
    context::{IteratedTcp, SockOps, bpf_iter__tcp},
    maps::{LISTENER_PORTS, LISTENERS},
    share,
    uapi::{EEXIST, TCP_LISTEN},
};

/// A socket has started to listen.
#[inline(always)]
pub(crate) fn register_new_listener(socket: SockOps) {
    let netns = socket.netns();
    let listener = Listener {
        address: socket.local_address(),
        cookie: socket.cookie(),
        key: ListenerPortKey::new(netns, socket.local_port()),
    };
    listener.register(socket.local_port(), |key, flags| {
        LISTENERS
            // SAFETY: the kernel handed out this context.
            .update(key, unsafe { &mut *socket.as_ptr() }, flags)
            .err()
            .map_or(0, i64::from)
    });
}

/// `iter/tcp`, run once in a pod's network namespace: registers the sockets that listen already.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn icept_iter(context: *mut bpf_iter__tcp) -> i32 {
    register_existing_listener(IteratedTcp::new(context));
    0
}

#[inline(always)]
fn register_existing_listener(iterated: IteratedTcp) {
    let (socket, pointer) = (iterated.socket(), iterated.pointer());
    if pointer.is_null() || u32::from(socket.state()) != TCP_LISTEN {
        return;
    }
    let listener = Listener {
        address: socket.local_address(),
        cookie: 0,
        key: ListenerPortKey::new(socket.netns(), socket.local_port()),
    };
    listener.register(socket.local_port(), |key, flags| {
        let map = (&raw const LISTENERS).cast_mut().cast();
        // SAFETY: map, key and value have the map's types.
        unsafe { bpf_map_update_elem(map, ptr::from_ref(key).cast(), pointer, flags) }
    });
}

/// A listening socket.
struct Listener {
    address: Address,
    /// 0 if unknown.
    cookie: u64,
    key: ListenerPortKey,
}

impl Listener {
    /// Puts the socket into a slot, if listeners on its port are registered and a lookup can
    /// search for its address. `insert` returns a negative errno or 0.
    #[inline(always)]
    fn register(self, port: u16, insert: impl Fn(&mut ListenerKey, u64) -> i64) {
        let Some(known) = LISTENER_PORTS.get_ptr_mut(self.key) else {
            return;
        };
        let kind = ListenerAddress::of(self.address);
        if kind == ListenerAddress::Other && self.address.is_loopback() {
            return;
        }
        let mut key = ListenerKey::new(self.key.netns, kind, port);
        // SAFETY: the entry lives as long as the program runs; a racing update changes only where
        // searches start.
        let known = unsafe { &mut *known };
        if self.cookie != 0 && known.last == self.cookie {
            // Either the hook runs again, at an outer cgroup, and the slot is in use; or the socket
            // has stopped listening, which has emptied the slot, and listens again.
            key.slot = known.last_slot as u16;
            insert(&mut key, BPF_NOEXIST.into());
            return;
        }
        if let Some(slot) = put(&mut key, known, insert) {
            known.last = self.cookie;
            known.last_slot = slot.into();
            known.found[kind as usize] = slot + 1;
        }
    }
}

/// Puts a socket into the first free slot, or the next one of the newer half. `None` for an MPTCP
/// listener, or without memory: connections to it are refused (`no_listener`).
#[inline(always)]
fn put(
    key: &mut ListenerKey,
    known: &ListenerPort,
    insert: impl Fn(&mut ListenerKey, u64) -> i64,
) -> Option<u16> {
    let slots = share::of_pod().listener_slots as u16;
    for slot in 0..MAX_LISTENER_SLOTS {
        if slot >= slots {
            break;
        }
        key.slot = slot;
        match insert(key, BPF_NOEXIST.into()) {
            0 => return Some(slot),
            error if error == -i64::from(EEXIST) => {}
            _ => return None,
        }
    }
    let half = slots / 2;
    let next = known.last_slot as u16 + 1;
    key.slot = half + (next & half.wrapping_sub(1));
    (insert(key, BPF_ANY.into()) == 0).then_some(key.slot)
}

/// The kinds of addresses whose listeners receive a redirected connection, in the kernel's order
/// (`__inet_lookup_listener`): the exact address, then the wildcard, for IPv4 also that of IPv6.
#[inline(always)]
pub(crate) fn candidates(exact: Address) -> [ListenerAddress; 3] {
    use ListenerAddress::{AnyV4, AnyV6};

    let any = if exact.is_v4() { AnyV4 } else { AnyV6 };
    [ListenerAddress::of(exact), any, AnyV6]
}
