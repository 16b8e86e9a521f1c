//! Constants and structures of the kernel's user API, under the kernel's names.

pub(crate) const AF_INET: u32 = 2;
pub(crate) const AF_INET6: u32 = 10;

pub(crate) const SOCK_STREAM: u32 = 1;
pub(crate) const SOCK_RAW: u32 = 3;

pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;
pub(crate) const IPPROTO_TCP: u32 = 6;
pub(crate) const IPPROTO_UDP: u32 = 17;
pub(crate) const IPPROTO_RAW: u32 = 255;
pub(crate) const IPPROTO_MPTCP: u32 = 262;

pub(crate) const EPERM: u32 = 1;
pub(crate) const ENOENT: u32 = 2;
pub(crate) const EEXIST: u32 = 17;
pub(crate) const ENODEV: u32 = 19;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const EPROTONOSUPPORT: u32 = 93;
pub(crate) const EOPNOTSUPP: u32 = 95;
pub(crate) const ENETUNREACH: u32 = 101;
pub(crate) const ECONNREFUSED: u32 = 111;

pub(crate) const SOL_IP: i32 = 0;
pub(crate) const SOL_SOCKET: i32 = 1;
pub(crate) const SOL_IPV6: i32 = 41;

pub(crate) const SO_BINDTODEVICE: i32 = 25;
pub(crate) const SO_BINDTOIFINDEX: i32 = 62;
/// `IP6T_SO_ORIGINAL_DST` is the same number.
pub(crate) const SO_ORIGINAL_DST: i32 = 80;
pub(crate) const IP_HDRINCL: i32 = 3;
pub(crate) const IP_OPTIONS: i32 = 4;
pub(crate) const IPV6_2292PKTOPTIONS: i32 = 6;
pub(crate) const IPV6_HDRINCL: i32 = 36;
pub(crate) const IPV6_RTHDR: i32 = 57;

pub(crate) const TCP_SYN_SENT: u32 = 2;
pub(crate) const TCP_CLOSE: u32 = 7;
pub(crate) const TCP_LISTEN: u32 = 10;

pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_ARP: u16 = 0x0806;
pub(crate) const ETH_P_8021Q: u16 = 0x8100;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;
pub(crate) const ETH_P_8021AD: u16 = 0x88a8;

/// The index of `lo`, in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The family of a `sock_addr` hook, which has members for each.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    V4,
    V6,
}

/// `struct sockaddr_in`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SockAddrIn {
    pub(crate) family: u16,
    pub(crate) port: u16,
    pub(crate) address: u32,
    pub(crate) zero: [u32; 2],
}

/// `struct sockaddr_in6`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SockAddrIn6 {
    pub(crate) family: u16,
    pub(crate) port: u16,
    pub(crate) flow_info: u32,
    pub(crate) address: [u32; 4],
    pub(crate) scope: u32,
}
