//! tc programs: connections that the pod would forward, from a virtual machine, or a container on a
//! bridge inside the pod.
//!
//! Such a connection has no socket in the pod and no lookup of a listener. So the ingress program
//! replaces the destination with its stand-in, which is an address of the pod: the kernel delivers
//! the packet, and `sk_lookup` assigns it to the proxy. In the proxy's replies the egress program
//! restores the destination.
//!
//! The only state is the stand-ins and the proxy's sockets: a packet of an established connection
//! is redirected if it has a socket. So connections that are older than the capture continue.

use aya_ebpf::{macros::classifier, programs::TcContext};
use interceptor_ebpf::{
    Destination, Direction, Flow, Inbound, InterfaceFlags, Listener, PolicyFlags, Refusal,
    SOURCELESS, StandIn, StandInRange, Verdict, decide,
};

use super::{
    events::Ends,
    packet::{End, Ip, NetnsId, Packet, TcAction, Tcp},
    pod::Pod,
    report, stand_ins,
};

/// The listeners that may receive a forwarded connection.
const LISTENERS: [Listener; 3] = [Listener::Inbound, Listener::Outbound, Listener::Transparent];

/// A watched interface has received a packet.
#[classifier]
pub(crate) fn icept_ingress(context: TcContext) -> i32 {
    ingress(&Packet::new(context.skb.skb)) as i32
}

/// A watched interface is about to send a packet.
#[classifier]
pub(crate) fn icept_egress(context: TcContext) -> i32 {
    egress(&Packet::new(context.skb.skb)) as i32
}

#[inline(always)]
fn ingress(packet: &Packet) -> TcAction {
    if packet.is_for_others() {
        return TcAction::Continue;
    }
    let Some(pod) = Pod::of(packet.netns()) else {
        return TcAction::Continue;
    };
    if !pod.watches(packet.interface()) {
        return TcAction::Continue;
    }
    if packet.is_tagged_twice() {
        return TcAction::Drop;
    }
    let Some(ip) = packet.ip() else {
        return TcAction::Continue;
    };
    // Stand-ins are internal to the pod: no legitimate packet from outside has one as its destination.
    if StandInRange::contains(ip.to) {
        return TcAction::Drop;
    }
    if !ip.is_tcp {
        return TcAction::Continue;
    }
    if !ip.is_plain {
        return drop_unless_own(pod, &ip);
    }
    match packet.tcp(&ip) {
        Some(tcp) if tcp.is_first => handle_syn(packet, pod, &ip, tcp),
        Some(tcp) => handle_established(packet, pod, &ip, tcp),
        None => drop_unless_own(pod, &ip),
    }
}

/// Drops TCP that these programs cannot decide on rather than forward it: fragments (which iptables
/// reassembles first) and TCP after extension headers.
#[inline(always)]
fn drop_unless_own(pod: Pod, ip: &Ip) -> TcAction {
    if pod.look_up_route(ip.to).is_own {
        TcAction::Continue
    } else {
        TcAction::Drop
    }
}

/// The first packet of a connection.
#[inline(always)]
fn handle_syn(packet: &Packet, pod: Pod, ip: &Ip, tcp: Tcp) -> TcAction {
    if pod.look_up_route(ip.to).is_own || ip.to.is_never_tcp() {
        // For connections to the pod itself, `sk_lookup` decides.
        return TcAction::Continue;
    }
    let interface = packet.interface();
    let lists = pod.interface_flags(interface);
    let flow = Flow::Inbound(Inbound {
        destination: ip.to,
        port: tcp.to,
        by_excluded_interface: lists.contains(InterfaceFlags::EXCLUDED),
        by_rerouted_interface: lists.contains(InterfaceFlags::REROUTED),
    });
    let verdict = decide(pod.policy, &pod, &flow);
    let ends = Ends {
        source: ip.from,
        source_port: tcp.from,
        destination: ip.to,
        port: tcp.to,
    };
    report::inbound(pod, ends, &verdict);
    let Verdict::Capture(listener, reason) = verdict else {
        return TcAction::Continue;
    };
    let is_tproxy = pod.policy.flags.contains(PolicyFlags::TPROXY);
    let listener = match listener {
        Listener::Inbound if is_tproxy => Listener::Transparent,
        listener => listener,
    };
    let destination = destination(ip, tcp, listener, interface);
    // `find` must succeed, too: the packets that follow depend on it, and would bypass the proxy.
    let stand_in = stand_ins::find_or_allocate(pod.netns, destination)
        .and_then(|_| stand_ins::find(pod.netns, destination));
    let Some(stand_in) = stand_in else {
        report::refusal(pod, ends, Direction::Inbound, Refusal::TableFull);
        return TcAction::Drop;
    };
    report::captured_inbound(pod, ends, listener, reason);
    redirect(packet, ip, tcp, stand_in)
}

