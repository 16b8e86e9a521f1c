//! Safe views of the contexts that the kernel passes to the hooks.
//!
//! The verifier requires that each access to a context is at a constant offset from it, and of the
//! member's own size. The compiler does not know that: it merged the stores of `optlen` and
//! `retval` into one of 64 bits, and two loads in different branches into one at a computed
//! address. So each access is one instruction in assembly.

use core::{ffi::c_void, mem};

use aya_ebpf::{
    bindings::bpf_func_id::BPF_FUNC_set_retval,
    helpers::{bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_retval},
};
use interceptor_ebpf::{NetnsCookie, Owner};

/// Reads a member of a context, or of a structure that a context points to:
/// `read!(sk, bpf_sock, u32 family)`, for an array `src_ip6[3]`.
macro_rules! read {
    (@load $context:expr, $offset:expr, $load:literal) => {{
        let value: u64;
        // SAFETY: the kernel passes a valid context; the verifier checks that this program type
        // may read this member at this size.
        unsafe {
            ::core::arch::asm!(
                concat!("{value} = *(", $load, " *)({context} + {offset})"),
                value = out(reg) value,
                context = in(reg) $context,
                offset = const $offset,
                options(nostack),
            );
        }
        value
    }};
    ($context:expr, $type:ident, u16 $member:ident) => {
        read!(@load $context, ::core::mem::offset_of!($type, $member), "u16") as u16
    };
    ($context:expr, $type:ident, u32 $member:ident) => {
        read!(@load $context, ::core::mem::offset_of!($type, $member), "u32") as u32
    };
    ($context:expr, $type:ident, u32 $member:ident[$index:literal]) => {
        read!(@load $context, ::core::mem::offset_of!($type, $member) + 4 * $index, "u32") as u32
    };
    ($context:expr, $type:ident, pointer $($member:ident).+) => {
        read!(@load $context, ::core::mem::offset_of!($type, $($member).+), "u64")
    };
}

/// Writes a member of a context: `write!(context, bpf_sock_addr, user_port, value)`.
macro_rules! write {
    ($context:expr, $type:ident, $member:ident $([$index:literal])?, $value:expr) => {
        // SAFETY: as for reading; this program type may write this member at this size.
        unsafe {
            ::core::arch::asm!(
                "*(u32 *)({context} + {offset}) = {value}",
                value = in(reg) u64::from($value as u32),
                context = in(reg) $context,
                offset = const ::core::mem::offset_of!($type, $member) $(+ 4 * $index)?,
                options(nostack),
            );
        }
    };
}

/// Reads an IPv6 address word by word: the verifier accepts no wider access.
macro_rules! read_v6 {
    ($context:expr, $type:ident, $member:ident) => {
        Address::from_words([
            read!($context, $type, u32 $member[0]),
            read!($context, $type, u32 $member[1]),
            read!($context, $type, u32 $member[2]),
            read!($context, $type, u32 $member[3]),
        ])
    };
}

pub(super) use read;

mod sk_lookup;
mod sock;
mod sock_addr;
mod sock_ops;
mod sockopt;
mod tcp_iter;

pub(crate) use sk_lookup::SkLookup;
pub(crate) use sock::{NewSocket, Sock};
pub(crate) use sock_addr::SockAddr;
pub(crate) use sock_ops::SockOps;
pub(crate) use sockopt::SockOption;
pub(crate) use tcp_iter::{IteratedTcp, bpf_iter__tcp};

/// The return value of a hook that permits or refuses a system call.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum HookResult {
    /// Continue, with the hook's changes.
    Proceed = 1,
    /// Fail with the errno that [`refuse`] has set.
    Refuse = 0,
}

/// Fails the system call with `errno`. Programs at outer cgroups run afterwards, and observe that the
/// call is refused ([`is_refused`]).
#[inline(always)]
pub(crate) fn refuse(errno: u32) -> HookResult {
    set_return_value(errno);
    HookResult::Refuse
}

/// Makes the system call return `-errno`, or succeed if it is 0.
#[inline(always)]
pub(crate) fn set_return_value(errno: u32) {
    /// The largest number of an error (`MAX_ERRNO`).
    const MAX: u32 = 4095;
    const HELPER: usize = BPF_FUNC_set_retval as usize;

    // aya's declaration has an `int`: the compiler sets the upper half of the register to 0. The verifier
    // of Linux 7.3 requires all 64 bits to be a number from -4095 to 0.
    // SAFETY: the helper's number is part of the kernel's interface; its argument is a number.
    let set: unsafe extern "C" fn(i64) -> i64 = unsafe { mem::transmute(HELPER) };
    // SAFETY: as above.
    unsafe { set(-i64::from(errno & MAX)) };
}

/// Whether a program at an inner cgroup, which runs earlier, has refused the system call.
#[inline(always)]
pub(crate) fn is_refused() -> bool {
    // SAFETY: the helper has no arguments.
    unsafe { bpf_get_retval() != 0 }
}

/// The user and group of the current process.
#[inline(always)]
pub(crate) fn current_owner() -> Owner {
    let ids = bpf_get_current_uid_gid();
    Owner {
        uid: ids as u32,
        gid: (ids >> 32) as u32,
    }
}

/// The cookie of the network namespace of the context's socket.
#[inline(always)]
fn netns_of(context: *mut c_void) -> NetnsCookie {
    // SAFETY: called with the context of a hook that has this helper.
    unsafe { bpf_get_netns_cookie(context) }
}
