//! The facts of a connection that a verdict can hang on.

use crate::Address;

/// The first packet of a connection, as iptables' `nat` table would meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Made by a socket of the pod: the OUTPUT chain.
    Outbound(Outbound),
    /// Come in from outside the pod: the PREROUTING chain.
    Inbound(Inbound),
}

/// A connection that a socket of the pod makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Where it goes.
    pub destination: Address,
    /// The destination's port, in host byte order.
    pub port: u16,
    /// TCP or UDP.
    pub transport: Transport,
    /// Where it comes from: what the socket is bound to, else what routing picks.
    pub source: Address,
    /// Whether it leaves through `lo` (`-o lo`), which every address of the pod's own does.
    pub via_loopback: bool,
    /// Whether it leaves by an interface of `-c`.
    pub by_excluded_interface: bool,
    /// Whether it bears TPROXY's mark (`SO_MARK`), as the proxy's connections to the app do.
    pub is_marked: bool,
    /// Who opened the socket.
    pub owner: Owner,
}

/// A connection that comes in from outside the pod. (What the pod sends to itself over `lo` was
/// judged on its way out: PREROUTING's nat rules are not asked again.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The address it came to, which tells the family.
    pub destination: Address,
    /// The port it came to, in host byte order.
    pub port: u16,
    /// Whether it came in by an interface of `-c`.
    pub by_excluded_interface: bool,
    /// Whether it came in by an interface of `-k`.
    pub by_rerouted_interface: bool,
}

/// The transport protocols that a rule can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, and MPTCP, whose subflows are TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Who opened a socket: `sk->sk_socket->file->f_cred`, as `net/netfilter/xt_owner.c` reads it, in
/// the initial user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `fsuid`
    pub uid: u32,
    /// `fsgid`
    pub gid: u32,
}

impl Owner {
    /// A socket without a file has no owner: no ID is its own. (The kernel's `INVALID_UID`, which
    /// nobody can be; an `Option` would leave the IDs uninitialized, which the verifier refuses.)
    pub const NONE: Self = Self {
        uid: u32::MAX,
        gid: u32::MAX,
    };
}
