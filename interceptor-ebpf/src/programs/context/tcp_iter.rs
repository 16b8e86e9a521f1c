//! The context of `iter/tcp` (`struct bpf_iter__tcp`).

use core::ffi::c_void;

use crate::programs::kernel_memory::IteratedSocket;

/// `struct bpf_iter__tcp`: one TCP socket of an iteration.
pub(crate) struct IteratedTcp {
    context: *mut bpf_iter__tcp,
}

/// The first members of the kernel's structure; aya's bindings have no iterators.
#[repr(C)]
pub(crate) struct bpf_iter__tcp {
    meta: *mut c_void,
    sk_common: *mut c_void,
}

impl IteratedTcp {
    #[inline(always)]
    pub(crate) const fn new(context: *mut bpf_iter__tcp) -> Self {
        Self { context }
    }

    /// The `struct sock_common *`, the only type that a map of sockets accepts here. Null at the
    /// end of the iteration.
    #[inline(always)]
    pub(crate) fn pointer(&self) -> *const c_void {
        read!(self.context, bpf_iter__tcp, pointer sk_common) as *const c_void
    }

    #[inline(always)]
    pub(crate) fn socket(&self) -> IteratedSocket {
        // SAFETY: the second member of the context is the socket.
        unsafe { IteratedSocket::from_context(self.context.cast()) }
    }
}
