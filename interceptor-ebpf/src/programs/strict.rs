//! Strict mode: tc programs at the interfaces that connect a pod with its node, on the node's side of
//! a veth, where nothing in the pod can remove or avoid them.
//!
//! The hooks of sockets have decided on each connection of a socket. These programs refuse the
//! packets that did not come from such a decision: of raw and packet sockets, forwarded ones, and of
//! connections that are older than the capture. They decide once for each connected socket, by the
//! same rules, and store that with the socket. Packets on `lo` do not pass here.
//!
//! Without a socket of its own, a segment passes if it carries no data and opens no connection: the
//! kernel sends resets, acknowledgements of TIME-WAIT and SYN cookies so (`tcp_v4_send_reset`,
//! `tcp_v4_send_ack`, `tcp_make_synack`).

use aya_ebpf::{macros::classifier, programs::TcContext};
use interceptor_ebpf::{
    Address, DNS_PORT, Direction, Flow, Inbound, InterfaceFlags, Outbound, Owner, PolicyFlags,
    Reason, Refusal, StandIn, StandInRange, Transport, Uplink, UplinkKey, Verdict, decide,
};

use super::{
    context::Sock,
    events::Ends,
    maps::{PERMITTED, UPLINKS},
    packet::{Ip, NetnsId, Packet, Segment, Sender, TcAction},
    pod::Pod,
    report,
};

/// The pod has sent a packet.
#[classifier]
pub(crate) fn icept_leave(context: TcContext) -> i32 {
    guard(&Packet::new(context.skb.skb), Direction::Outbound) as i32
}

/// The pod is about to receive a packet.
#[classifier]
pub(crate) fn icept_enter(context: TcContext) -> i32 {
    guard(&Packet::new(context.skb.skb), Direction::Inbound) as i32
}

/// A pod in strict mode, and the uplink that the packet passes.
#[derive(Clone, Copy)]
struct Guarded {
    pod: Pod,
    uplink: &'static Uplink,
}

#[inline(always)]
fn guard(packet: &Packet, direction: Direction) -> TcAction {
    let key = UplinkKey {
        netns: packet.netns(),
        interface: packet.interface(),
        zero: 0,
    };
    // SAFETY: the map does not preallocate.
    let Some(uplink) = (unsafe { UPLINKS.get(key) }) else {
        return TcAction::Drop;
    };
    let Some(pod) = Pod::of(uplink.pod) else {
        return TcAction::Continue;
    };
    if !pod.policy.flags.contains(PolicyFlags::STRICT) {
        return TcAction::Continue;
    }
    let guarded = Guarded { pod, uplink };
    let Some(ip) = packet.ip() else {
        return guarded.judge_other(packet);
    };
    let result = match direction {
        Direction::Outbound => guarded.judge_leaving(packet, &ip),
        Direction::Inbound => guarded.judge_entering(packet, &ip),
    };
    let Err(Refused { why, ports }) = result else {
        return TcAction::Continue;
    };
    let ends = Ends {
        source: ip.from,
        source_port: ports[0],
        destination: ip.to,
        port: ports[1],
    };
    report::refusal(pod, ends, direction, why);
    TcAction::Drop
}

/// Why a packet is refused, and its ports, if known.
struct Refused {
    why: Refusal,
    ports: [u16; 2],
}

const NO_PORTS: [u16; 2] = [0; 2];

impl Refused {
    #[inline(always)]
    const fn new(why: Refusal) -> Self {
        Self {
            why,
            ports: NO_PORTS,
        }
    }
}

impl Guarded {
    #[inline(always)]
    fn is_for_all(self) -> bool {
        self.pod.policy.flags.contains(PolicyFlags::STRICT_ALL)
    }

    /// A packet that has no IP header after at most one VLAN's tag.
    #[inline(always)]
    fn judge_other(self, packet: &Packet) -> TcAction {
        if packet.has_inner_tag() || (self.is_for_all() && !packet.is_arp()) {
            TcAction::Drop
        } else {
            TcAction::Continue
        }
    }

