//! Packets, as the hooks of an interface are shown them (`struct __sk_buff`).

use core::{
    arch::asm,
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
    ptr,
};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_CURRENT_NETNS, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        bpf_hdr_start_off::BPF_HDR_START_NET, bpf_sock,
    },
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_sk_release,
        bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_store_bytes, bpf_skc_lookup_tcp,
        bpf_tcp_check_syncookie,
    },
};
use interceptor_ebpf::{Address, NetnsCookie, StandIn};

use super::{
    context::{IPPROTO_TCP, Sock, read},
    kernel_memory::NetPointer,
};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

/// `VLAN_VID_MASK`: the VLAN's number in its tag, beside a priority.
const VLAN_ID: u32 = 0x0fff;

/// `PACKET_OTHERHOST`: seen, but meant for another station.
const OTHER_HOST: u32 = 3;

/// How long the header of the link layer is: Ethernet's, or that of interfaces which have none.
const LINK_HEADERS: [u32; 2] = [14, 0];

/// IPv6's extension headers (`ipv6_ext_hdr`), and that of AH.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
/// How many of them are looked through. More are taken to hide TCP.
const EXTENSION_HEADERS: u32 = 6;

/// The state of a socket that has no connection itself.
const TCP_LISTEN: u32 = 10;

/// `struct iphdr`
#[repr(C)]
struct V4Header {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// `struct ipv6hdr`
#[repr(C)]
struct V6Header {
    version_and_flow: u32,
    payload_length: u16,
    next: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// `struct tcphdr`
#[repr(C)]
struct TcpHeader {
    source: u16,
    destination: u16,
    sequence: u32,
    acknowledgement: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

impl TcpHeader {
    const SYN: u8 = 1 << 1;
    const ACK: u8 = 1 << 4;
}

/// `struct arphdr` and what follows it for IPv4 on Ethernet, as far as the sender's address.
#[repr(C)]
struct ArpHeader {
    head: [u8; 8],
    sender_hardware: [u8; 6],
    sender: [u16; 2],
}

/// What a packet's IP header says.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) is_tcp: bool,
    /// Whether it is no fragment, and no extension headers come before TCP's.
    pub(crate) is_plain: bool,
    /// Where TCP's header begins, counted from IP's.
    transport: u32,
}

/// What a packet's TCP header says: both ports, in host byte order, and whether it begins a
/// connection.
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) is_first: bool,
}

/// One of the ends that a packet names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// What becomes of a packet.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum Fate {
    /// It goes on, to other people's programs first (`TC_ACT_UNSPEC`, `TCX_NEXT`).
    GoOn = -1,
    /// It is dropped (`TC_ACT_SHOT`, `TCX_DROP`).
    Drop = 2,
}

pub(crate) struct Packet {
    context: *mut __sk_buff,
}

impl Packet {
    #[inline(always)]
    pub(crate) const fn new(context: *mut __sk_buff) -> Self {
        Self { context }
    }

    /// The network namespace of that interface.
    #[inline(always)]
    pub(crate) fn netns(&self) -> NetnsCookie {
        // SAFETY: this is the context of a hook of an interface.
        unsafe { NetPointer::of_packet(self.context.cast()) }.cookie()
    }