/// A packet of an established connection, whose listener depends on the settings at its first
/// packet.
#[inline(always)]
fn handle_established(packet: &Packet, pod: Pod, ip: &Ip, tcp: Tcp) -> TcAction {
    // Most are for the pod itself, and were not redirected.
    if pod.had_address(packet.interface(), ip.to) {
        return TcAction::Continue;
    }
    for listener in LISTENERS {
        let destination = destination(ip, tcp, listener, packet.interface());
        if let Some(stand_in) = stand_ins::find(pod.netns, destination)
            && packet.has_socket(NetnsId::CURRENT, ip, tcp, stand_in)
        {
            return redirect(packet, ip, tcp, stand_in);
        }
    }
    TcAction::Continue
}

#[inline(always)]
fn destination(ip: &Ip, tcp: Tcp, listener: Listener, interface: u32) -> Destination {
    Destination {
        address: ip.to,
        port: tcp.to,
        listener: listener as u8,
        source: SOURCELESS,
        interface,
    }
}

/// Redirects the packet to the stand-in of its destination.
#[inline(always)]
fn redirect(packet: &Packet, ip: &Ip, tcp: Tcp, stand_in: StandIn) -> TcAction {
    if packet.rewrite(ip, tcp, End::Destination, stand_in) {
        TcAction::Continue
    } else {
        TcAction::Drop
    }
}

/// Replaces a stand-in as the source with its destination, or drops the packet.
#[inline(always)]
fn egress(packet: &Packet) -> TcAction {
    if let Some(sender) = packet.arp_sender() {
        return if StandInRange::contains(sender) {
            set_arp_sender(packet)
        } else {
            TcAction::Continue
        };
    }
    match packet.ip() {
        Some(ip) if StandInRange::contains(ip.from) => restore_source(packet, &ip),
        _ => TcAction::Continue,
    }
}

#[inline(always)]
fn restore_source(packet: &Packet, ip: &Ip) -> TcAction {
    if !(ip.is_tcp && ip.is_plain) {
        return TcAction::Drop;
    }
    let Some(tcp) = packet.tcp(ip) else {
        return TcAction::Drop;
    };
    let stand_in = StandIn {
        address: ip.from,
        port: tcp.from,
    };
    let Some(destination) = stand_ins::resolve(packet.netns(), stand_in) else {
        return TcAction::Drop;
    };
    let original = StandIn {
        address: destination.address,
        port: destination.port,
    };
    if destination.interface != 0 && packet.rewrite(ip, tcp, End::Source, original) {
        TcAction::Continue
    } else {
        TcAction::Drop
    }
}

/// The kernel sends an ARP request from the source of the packet that waits for it (`arp_solicit`),
/// and not every neighbour replies to a stand-in: send it from the interface's address.
#[inline(always)]
fn set_arp_sender(packet: &Packet) -> TcAction {
    let address = Pod::of(packet.netns())
        .map(|pod| pod.v4_address_of(packet.interface()))
        .filter(|address| packet.set_arp_sender(*address));
    match address {
        Some(_) => TcAction::Continue,
        None => TcAction::Drop,
    }
}
