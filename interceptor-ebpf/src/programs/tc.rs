//! Connections that come from beyond the pod and would be forwarded through it: from a virtual
//! machine, or a container on a bridge inside the pod.
//!
//! No socket of the pod makes them, and no search for a listener meets them. So as they come in by an
//! interface, their destination gives way to its stand-in, which is the pod's own address: they are
//! delivered, and `sk_lookup` hands them to the proxy. As the proxy's answers leave, the stand-in
//! gives way to the destination.
//!
//! What is kept is the stand-ins, and the proxy's sockets: a packet in the middle of a connection is
//! taken if there is a socket for it. So connections that are older than the interception go on.

use aya_ebpf::{macros::classifier, programs::TcContext};
use interceptor_ebpf::{
    Destination, Direction, Flow, Inbound, InterfaceFlags, Listener, PolicyFlags, Refusal,
    SOURCELESS, StandIn, StandInRange, Verdict, decide,
};

use super::{
    count, log,
    packet::{End, Ip, Packet, Tcp},
    pod::Pod,
    stand_ins,
};

/// Where what is forwarded may go instead.
const LISTENERS: [Listener; 3] = [Listener::Inbound, Listener::Outbound, Listener::Transparent];

/// What the kernel does with a packet.
#[derive(Clone, Copy)]
#[repr(i32)]
enum TcAction {
    /// Continue with the programs of others (`TC_ACT_UNSPEC`, `TCX_NEXT`).
    Continue = -1,
    /// Drop the packet (`TC_ACT_SHOT`, `TCX_DROP`).
    Drop = 2,
}

/// A packet comes in by a watched interface.
#[classifier]
pub(crate) fn icept_ingress(context: TcContext) -> i32 {
    ingress(&Packet::new(context.skb.skb)) as i32
}

/// A packet leaves by one.
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
    // Stand-ins are the pod's own addresses: whoever sends to one has made it up.
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

/// TCP that cannot be told what becomes of it is not forwarded: fragments (iptables puts them
/// together first) and TCP behind extension headers.
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
        // What is for the pod itself, `sk_lookup` meets.
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
    log::verdict(pod.policy, &flow, &verdict);
    count::inbound(&verdict);
    let Verdict::Capture(listener, _) = verdict else {
        return TcAction::Continue;
    };
    let is_tproxy = pod.policy.flags.contains(PolicyFlags::TPROXY);
    let listener = match listener {
        Listener::Inbound if is_tproxy => Listener::Transparent,
        listener => listener,
    };
    let destination = destination(ip, tcp, listener, interface);
    // It must be found there, too: the packets that follow find their way by nothing else, and would
    // go past the proxy.
    let stand_in = stand_ins::find_or_allot(pod.netns, destination)
        .and_then(|_| stand_ins::find(pod.netns, destination));
    let Some(stand_in) = stand_in else {
        count::refusal(Direction::Inbound, Refusal::TableFull);
        return TcAction::Drop;
    };
    redirect(packet, ip, tcp, stand_in)
}

/// A packet in the middle of a connection. Which listener that went to is up to the settings of its
/// time.
#[inline(always)]
fn handle_established(packet: &Packet, pod: Pod, ip: &Ip, tcp: Tcp) -> TcAction {
    // Most are for the pod itself, and were never taken.
    if pod.had_address(packet.interface(), ip.to) {
        return TcAction::Continue;
    }
    for listener in LISTENERS {
        let destination = destination(ip, tcp, listener, packet.interface());
        if let Some(stand_in) = stand_ins::find(pod.netns, destination)
            && packet.has_socket(ip, tcp, stand_in)
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

/// Takes the packet to the stand-in of its destination.
#[inline(always)]
fn redirect(packet: &Packet, ip: &Ip, tcp: Tcp, stand_in: StandIn) -> TcAction {
    if packet.rewrite(ip, tcp, End::Destination, stand_in) {
        TcAction::Continue
    } else {
        TcAction::Drop
    }
}

/// What comes from a stand-in comes from its destination, or stays here.
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

/// The kernel asks for a neighbour's hardware address in the name of the packet that waits for it
/// (`arp_solicit`), and not every neighbour answers to a stand-in.
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
