//! Events: what observers see of a connection.

use crate::{Address, NetnsCookie, layout::map_type};

/// The bytes of the buffer between the programs and the observer: a power of two.
pub const EVENT_BUFFER: u32 = 1 << 21;

/// The length of a process's name, with its terminating zero (`TASK_COMM_LEN`).
pub const COMMAND_LENGTH: usize = 16;

map_type! {
    /// The outcome of one connection or DNS query. Addresses are in network byte order, ports in
    /// host byte order; what is unknown is 0, or [`crate::Owner::NONE`].
    #[derive(PartialEq, Eq)]
    pub struct Event: 88 {
        /// `CLOCK_MONOTONIC`, in nanoseconds.
        pub time: u64,
        /// The network namespace of the pod.
        pub netns: NetnsCookie,
        /// The original destination.
        pub destination: Address,
        /// The source: of a connecting socket the address that it is bound to, or that routing
        /// selects.
        pub source: Address,
        /// The process that connects; 0 for a connection from outside the pod.
        pub pid: u32,
        /// The owner of the socket.
        pub uid: u32,
        /// The group of the owner.
        pub gid: u32,
        /// Direction and outcome, as [`crate::Counted::index`].
        pub outcome: u32,
        /// The port of the destination.
        pub port: u16,
        /// The port of the source; 0 for a socket that has none yet.
        pub source_port: u16,
        /// The port of the proxy that receives a captured connection.
        pub proxy_port: u16,
        /// `IPPROTO_TCP` or `IPPROTO_UDP`.
        pub protocol: u16,
        /// The name of the process that connects: bytes, with zeros at its end. (As words, which the
        /// programs set to zero in two instructions instead of a loop.)
        pub command: [u64; COMMAND_LENGTH / 8],
    }
}
