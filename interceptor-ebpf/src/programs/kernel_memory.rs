//! Reads of the kernel's own structures that no context shows.
//!
//! `bpf_probe_read_kernel` fails, rather than faults, on a bad address; the offsets come from the
//! running kernel's BTF. Where an offset is unknown the answer is `None`.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::bpf_probe_read_kernel;
use interceptor_ebpf::{Address, FibGeneration, KernelOffsets, Owner, UNKNOWN_OFFSET};

use super::{context::AF_INET6, maps::OFFSETS};

/// One offset. Read by itself: the verifier knows its value, and the rest is not copied.
macro_rules! offset {
    ($member:ident) => {{
        let offsets = (&raw const OFFSETS).cast::<KernelOffsets>();
        // SAFETY: `Global` is transparent, and initialized by its declaration.
        unsafe { ptr::read_volatile(&raw const (*offsets).$member) }
    }};
}

/// An address in the kernel's memory, as a plain number.
#[derive(Clone, Copy)]
pub(crate) struct KernelPointer(u64);

impl KernelPointer {
    /// Reads the `T` that lies `offset` bytes on.
    #[inline(always)]
    pub(crate) fn read<T>(self, offset: u32) -> Option<T> {
        if offset == UNKNOWN_OFFSET {
            return None;
        }
        let address = self.0.wrapping_add(u64::from(offset)) as *const T;
        // SAFETY: the helper checks the address, and every `T` read here is plain bytes.
        unsafe { bpf_probe_read_kernel(address) }.ok()
    }

    /// Reads the pointer that lies `offset` bytes on; a null pointer is `None`.
    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        let pointer = self.read(offset)?;
        (pointer != 0).then_some(Self(pointer))
    }
}

/// A `struct sock *`.
#[derive(Clone, Copy)]
pub(crate) struct SocketPointer(KernelPointer);

impl SocketPointer {
    /// Takes the pointer out of the kernel's side of a context. (`ctx.sk` would be the same, but
    /// the verifier forbids arithmetic on it.)
    ///
    /// # Safety
    ///
    /// The kernel's side of the context must begin with the `struct sock *`.
    #[inline(always)]
    pub(crate) unsafe fn from_context(context: *const c_void) -> Option<Self> {
        // SAFETY: the helper checks the address.
        let pointer = unsafe { bpf_probe_read_kernel(context.cast::<u64>()) }.ok()?;
        Some(Self(KernelPointer(pointer)))
    }

    /// Who opened the socket, as `owner_mt` in `net/netfilter/xt_owner.c` finds it: through the
    /// file, so a socket that has none has no owner.
    #[inline(always)]
    pub(crate) fn owner(self) -> Option<Owner> {
        let credentials = self
            .0
            .follow(offset!(sock_socket))?
            .follow(offset!(socket_file))?
            .follow(offset!(file_cred))?;
        Some(Owner {
            uid: credentials.read(offset!(cred_fsuid))?,
            gid: credentials.read(offset!(cred_fsgid))?,
        })
    }

    /// The state of the routing tables of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn fib_generation(self) -> Option<FibGeneration> {
        fib_generation(self.0.follow(offset!(sock_net))?)
    }

    /// The local port in host byte order, which `inet_sport` keeps after a reset has given the
    /// port back.
    #[inline(always)]
    pub(crate) fn lasting_local_port(self) -> Option<u16> {
        self.0.read(offset!(inet_sport)).map(u16::from_be)
    }

    /// Whether the socket was accepted, not connected: `tcp_v4_syn_recv_sock` and
    /// `tcp_v6_syn_recv_sock` note the interface that the handshake came in by, where a socket that
    /// connects has 0 (or what IP_MULTICAST_IF put there, which nobody sets on a TCP socket).
    #[inline(always)]
    pub(crate) fn is_accepted(self, family: u32) -> Option<bool> {
        let interface: u32 = if family == AF_INET6 {
            let v6 = self.0.follow(offset!(inet_pinet6))?;
            v6.read(offset!(pinet6_mcast_oif))?
        } else {
            self.0.read(offset!(inet_mc_index))?
        };
        Some(interface != 0)
    }
}

/// A `struct sock_common *` that `iter/tcp` has come to.
#[derive(Clone, Copy)]
pub(crate) struct IteratedSocket(KernelPointer);

impl IteratedSocket {
    /// Takes the second member of `struct bpf_iter__tcp`. At the end of the iteration it is null.
    ///
    /// # Safety
    ///
    /// `context` must be the context of an `iter/tcp` program.
    #[inline(always)]
    pub(crate) unsafe fn from_context(context: *const c_void) -> Option<Self> {
        // SAFETY: the helper checks the address.
        let pointer = unsafe { bpf_probe_read_kernel(context.cast::<u64>().add(1)) }.ok()?;
        (pointer != 0).then_some(Self(KernelPointer(pointer)))
    }

    #[inline(always)]
    pub(crate) fn state(self) -> Option<u8> {
        self.0.read(offset!(sock_state))
    }

    /// In host byte order.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Option<u16> {
        self.0.read(offset!(sock_num))
    }

    #[inline(always)]
    pub(crate) fn local_address(self) -> Option<Address> {
        let family: u16 = self.0.read(offset!(sock_family))?;
        if u32::from(family) == AF_INET6 {
            self.0
                .read(offset!(sock_v6_rcv_saddr))
                .map(Address::from_words)
        } else {
            self.0.read(offset!(sock_rcv_saddr)).map(Address::from_v4)
        }
    }
}

/// The state of the routing tables of the network namespace that `task` (a `struct task_struct *`)
/// is in.
#[inline(always)]
pub(crate) fn fib_generation_of_task(task: u64) -> Option<FibGeneration> {
    let net = KernelPointer(task)
        .follow(offset!(task_nsproxy))?
        .follow(offset!(nsproxy_net))?;
    fib_generation(net)
}

#[inline(always)]
fn fib_generation(net: KernelPointer) -> Option<FibGeneration> {
    Some(FibGeneration {
        fib_seq: net.read(offset!(net_fib_seq))?,
        fib6_sernum: net.read(offset!(net_fib6_sernum))?,
        rt6_entries: net
            .follow(offset!(net_rt6_stats))?
            .read(offset!(rt6_entries))?,
    })
}