    #[inline(always)]
    fn judge_leaving(self, packet: &Packet, ip: &Ip) -> Result<(), Refused> {
        if !ip.is_tcp {
            return self.judge_datagram(packet, ip, Direction::Outbound);
        }
        let sender = packet.sender();
        if !ip.is_plain {
            // A fragment, or extension headers: only of the kernel's own TCP.
            return match sender {
                Some(sender) if sender.common().is_between(ip.from, ip.to) => {
                    self.judge_sender(sender, ip)
                }
                _ => Err(Refused::new(Refusal::StrictHeaders)),
            };
        }
        let segment = packet
            .segment(ip)
            .ok_or(Refused::new(Refusal::StrictHeaders))?;
        let result = match sender {
            Some(sender) if is_of(sender.common(), ip, segment) => self.judge_sender(sender, ip),
            _ => Err(Refused::new(Refusal::StrictNoSocket)),
        };
        match result {
            Err(_) if segment.is_bare => Ok(()),
            Err(refused) => Err(Refused {
                ports: [segment.tcp.from, segment.tcp.to],
                ..refused
            }),
            Ok(()) => Ok(()),
        }
    }

    /// A packet of the connection of a TCP socket, a request or a socket in TIME-WAIT: are they the
    /// pod's, and is the connection permitted?
    #[inline(always)]
    fn judge_sender(self, sender: Sender, ip: &Ip) -> Result<(), Refused> {
        let Some(sock) = sender.full() else {
            return self.check_is_of_pod(sender);
        };
        if !sock.is_tcp() {
            return Err(Refused::new(Refusal::StrictNoSocket));
        }
        if sock.stored_in(&PERMITTED, false).is_some() {
            return Ok(());
        }
        self.check_is_of_pod(sender)?;
        if !sender.pointer().is_accepted(sock.family()) {
            self.check_is_exempt(sender, sock, ip)?;
        }
        // Without memory, the next packet is judged again.
        let _stored = sock.stored_in(&PERMITTED, true);
        Ok(())
    }

    #[inline(always)]
    fn check_is_of_pod(self, sender: Sender) -> Result<(), Refused> {
        if sender.pointer().netns() == self.pod.netns {
            Ok(())
        } else {
            Err(Refused::new(Refusal::StrictNoSocket))
        }
    }

    /// A connection that a socket of the pod has opened.
    #[inline(always)]
    fn check_is_exempt(self, sender: Sender, sock: Sock, ip: &Ip) -> Result<(), Refused> {
        let owner = sender.pointer().owner();
        let port = sock.remote_port();
        let verdict = self.decide_outbound(ip.from, ip.to, port, Transport::Tcp, owner);
        if verdict.is_exemption() {
            Ok(())
        } else {
            Err(Refused::new(Refusal::StrictPastProxy))
        }
    }

    #[inline(always)]
    fn decide_outbound(
        self,
        source: Address,
        destination: Address,
        port: u16,
        transport: Transport,
        owner: Owner,
    ) -> Verdict {
        let flow = Flow::Outbound(Outbound {
            destination,
            port,
            transport,
            source,
            via_loopback: false,
            by_excluded_interface: self.is_excluded(),
            is_marked: false,
            owner,
        });
        decide(self.pod.policy, &self.pod, &flow)
    }

    #[inline(always)]
    fn is_excluded(self) -> bool {
        self.pod
            .interface_flags(self.uplink.interface)
            .contains(InterfaceFlags::EXCLUDED)
    }

    #[inline(always)]
    fn netns_id(self) -> NetnsId {
        NetnsId::new(self.uplink.netns_id)
    }

    #[inline(always)]
    fn judge_entering(self, packet: &Packet, ip: &Ip) -> Result<(), Refused> {
        // Stand-ins are internal to the pod.
        if StandInRange::contains(ip.to) {
            return Err(Refused::new(Refusal::UnknownStandIn));
        }
        if ip.is_later_fragment {
            // Useless without the first one.
            return Ok(());
        }
        if !ip.is_tcp {
            return self.judge_datagram(packet, ip, Direction::Inbound);
        }
        if !ip.is_plain && !ip.from.is_v4() {
            return Err(Refused::new(Refusal::StrictHeaders));
        }
        let segment = packet
            .segment(ip)
            .ok_or(Refused::new(Refusal::StrictHeaders))?;
        let result = if segment.tcp.is_first {
            self.judge_opening(ip)
        } else if segment.is_bare || self.has_receiver(packet, ip, segment) {
            Ok(())
        } else {
            Err(Refusal::StrictNoSocket)
        };
        result.map_err(|why| Refused {
            why,
            ports: [segment.tcp.from, segment.tcp.to],
        })
    }

