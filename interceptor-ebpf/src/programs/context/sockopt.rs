//! The context of `getsockopt` and `setsockopt` (`struct bpf_sockopt`).

use core::ffi::c_void;

use aya_ebpf::bindings::{bpf_sock, bpf_sockopt};
use interceptor_ebpf::NetnsCookie;

use super::{Sock, netns_of, set_return_value};
use crate::programs::kernel_memory::SocketPointer;

/// `struct bpf_sockopt`: a `getsockopt` call that the kernel has already answered, or a `setsockopt`
/// call that it has not looked at yet.
pub(crate) struct SockOption {
    context: *mut bpf_sockopt,
}

impl SockOption {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_sockopt) -> Self {
        Self { context }
    }

    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        netns_of(self.context.cast())
    }

    #[inline(always)]
    pub(crate) fn level(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 level) as i32
    }

    #[inline(always)]
    pub(crate) fn name(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 optname) as i32
    }

    /// The kernel's own answer: 0 or a negative errno.
    #[inline(always)]
    pub(crate) fn kernel_result(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 retval) as i32
    }

    #[inline(always)]
    pub(crate) fn sock(&self) -> Sock {
        Sock::new(read!(self.context, bpf_sockopt, pointer __bindgen_anon_1) as *mut bpf_sock)
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> SocketPointer {
        // SAFETY: `struct bpf_sockopt_kern`, which the context really is, begins with the socket.
        unsafe { SocketPointer::from_context(self.context.cast()) }
    }

    /// How many bytes the value has.
    #[inline(always)]
    pub(crate) fn length(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 optlen) as i32
    }

    /// One byte of the value, if it is that long and the program is shown it.
    #[inline(always)]
    pub(crate) fn byte(&self, index: usize) -> Option<u8> {
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut u8;
        // SAFETY: a few bytes past the start; only compared before it is read.
        let byte = unsafe { self.start().cast::<u8>().add(index) };
        // SAFETY: one past it; only compared.
        if unsafe { byte.add(1) } > end {
            return None;
        }
        // SAFETY: the comparison above, which the verifier has seen, makes sure that it is there.
        Some(unsafe { byte.read() })
    }

    /// Leaves a value alone that is longer than the page of it which programs are shown: the kernel
    /// fails the call with EFAULT if a program says nothing about its length (`getsockopt` up to 6.4).
    #[inline(always)]
    pub(crate) fn leave_long_value_alone(&mut self) {
        self.limit_length(0);
    }

    /// Whether the caller's buffer holds a `T`.
    #[inline(always)]
    pub(crate) fn has_room_for<T>(&self) -> bool {
        self.shown() >= size_of::<T>() as i64
    }

    /// Makes `answer` the call's result, and the call a success. The length stays what the caller
    /// gave, as it does in `getorigdst` (`net/netfilter/nf_conntrack_proto.c`).
    #[inline(always)]
    pub(crate) fn set_value<T: Copy>(&mut self, value: T) {
        let start = self.start();
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut c_void;
        // SAFETY: one past the answer is at most 28 bytes past the start; it is only compared.
        let value_end = unsafe { start.cast::<u8>().add(size_of::<T>()) };
        if value_end.cast() > end {
            return;
        }
        // SAFETY: the comparison above, which the verifier has seen, makes room for a `T`.
        unsafe { start.cast::<T>().write_unaligned(value) };
        self.limit_length(size_of::<T>() as i32);
        set_return_value(0);
    }

    /// Replaces a length that goes past what the program is shown.
    #[inline(always)]
    fn limit_length(&mut self, length: i32) {
        if i64::from(self.length()) > self.shown() {
            write!(self.context, bpf_sockopt, optlen, length);
        }
    }

    #[inline(always)]
    fn start(&self) -> *mut c_void {
        read!(self.context, bpf_sockopt, pointer __bindgen_anon_2) as *mut c_void
    }

    /// How many bytes of the caller's buffer the program is shown.
    #[inline(always)]
    fn shown(&self) -> i64 {
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut c_void;
        end as i64 - self.start() as i64
    }
}
