//! The facts of a connection that a verdict depends on.

use crate::Address;

/// The first packet of a connection, as iptables' `nat` table would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From a socket of the pod: the OUTPUT chain.
    Outbound(Outbound),
    /// From outside the pod: the PREROUTING chain.
    Inbound(Inbound),
}

/// A connection from a socket of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The destination address.
    pub destination: Address,
    /// The destination's port, in host byte order.
    pub port: u16,
    /// TCP or UDP.
    pub transport: Transport,
    /// The address that the socket is bound to, otherwise the one that routing selects.
    pub source: Address,
    /// Whether the outgoing interface is `lo` (`-o lo`), as for every address of the pod.
    pub via_loopback: bool,
    /// Whether the outgoing interface is excluded (`-c`).
    pub by_excluded_interface: bool,
    /// Whether the socket has TPROXY's mark (`SO_MARK`), as the proxy's connections to the app
    /// have.
    pub is_marked: bool,
    /// The socket's owner.
    pub owner: Owner,
}

/// A connection from outside the pod. (For a connection of the pod to itself over `lo`, OUTPUT has
/// decided: conntrack does not consult nat's PREROUTING again.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The destination address, which determines the family.
    pub destination: Address,
    /// The destination's port, in host byte order.
    pub port: u16,
    /// Whether the incoming interface is excluded (`-c`).
    pub by_excluded_interface: bool,
    /// Whether the incoming interface is rerouted (`-k`).
    pub by_rerouted_interface: bool,
}

/// The transport protocols that the rules distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, and MPTCP, whose subflows are TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The owner of a socket: `sk->sk_socket->file->f_cred`, as `net/netfilter/xt_owner.c` reads it, in
/// the initial user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `fsuid`
    pub uid: u32,
    /// `fsgid`
    pub gid: u32,
}

impl Owner {
    /// A socket without a file has no owner. (The kernel's `INVALID_UID`, which no process can
    /// have; an `Option` would leave the IDs uninitialized, which the verifier rejects.)
    pub const NONE: Self = Self {
        uid: u32::MAX,
        gid: u32::MAX,
    };
}