    /// A connection from outside, on which `sk_lookup` decides if it is for the pod itself.
    #[inline(always)]
    fn judge_opening(self, ip: &Ip) -> Result<(), Refusal> {
        if !ip.to.is_v4() && !self.pod.policy.flags.contains(PolicyFlags::IPV6) {
            return Err(Refusal::StrictPastProxy);
        }
        if self.pod.owns(ip.from) {
            return Err(Refusal::StrictForgedSource);
        }
        if self.pod.owns(ip.to) {
            Ok(())
        } else {
            Err(Refusal::StrictNoSocket)
        }
    }

    #[inline(always)]
    fn has_receiver(self, packet: &Packet, ip: &Ip, segment: Segment) -> bool {
        let local = StandIn {
            address: ip.to,
            port: segment.tcp.to,
        };
        packet.has_socket(self.netns_id(), ip, segment.tcp, local)
    }

    /// A packet of another protocol than TCP.
    #[inline(always)]
    fn judge_datagram(self, packet: &Packet, ip: &Ip, direction: Direction) -> Result<(), Refused> {
        if !self.is_for_all() || is_essential(packet, ip) {
            return Ok(());
        }
        let ports = packet.udp_ports(ip).unwrap_or(NO_PORTS);
        let is_exempt = match direction {
            Direction::Outbound => self.is_exempt_leaving(packet, ip, ports),
            Direction::Inbound => self.is_exempt_entering(packet, ip, ports),
        };
        if is_exempt {
            return Ok(());
        }
        let why = Refusal::StrictProtocol;
        Err(Refused { why, ports })
    }

    #[inline(always)]
    fn is_exempt_leaving(self, packet: &Packet, ip: &Ip, [from, to]: [u16; 2]) -> bool {
        let owner = match packet.sender() {
            Some(sender) if sender.full().is_some() => sender.pointer().owner(),
            _ => Owner::NONE,
        };
        self.is_exempt_server(ip.from, from) || self.is_exempt_client(ip.from, ip.to, to, owner)
    }

    #[inline(always)]
    fn is_exempt_entering(self, packet: &Packet, ip: &Ip, [from, to]: [u16; 2]) -> bool {
        if self.is_exempt_server(ip.to, to) {
            return true;
        }
        let owner = packet.udp_receiver(self.netns_id(), ip, [from, to]);
        self.is_exempt_client(ip.to, ip.from, from, owner)
    }

    /// Whether the settings exempt inbound traffic to this port, and the responses.
    #[inline(always)]
    fn is_exempt_server(self, local: Address, port: u16) -> bool {
        let flow = Flow::Inbound(Inbound {
            destination: local,
            port,
            by_excluded_interface: self.is_excluded(),
            by_rerouted_interface: false,
        });
        decide(self.pod.policy, &self.pod, &flow).is_exemption()
    }

    /// Whether they exempt outbound traffic to this port, and the responses.
    #[inline(always)]
    fn is_exempt_client(self, local: Address, remote: Address, port: u16, owner: Owner) -> bool {
        let verdict = self.decide_outbound(local, remote, port, Transport::Udp, owner);
        verdict.is_exemption()
            || (port == DNS_PORT && matches!(verdict, Verdict::Pass(Reason::NotTcp)))
    }
}

/// Whether a segment that leaves is of this socket's connection.
#[inline(always)]
fn is_of(sock: Sock, ip: &Ip, segment: Segment) -> bool {
    sock.is_between(ip.from, ip.to)
        && sock.local_port() == segment.tcp.from
        && sock.remote_port() == segment.tcp.to
}

/// Messages without which IP does not work: errors, and IPv6's neighbour discovery with the multicast
/// reports that it requires.
#[inline(always)]
fn is_essential(packet: &Packet, ip: &Ip) -> bool {
    const UNREACHABLE: u8 = 3;
    const TIME_EXCEEDED: u8 = 11;
    const PARAMETER_PROBLEM: u8 = 12;

    let Some(kind) = packet.icmp_type(ip) else {
        return false;
    };
    if ip.from.is_v4() {
        matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    } else {
        matches!(kind, 1..=4 | 130..=137 | 143)
    }
}
