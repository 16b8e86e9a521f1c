//! Random connections, as the facts that determine a verdict.

use std::net::IpAddr;

use interceptor_ebpf::Transport;
use interceptor_testkit::model::{LOOPBACK, Packet, Protocol, State};
use proptest::{
    prelude::any,
    prop_oneof,
    sample::select,
    strategy::{Just, Strategy},
};

/// The interfaces.
pub(crate) const INTERFACES: [&str; 4] = [LOOPBACK, "eth0", "eth1", "net7"];

/// A connection's first packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) is_inbound: bool,
    pub(crate) transport: Transport,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) interface: &'static str,
    pub(crate) owner: Option<(u32, u32)>,
    /// Whether it has the mark of the settings, which no packet from outside has.
    pub(crate) is_marked: bool,
}

const V4: [&str; 14] = [
    "10.2.0.9",
    "10.2.0.10",
    "10.1.0.2",
    "10.1.0.3",
    "10.3.0.2",
    "10.96.0.10",
    "127.0.0.1",
    "127.0.0.2",
    "127.0.0.6",
    "127.0.0.53",
    "127.1.2.3",
    "198.51.100.9",
    "0.0.0.0",
    "255.255.255.255",
];

const V6: [&str; 8] = [
    "fd00:2::9",
    "fd00:1::2",
    "fd00:96::10",
    "::1",
    "::6",
    "2001:db8::9",
    "::",
    "fe80::1",
];

const PORTS: [u16; 16] = [
    80, 53, 22, 443, 8080, 9090, 15001, 15006, 15008, 15020, 15021, 15053, 15090, 16001, 16006, 81,
];

/// Any connection.
pub(crate) fn connections() -> impl Strategy<Value = Connection> {
    let port = prop_oneof![6 => select(&PORTS[..]), 1 => any::<u16>()];
    let transport = select(&[Transport::Tcp, Transport::Udp][..]);
    let owner = prop_oneof![
        8 => (id(), id()).prop_map(Some),
        1 => Just(None),
    ];
    let ends = prop_oneof![(v4(), v4()), (v6(), v6()),];
    (
        any::<bool>(),
        transport,
        ends,
        port,
        select(&INTERFACES[..]),
        owner,
        prop_oneof![6 => Just(false), 1 => Just(true)],
    )
        .prop_map(
            |(is_inbound, transport, (source, destination), port, interface, owner, is_marked)| {
                // Only inbound TCP is ever evaluated, and packets that arrive on `lo` were sent by
                // the pod.
                let (transport, interface) = match (is_inbound, interface) {
                    (true, LOOPBACK) => (Transport::Tcp, "eth0"),
                    (true, interface) => (Transport::Tcp, interface),
                    (false, interface) => (transport, interface),
                };
                Connection {
                    is_inbound,
                    transport,
                    source,
                    destination,
                    port,
                    interface,
                    owner: owner.filter(|_| !is_inbound),
                    is_marked: is_marked && !is_inbound,
                }
            },
        )
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![6 => select(&[1000, 1337, 0, 7][..]), 1 => 0..5000_u32]
}

fn v4() -> impl Strategy<Value = IpAddr> {
    let known = select(&V4[..]).prop_map(parse);
    let any = any::<[u8; 4]>().prop_map(IpAddr::from);
    prop_oneof![8 => known, 1 => any]
}

fn v6() -> impl Strategy<Value = IpAddr> {
    let known = select(&V6[..]).prop_map(parse);
    // No IPv6 packet has a mapped address.
    let any = any::<[u16; 8]>().prop_map(|mut words| {
        words[0] |= 1;
        IpAddr::from(words)
    });
    prop_oneof![8 => known, 1 => any]
}

fn parse(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Connection {
    /// The packet in the form of the rules' model.
    pub(crate) fn packet(&self, tproxy_mark: u32) -> Packet<'_> {
        Packet {
            protocol: match self.transport {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            },
            source: self.source,
            source_port: 40000,
            destination: self.destination,
            port: self.port,
            interface: self.interface,
            owner: self.owner,
            state: State::New,
            mark: if self.is_marked { tproxy_mark } else { 0 },
            connmark: 0,
            zone: None,
        }
    }
}
