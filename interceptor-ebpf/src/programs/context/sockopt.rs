//! The context of `getsockopt` and `setsockopt` (`struct bpf_sockopt`).

use core::ffi::c_void;

use aya_ebpf::bindings::{bpf_sock, bpf_sockopt};
use interceptor_ebpf::NetnsCookie;

use super::{Sock, netns_of, set_return_value};
use crate::programs::kernel_memory::SocketPointer;

/// `struct bpf_sockopt`: a `getsockopt` call after the kernel has handled it, or a `setsockopt`
/// call before.
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

    /// The kernel's own result: 0 or a negative errno.
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
        // SAFETY: the kernel's structure, `struct bpf_sockopt_kern`, begins with the socket.
        unsafe { SocketPointer::from_context(self.context.cast()) }
    }

    /// The length of the value in bytes.
    #[inline(always)]
    pub(crate) fn length(&self) -> i32 {
        read!(self.context, bpf_sockopt, u32 optlen) as i32
    }

    /// One byte of the value, if it is that long and the program can access it.
    #[inline(always)]
    pub(crate) fn byte(&self, index: usize) -> Option<u8> {
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut u8;
        // SAFETY: a few bytes past the start; only compared before it is read.
        let byte = unsafe { self.start().cast::<u8>().add(index) };
        // SAFETY: one past it; only compared.
        if unsafe { byte.add(1) } > end {
            return None;
        }
        // SAFETY: the comparison above, which the verifier checks, proves that the byte exists.
        Some(unsafe { byte.read() })
    }

    /// Keeps a value that is longer than the page which programs can access: the kernel fails the
    /// call with EFAULT if a program does not set the length (`getsockopt` up to 6.4).
    #[inline(always)]
    pub(crate) fn keep_long_value(&mut self) {
        self.limit_length(0);
    }

    /// Whether the caller's buffer holds a `T`.
    #[inline(always)]
    pub(crate) fn has_room_for<T>(&self) -> bool {
        self.accessible_length() >= size_of::<T>() as i64
    }

    /// Makes the call return `value`. The length remains that of the caller, as in `getorigdst`
    /// (`net/netfilter/nf_conntrack_proto.c`).
    #[inline(always)]
    pub(crate) fn set_value<T: Copy>(&mut self, value: T) {
        let start = self.start();
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut c_void;
        // SAFETY: the value's end is at most 28 bytes past the start; it is only compared.
        let value_end = unsafe { start.cast::<u8>().add(size_of::<T>()) };
        if value_end.cast() > end {
            return;
        }
        // SAFETY: the comparison above, which the verifier checks, proves that there is room for a
        // `T`.
        unsafe { start.cast::<T>().write_unaligned(value) };
        self.limit_length(size_of::<T>() as i32);
        set_return_value(0);
    }

    /// Replaces a length that exceeds the accessible part.
    #[inline(always)]
    fn limit_length(&mut self, length: i32) {
        if i64::from(self.length()) > self.accessible_length() {
            write!(self.context, bpf_sockopt, optlen, length);
        }
    }

    #[inline(always)]
    fn start(&self) -> *mut c_void {
        read!(self.context, bpf_sockopt, pointer __bindgen_anon_2) as *mut c_void
    }

    /// The number of bytes of the caller's buffer that the program can access.
    #[inline(always)]
    fn accessible_length(&self) -> i64 {
        let end = read!(self.context, bpf_sockopt, pointer __bindgen_anon_3) as *mut c_void;
        end as i64 - self.start() as i64
    }
}
