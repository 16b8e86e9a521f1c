//! The requests to an actor, and its replies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// An actor's name for one of its sockets.
pub type Handle = u32;

/// `AF_INET` or `AF_INET6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, which carries IPv4-mapped addresses too.
    V6,
}

impl Family {
    /// The family of the socket that can be bound or connected to `address`.
    #[must_use]
    pub const fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// The transport protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// Multipath TCP.
    Mptcp,
    /// UDP.
    Udp,
}

/// The level of a `getsockopt(SO_ORIGINAL_DST)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// `SOL_IP`.
    Ip,
    /// `SOL_IPV6`.
    Ipv6,
}

/// A socket option and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketOption {
    /// `SO_REUSEADDR`
    ReuseAddress,
    /// `SO_REUSEPORT`
    ReusePort,
    /// `IPV6_V6ONLY`
    V6Only(bool),
    /// `IP_BIND_ADDRESS_NO_PORT`
    BindAddressNoPort,
    /// `SO_BINDTODEVICE`
    BindToDevice(String),
    /// `IP_UNICAST_IF`
    UnicastInterface(String),
    /// `IPV6_UNICAST_IF`
    UnicastInterfaceV6(String),
    /// `IPV6_PKTINFO`, for every datagram of the socket.
    PacketInfoV6(String),
    /// `SO_LINGER` with a timeout of 0: closing resets the connection.
    ResetOnClose,
    /// `IP_TRANSPARENT`
    Transparent,
    /// `IPV6_TRANSPARENT`
    TransparentV6,
    /// `IP_FREEBIND`, of both families.
    FreeBind,
    /// `IP_OPTIONS`: four no-operation options, in every packet.
    IpOptions,
    /// `IP_OPTIONS`: a loose source route via an address.
    SourceRoute(Ipv4Addr),
    /// `IPV6_RTHDR`: a segment routing header via an address.
    RoutingHeader(Ipv6Addr),
    /// `SO_MARK`
    Mark(u32),
    /// `SO_DONTROUTE`
    DontRoute,
    /// `TCP_MD5SIG`: segments to and from this address are signed.
    Md5Key(SocketAddr),
    /// `TCP_FASTOPEN_CONNECT`
    FastOpenConnect,
    /// `TCP_FASTOPEN`: the maximum number of connections whose handshake is not complete.
    FastOpen(u32),
    /// Any other, by its numbers.
    Other {
        /// The level.
        level: i32,
        /// The option's name.
        name: i32,
        /// The value.
        value: Vec<u8>,
    },
}

/// The interface and source of a datagram, for `IP_PKTINFO` and `IPV6_PKTINFO`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketInfo {
    /// The name of the outgoing interface.
    pub interface: Option<String>,
    /// The source address. Its family selects the option.
    pub source: IpAddr,
}