    /// The interface that it came in by, or leaves by.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        read!(self.context, __sk_buff, u32 ifindex)
    }

    /// Whether it is for another station, or for a virtual interface on top of this one, whose own
    /// hook sees it next: one of a VLAN, a `macvlan`. VLAN 0 is no VLAN: such a tag only bears a
    /// priority, and the kernel takes it away behind this hook (`__netif_receive_skb_core`).
    #[inline(always)]
    pub(crate) fn is_for_others(&self) -> bool {
        read!(self.context, __sk_buff, u32 pkt_type) == OTHER_HOST
            || read!(self.context, __sk_buff, u32 vlan_tci) & VLAN_ID != 0
    }

    /// Whether another tag comes behind the one of VLAN 0 that the kernel has taken off the packet,
    /// of VLAN 0 again: it takes that off behind this hook, too, and sees what nobody has seen.
    #[inline(always)]
    pub(crate) fn is_tagged_twice(&self) -> bool {
        matches!(self.protocol(), ETH_P_8021Q | ETH_P_8021AD)
            && self
                .load::<[u16; 2]>(0)
                .is_none_or(|[tag, _]| u32::from(u16::from_be(tag)) & VLAN_ID == 0)
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        u16::from_be(read!(self.context, __sk_buff, u32 protocol) as u16)
    }

    /// Its IP header. `None` if it has none, or half of one, which the kernel drops.
    #[inline(always)]
    pub(crate) fn ip(&self) -> Option<Ip> {
        match self.protocol() {
            ETH_P_IP => self.v4(),
            ETH_P_IPV6 => self.v6(),
            _ => None,
        }
    }

    #[inline(always)]
    fn v4(&self) -> Option<Ip> {
        const FRAGMENT_OFFSET_AND_MORE: u16 = 0x3fff;

        let header: V4Header = self.load(0)?;
        Some(Ip {
            from: Address::from_v4(header.source),
            to: Address::from_v4(header.destination),
            is_tcp: u32::from(header.protocol) == IPPROTO_TCP,
            is_plain: u16::from_be(header.fragment) & FRAGMENT_OFFSET_AND_MORE == 0,
            transport: u32::from(header.version_and_length & 0xf) * 4,
        })
    }

    #[inline(always)]
    fn v6(&self) -> Option<Ip> {
        let header: V6Header = self.load(0)?;
        let is_plain = u32::from(header.next) == IPPROTO_TCP;
        Some(Ip {
            from: Address::from_words(header.source),
            to: Address::from_words(header.destination),
            is_tcp: is_plain || self.may_hide_tcp(header.next),
            is_plain,
            transport: size_of::<V6Header>() as u32,
        })
    }

    /// Whether TCP may come behind the extension headers that begin with `next`, as ip6tables sees
    /// it (`ipv6_find_hdr`).
    #[inline(always)]
    fn may_hide_tcp(&self, mut next: u8) -> bool {
        let mut offset = size_of::<V6Header>() as u32;
        for _ in 0..EXTENSION_HEADERS {
            if u32::from(next) == IPPROTO_TCP {
                return true;
            }
            let Some([following, length]) = self.load::<[u8; 2]>(offset) else {
                return false;
            };
            offset += match next {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => {
                    (u32::from(length) + 1) * 8
                }
                AUTHENTICATION => (u32::from(length) + 2) * 4,
                FRAGMENT => 8,
                _ => return false,
            };
            next = following;
        }
        true
    }

    /// Its TCP header. `None` if that is incomplete.
    #[inline(always)]
    pub(crate) fn tcp(&self, ip: &Ip) -> Option<Tcp> {
        let header: TcpHeader = self.load(ip.transport)?;
        Some(Tcp {
            from: u16::from_be(header.source),
            to: u16::from_be(header.destination),
            is_first: header.flags & (TcpHeader::SYN | TcpHeader::ACK) == TcpHeader::SYN,
        })
    }

    /// Whether the packet belongs to a connection that the pod has with `local` at its end, in
    /// whatever state.
    #[inline(always)]
    pub(crate) fn has_socket(&self, ip: &Ip, tcp: Tcp, local: StandIn) -> bool {
        let ports = [tcp.from.to_be(), local.port.to_be()];
        let sock = if let (Some(from), Some(to)) = (ip.from.v4(), local.address.v4()) {
            self.find_socket((from, to, ports))
        } else {
            self.find_socket((ip.from.words(), local.address.words(), ports))
        };
        if sock.is_null() {
            return false;
        }
        let is_listener = Sock::new(sock).state() == TCP_LISTEN;
        let has_socket = !is_listener || self.bears_cookie(sock, ip, local);
        // SAFETY: the socket is held since it was found, and released once.
        unsafe { bpf_sk_release(sock.cast()) };
        has_socket
    }

    /// `ends` is a `struct bpf_sock_tuple`, whose size tells its family. What is found must be
    /// released.
    #[inline(always)]
    fn find_socket<A: Copy>(&self, ends: (A, A, [u16; 2])) -> *mut bpf_sock {
        #[repr(C)]
        struct Tuple<A>(A, A, [u16; 2]);

        let mut tuple = Tuple(ends.0, ends.1, ends.2);
        // SAFETY: the helper reads the tuple, which is as long as is said.
        unsafe {
            bpf_skc_lookup_tcp(
                self.context.cast(),
                (&raw mut tuple).cast(),
                size_of::<Tuple<A>>() as u32,
                BPF_F_CURRENT_NETNS as u64,
                0,
            )
        }
    }

    /// Whether the packet ends a handshake of which a listener that was flooded keeps nothing.
    #[inline(always)]
    fn bears_cookie(&self, listener: *mut bpf_sock, ip: &Ip, local: StandIn) -> bool {
        let Some(mut tcp) = self.load::<TcpHeader>(ip.transport) else {
            return false;
        };
        tcp.destination = local.port.to_be();
        if let Some(to) = local.address.v4() {
            self.load::<V4Header>(0).is_some_and(|mut header| {
                header.destination = to;
                is_cookie(listener, &mut header, &mut tcp)
            })
        } else {
            self.load::<V6Header>(0).is_some_and(|mut header| {
                header.destination = local.address.words();
                is_cookie(listener, &mut header, &mut tcp)
            })
        }
    }

    /// Puts `new` in the place of the address and port at one end. Answers whether all of it could
    /// be done; if not, the packet is spoilt.
    #[inline(always)]
    pub(crate) fn rewrite(&self, ip: &Ip, tcp: Tcp, end: End, new: StandIn) -> bool {
        let Some(link) = self.link_header() else {
            return false;
        };
        let (old_address, old_port) = match end {
            End::Source => (ip.from, tcp.from),
            End::Destination => (ip.to, tcp.to),
        };
        let transport = link + ip.transport;
        let checksum = transport + offset_of!(TcpHeader, checksum) as u32;
        let port = transport
            + match end {
                End::Source => offset_of!(TcpHeader, source),
                End::Destination => offset_of!(TcpHeader, destination),
            } as u32;
        let addresses = if let (Some(old), Some(new)) = (old_address.v4(), new.address.v4()) {
            self.rewrite_v4(link, checksum, end, old, new)
        } else {
            let (old, new) = (old_address.words(), new.address.words());
            self.rewrite_v6(link, checksum, end, old, new)
        };
        let (old, new) = (old_port.to_be(), new.port.to_be());
        // SAFETY: the helper checks the offset.
        let ports =
            unsafe { bpf_l4_csum_replace(self.context, checksum, old.into(), new.into(), 2) == 0 };
        addresses && ports && self.store(port, new, 0)
    }

    #[inline(always)]
    fn rewrite_v4(&self, link: u32, tcp_checksum: u32, end: End, old: u32, new: u32) -> bool {
        let field = match end {
            End::Source => offset_of!(V4Header, source),
            End::Destination => offset_of!(V4Header, destination),
        } as u32;
        let checksum = link + offset_of!(V4Header, checksum) as u32;
        let (from, to) = (old.into(), new.into());
        let flags = u64::from(BPF_F_PSEUDO_HDR) | size_of::<u32>() as u64;
        // SAFETY: the helpers check the offsets.
        let checksums = unsafe {
            bpf_l4_csum_replace(self.context, tcp_checksum, from, to, flags) == 0
                && bpf_l3_csum_replace(self.context, checksum, from, to, 4) == 0
        };
        checksums && self.store(link + field, new, 0)
    }

    /// IPv6 has no checksum of its own to make up for the address: where the network card has summed
    /// up the whole packet, that sum takes it in by `BPF_F_RECOMPUTE_CSUM`.
    #[inline(always)]
    fn rewrite_v6(
        &self,
        link: u32,
        tcp_checksum: u32,
        end: End,
        mut old: [u32; 4],
        mut new: [u32; 4],
    ) -> bool {
        let field = match end {
            End::Source => offset_of!(V6Header, source),
            End::Destination => offset_of!(V6Header, destination),
        } as u32;
        let size = size_of::<[u32; 4]>() as u32;
        // SAFETY: both addresses are as long as is said; the helpers check the offset.
        let checksum = unsafe {
            let difference =
                bpf_csum_diff(old.as_mut_ptr(), size, new.as_mut_ptr(), size, 0) as u64;
            let flags = u64::from(BPF_F_PSEUDO_HDR);
            bpf_l4_csum_replace(self.context, tcp_checksum, 0, difference, flags) == 0
        };
        checksum && self.store(link + field, new, BPF_F_RECOMPUTE_CSUM.into())
    }

    /// The address that asks, if it is an ARP request or answer.
    #[inline(always)]
    pub(crate) fn arp_sender(&self) -> Option<Address> {
        if self.protocol() != ETH_P_ARP {
            return None;
        }
        let header: ArpHeader = self.load(0)?;
        Some(Address::from_v4(zerocopy::transmute!(header.sender)))
    }

    /// Has `sender` ask. Answers whether it could be done.
    #[inline(always)]
    pub(crate) fn set_arp_sender(&self, sender: Address) -> bool {
        let field = LINK_HEADERS[0] + offset_of!(ArpHeader, sender) as u32;
        self.store(field, sender.words()[3], 0)
    }

    /// Where the IP header begins, counted from where the packet does: not told to programs, so the
    /// place is looked for.
    #[inline(always)]
    fn link_header(&self) -> Option<u32> {
        let expected: [u32; 5] = self.load(0)?;
        LINK_HEADERS
            .into_iter()
            .find(|length| self.load_from_start(*length) == Some(expected))
    }

    /// Reads `T` at an offset from the IP header.
    #[inline(always)]
    fn load<T>(&self, offset: u32) -> Option<T> {
        load_by(|value, size| {
            // SAFETY: the helper writes as many bytes as it is told, which is what the value has.
            unsafe {
                bpf_skb_load_bytes_relative(
                    self.context.cast(),
                    offset,
                    value,
                    size,
                    BPF_HDR_START_NET,
                )
            }
        })
    }

    #[inline(always)]
    fn load_from_start<T>(&self, offset: u32) -> Option<T> {
        load_by(|value, size| {
            // SAFETY: as above.
            unsafe { bpf_skb_load_bytes(self.context.cast(), offset, value, size) }
        })
    }

    /// Writes `value` at an offset from the packet's beginning.
    #[inline(always)]
    fn store<T>(&self, offset: u32, value: T, flags: u64) -> bool {
        let value = ptr::from_ref(&value).cast();
        // SAFETY: the helper reads as many bytes as the value has, and checks the offset.
        unsafe {
            bpf_skb_store_bytes(self.context, offset, value, size_of::<T>() as u32, flags) == 0
        }
    }
}

/// Only for types that any bytes are valid for: those of this module.
#[inline(always)]
fn load_by<T>(load: impl FnOnce(*mut c_void, u32) -> i64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    if load(value.as_mut_ptr().cast(), size_of::<T>() as u32) != 0 {
        return None;
    }
    // SAFETY: all of it was written.
    Some(unsafe { value.assume_init() })
}

#[inline(always)]
fn is_cookie<H>(listener: *mut bpf_sock, ip: &mut H, tcp: &mut TcpHeader) -> bool {
    let (ip, tcp): (*mut H, *mut TcpHeader) = (ip, tcp);
    let (ip_size, tcp_size) = (size_of::<H>() as u32, size_of::<TcpHeader>() as u32);
    // SAFETY: the listener is held; both headers are as long as is said.
    unsafe {
        bpf_tcp_check_syncookie(listener.cast(), ip.cast(), ip_size, tcp.cast(), tcp_size) == 0
    }
}