/// A request to an actor. Those that wait have a timeout of some seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants' docs cover the fields")]
pub enum Request {
    /// `socket(2)`
    Socket { family: Family, protocol: Protocol },
    /// `socket(2)` with any numbers.
    OpenSocket {
        domain: i32,
        kind: i32,
        protocol: i32,
    },
    /// `setsockopt(2)`
    Set {
        socket: Handle,
        option: SocketOption,
    },
    /// `bind(2)`
    Bind { socket: Handle, address: SocketAddr },
    /// `listen(2)`
    Listen { socket: Handle },
    /// `socket(2)`, `bind(2)` and `listen(2)` on `count` consecutive addresses, and `close(2)`
    /// unless they are to stay open.
    ListenOnMany {
        first: SocketAddr,
        count: u32,
        stay_open: bool,
    },
    /// `listen(2)` with a backlog of one connection.
    ListenForOne { socket: Handle },
    /// Serves a listening socket with the identity server: see [`Introduction`]. A UDP socket
    /// replies to every datagram: see [`IdentityReply`].
    Serve { socket: Handle },
    /// Serves a listening or UDP socket with the DNS server.
    ServeDns { socket: Handle, zone: Zone },
    /// The number of queries that the DNS server has received: [`Reply::Queries`].
    Queries,
    /// `connect(2)` that waits for the connection.
    Connect { socket: Handle, address: SocketAddr },
    /// `connect(2)` on a non-blocking socket.
    ConnectStart { socket: Handle, address: SocketAddr },
    /// `poll(2)` for the result of a started connect, then `SO_ERROR`.
    ConnectFinish { socket: Handle },
    /// `connect(2)` to `AF_UNSPEC`, which disconnects the socket.
    Disconnect { socket: Handle },
    /// `accept(2)`
    Accept { socket: Handle },
    /// `send(2)`
    Send { socket: Handle, data: String },
    /// `send(2)` in another thread of the process.
    SendFromThread { socket: Handle, data: String },
    /// `sendto(2)` with `MSG_FASTOPEN`.
    FastOpenSend {
        socket: Handle,
        address: SocketAddr,
        data: String,
    },
    /// `sendto(2)`, one datagram.
    SendTo {
        socket: Handle,
        address: SocketAddr,
        data: String,
    },
    /// `sendto(2)` of any bytes; `send(2)` without an address.
    SendBytes {
        socket: Handle,
        address: Option<SocketAddr>,
        bytes: Vec<u8>,
    },
    /// Sends whole frames out of an interface, by a packet socket.
    SendFrames {
        interface: String,
        frames: Vec<Vec<u8>>,
        bypass_queue: bool,
    },
    /// The same for one frame, by a socket of `AF_XDP`.
    SendByXdp { interface: String, frame: Vec<u8> },
    /// `IORING_OP_CONNECT`. With `poll`, a thread of the kernel makes the calls (`IORING_SETUP_SQPOLL`).
    RingConnect {
        socket: Handle,
        address: SocketAddr,
        poll: bool,
    },
    /// `IORING_OP_SOCKET`, `IORING_OP_CONNECT` and `IORING_OP_RECV` on a direct descriptor, which is
    /// never in the process's table: the first data.
    RingDirect { address: SocketAddr },
    /// `IORING_OP_ACCEPT`: the accepted socket.
    RingAccept { socket: Handle },
    /// Writes IP packets to a tun device, as if they came from outside.
    WriteToTun {
        interface: String,
        packets: Vec<Vec<u8>>,
    },
    /// `sendmsg(2)` with `IP_PKTINFO` or `IPV6_PKTINFO`, one datagram; without an address if the
    /// socket is connected.
    SendWith {
        socket: Handle,
        address: Option<SocketAddr>,
        data: String,
        info: PacketInfo,
    },
    /// `recvfrom(2)`, one datagram, which stays in the queue if `peek`.
    ReceiveFrom { socket: Handle, peek: bool },
    /// `recvmmsg(2)` until there are `count` datagrams.
    ReceiveMany { socket: Handle, count: usize },
    /// `recv(2)` until the end of a line.
    ReceiveLine { socket: Handle },
    /// `getsockname(2)`
    LocalName { socket: Handle },
    /// `getpeername(2)`
    PeerName { socket: Handle },
    /// `getsockopt(SO_ORIGINAL_DST)` with a buffer of `length` bytes.
    OriginalDestination {
        socket: Handle,
        level: Level,
        length: usize,
    },
    /// `setgid(2)`, then `setuid(2)`, of the actor itself.
    SetUser { uid: u32, gid: u32 },
    /// The same; the actor keeps the capabilities with these numbers.
    KeepCapabilities {
        uid: u32,
        gid: u32,
        capabilities: Vec<u32>,
    },
    /// `setfsgid(2)` and `setfsuid(2)`: the owner of the actor's new sockets. It keeps its
    /// capabilities.
    SetSocketOwner { uid: u32, gid: u32 },
    /// `unshare(2)`: a user namespace of the actor's own, and a network namespace in it if
    /// `with_network`.
    OwnUserNamespace { with_network: bool },
    /// Opens the unix socket at which another actor may offer a socket.
    Expect { at: String },
    /// Passes a copy of a socket to the actor that listens at this unix socket.
    Offer { socket: Handle, at: String },
    /// Receives the socket that was offered.
    Take,
    /// `close(2)`
    Close { socket: Handle },
    /// Resets every connection and closes every socket, except those of the identity server.
    CloseAll,
}

/// The result of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Success, without a value.
    Done,
    /// The new socket.
    Socket(Handle),
    /// The requested socket address.
    Name(SocketAddr),
    /// The received data; empty at the end of the stream.
    Data(String),
    /// How many queries there were.
    Queries {
        /// Over UDP.
        udp: usize,
        /// Over TCP.
        tcp: usize,
    },
    /// The datagrams that were received.
    Datagrams(Vec<Datagram>),
    /// The events that `poll(2)` returned, and `SO_ERROR`.
    Polled {
        /// The names of the events.
        events: String,
        /// The errno's name, if there was one.
        error: Option<String>,
    },
    /// The result of `SO_ORIGINAL_DST`.
    Original {
        /// The address in the buffer.
        address: SocketAddr,
        /// The length that the kernel returned.
        length: usize,
    },
    /// The name of the errno.
    Error(String),
}

/// The records of a DNS server: every name has the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The `A` record.
    pub v4: Ipv4Addr,
    /// The `AAAA` record.
    pub v6: Ipv6Addr,
    /// Whether responses are too long for UDP.
    pub is_long: bool,
}

/// A datagram that was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Its payload.
    pub data: String,
    /// Its source address.
    pub sender: SocketAddr,
}

/// The reply of a UDP identity server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReply {
    /// The actor's name and the socket's port.
    pub server: String,
    /// `getsockname` of the socket.
    pub local: String,
    /// The datagram's source address.
    pub peer: String,
    /// Its payload.
    pub query: String,
}

/// The first line that an identity server sends to each client, before it echoes the bytes that it
/// receives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The actor's name and the listener's port.
    pub server: String,
    /// `getpeername` of the accepted socket.
    pub peer: String,
    /// `getsockname` of the accepted socket.
    pub local: String,
    /// `SO_ORIGINAL_DST` at `SOL_IP`.
    pub original_v4: String,
    /// `SO_ORIGINAL_DST` at `SOL_IPV6`.
    pub original_v6: String,
}
