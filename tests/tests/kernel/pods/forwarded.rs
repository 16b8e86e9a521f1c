//! Connections that are forwarded through a pod: older than the attach, long, or unusual, and
//! leftovers after the detach.

use std::{
    fs,
    io::ErrorKind,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::Output,
    time::Duration,
};

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Handle, Reply, Request},
    },
    bpf::programs::{Action, AttachType, Program},
    command::{bounded, output, run},
    inner::{forward, put_inside},
    lab::{Lab, NOTHING, STOCK, call, dial, echoes, wait_until},
    netns::Netns,
    users::ROOT,
    world::{Bind, serve},
};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

/// Destinations beyond the pod, of both families.
const BEYOND: [&str; 2] = ["10.2.0.9:80", "[fd00:2::9]:80"];

/// Time limits of an expected and of an unexpected packet.
const PACKET_TIMEOUT: Duration = Duration::from_secs(5);
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// A pod with a host on a bridge inside it.
struct Forwarding {
    inner: Actor,
    /// A server there, on port 8080.
    _server: Actor,
    netns: Netns,
    lab: Lab,
}

impl Forwarding {
    fn new() -> Self {
        let lab = Lab::new().expect("a lab");
        lab.start_proxy().expect("a proxy");
        Self::in_lab(lab).expect("a host inside")
    }

    fn in_lab(lab: Lab) -> Result<Self> {
        let cgroup = lab.cgroup.child("inner")?;
        let netns = Netns::new("inner", Some(&cgroup))?;
        put_inside(&lab.pod, &lab.peer, &netns)?;
        let start = || Actor::start("inner", ROOT, netns.namespace(), Some(&cgroup));
        let (inner, server) = (start()?, start()?);
        serve(&server, Bind::DUAL_WILDCARD, 8080)?;
        Ok(Self {
            inner,
            _server: server,
            netns,
            lab,
        })
    }

    /// The servers that respond: to a host inside that dials out, and to a client that dials in.
    fn dial_all(&self) -> Vec<String> {
        let out = BEYOND.map(|to| dial(&self.inner, to));
        let into = ["172.17.0.2:8080", "[fd00:17::2]:8080"].map(|to| dial(&self.lab.client, to));
        let responses = out.into_iter().chain(into);
        responses.collect::<Result<_>>().expect("dials")
    }

    fn call_all(&self) -> Vec<(Handle, String)> {
        BEYOND
            .map(|to| call(&self.inner, to).expect("a call"))
            .into()
    }

    fn all_echo(&self, connections: &[(Handle, String)]) -> bool {
        connections
            .iter()
            .all(|(socket, _)| echoes(&self.inner, *socket).expect("an echo"))
    }

    /// The stand-in of an open connection, to which the outside hosts get a route.
    fn allotted_stand_in(&self) -> SocketAddr {
        self.call_all();
        let route = "route add 0.128.0.0/15 via 10.1.0.2";
        self.lab.peer.ip(route).expect("a route");
        let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", self.lab.app.pid()));
        let found = sockets.expect("sockets").lines().find_map(stand_in);
        found.expect("a stand-in among the proxy's sockets")
    }

    /// Whether the peer gets a TCP segment when the host inside sends these packets.
    fn arrives(&self, domain: Domain, packets: &[Vec<u8>]) -> bool {
        let open = |netns: &Netns, protocol: u8| {
            let protocol = Protocol::from(i32::from(protocol));
            let open = || Ok(Socket::new(domain, Type::RAW, Some(protocol))?);
            netns.enter(open).expect("a socket")
        };
        let ear = open(&self.lab.peer, TCP);
        ear.set_read_timeout(Some(LONG_ENOUGH)).expect("a timeout");
        // IPPROTO_RAW: the sent data includes the header.
        let mouth = open(&self.netns, 255);
        let to: IpAddr = match domain {
            Domain::IPV4 => Ipv4Addr::new(10, 2, 0, 9).into(),
            _ => "fd00:2::9".parse().expect("an address"),
        };
        for packet in packets {
            let to = SocketAddr::new(to, 0).into();
            mouth.send_to(packet, &to).expect("sent");
        }
        let mut buffer = [MaybeUninit::uninit(); 128];
        ear.recv(&mut buffer).is_ok()
    }

    fn tc(&self, command: &str) -> String {
        let run = || run(bounded("tc").args(command.split(' ')), "");
        self.lab.pod.enter(run).expect("tc")
    }

    /// The qdiscs and filters of the pod's interfaces.
    fn filters(&self) -> [String; 3] {
        [
            "qdisc show",
            "filter show dev br0 ingress",
            "filter show dev br0 egress",
        ]
        .map(|question| self.tc(question))
    }

    fn status(&self) -> Output {
        output(&mut self.lab.command("status"), "").expect("status")
    }
}

fn direct() -> Vec<String> {
    ["remote:80", "remote:80", "inner:8080", "inner:8080"]
        .map(str::to_owned)
        .into()
}

fn captured() -> Vec<String> {
    let to = [BEYOND[0], BEYOND[1], "172.17.0.2:8080", "[fd00:17::2]:8080"];
    to.map(|to| format!("proxy:15006 for {to}")).into()
}

/// Flags of a pod with a rerouted interface.
const REROUTED: &[&str] = &["-b", "*", "-i", "*", "-k", "br0", "--dual-stack"];

#[test]
fn detach_restores_everything() {
    let pod = Forwarding::new();
    let before = (pod.lab.traces().expect("traces"), pod.filters());
    assert_eq!(pod.dial_all(), direct());
    for flags in [STOCK, REROUTED] {
        pod.lab.attach(flags).expect("attached");
        assert_ne!(pod.dial_all(), direct());
    }
    pod.lab.detach().expect("detached");
    assert_eq!(pod.lab.changes_since(&before.0).expect("traces"), NOTHING);
    assert_eq!(pod.lab.leftovers().expect("leftovers"), NOTHING);
    assert_eq!(pod.filters(), before.1);
    assert_eq!(pod.dial_all(), direct());
}

/// Interfaces that no longer need programs lose them, those that now do get them.
#[test]
fn programs_are_attached_where_needed() {
    let pod = Forwarding::new();
    let watched = || {
        let traces = pod.lab.traces().expect("traces");
        let links = traces.links.iter();
        links.filter(|link| link.contains("icept_ingress")).count()
    };
    pod.lab.attach(STOCK).expect("attached");
    assert_eq!(watched(), 2);
    pod.lab
        .attach(&["-i", "*", "--dual-stack"])
        .expect("attached");
    assert_eq!(watched(), 0);
    assert_eq!(pod.dial_all(), direct());
    pod.lab
        .attach(&["-i", "*", "-k", "br0", "--dual-stack"])
        .expect("attached");
    assert_eq!(watched(), 1);
    forward(&pod.lab.pod, false).expect("a sysctl");
    pod.lab.attach(STOCK).expect("attached");
    assert_eq!(watched(), 0);
}

/// `ip_forward` is inherited, and so are tunnels that are never up: neither makes a pod forward.
#[test]
fn a_pod_with_one_interface_up_gets_no_programs() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    forward(&lab.pod, true).expect("a sysctl");
    lab.pod.ip("link add br0 type bridge").expect("a bridge");
    let watched = || {
        lab.attach(STOCK).expect("attached");
        let traces = lab.traces().expect("traces");
        let links = traces.links.iter();
        links.filter(|link| link.contains("icept_ingress")).count()
    };
    assert_eq!(watched(), 0);
    lab.pod.ip("link set br0 up").expect("up");
    assert_eq!(watched(), 2);
    lab.pod.ip("link set br0 down").expect("down");
    assert_eq!(watched(), 0);
}

#[test]
fn connections_older_than_the_attach_continue() {
    let pod = Forwarding::new();
    let old = pod.call_all();
    pod.lab.attach(STOCK).expect("attached");
    assert!(pod.all_echo(&old));
    assert_eq!(pod.dial_all(), captured());
    assert!(pod.all_echo(&old));
    pod.lab.detach().expect("detached");
    assert!(pod.all_echo(&old));
}

#[test]
fn connections_survive_other_settings() {
    let pod = Forwarding::new();
    pod.lab.attach(STOCK).expect("attached");
    let connections = pod.call_all();
    assert!(
        connections
            .iter()
            .all(|(_, server)| server.starts_with("proxy:15006"))
    );
    let excluded = ["-b", "*", "-d", "80", "-i", "*", "--dual-stack"];
    for flags in [&excluded[..], REROUTED, STOCK] {
        pod.lab.attach(flags).expect("attached");
        assert!(pod.all_echo(&connections), "{flags:?}");
    }
    let passing = {
        pod.lab.attach(&excluded).expect("attached");
        pod.call_all()
    };
    assert!(passing.iter().all(|(_, server)| server == "remote:80"));
    pod.lab.attach(STOCK).expect("attached");
    assert!(pod.all_echo(&passing));
    assert!(pod.all_echo(&connections));
}

/// Detaching breaks them: their packets no longer reach the proxy. New ones reach their
/// destination.
#[test]
fn captured_connections_break_at_a_detach() {
    let pod = Forwarding::new();
    pod.lab.attach(STOCK).expect("attached");
    let connections = pod.call_all();
    pod.lab.detach().expect("detached");
    for (socket, _) in &connections {
        assert!(!echoes(&pod.inner, *socket).expect("an echo"));
    }
    assert_eq!(pod.dial_all(), direct());
}

/// Sends this much data and reads it back, in lines.
fn bulk(actor: &Actor, socket: Handle) {
    let line = "x".repeat(65_535);
    for _ in 0..16 {
        let data = line.clone() + "\n";
        actor.must(&Request::Send { socket, data }).expect("sent");
        let reply = actor.must(&Request::ReceiveLine { socket });
        let Reply::Data(back) = reply.expect("a response") else {
            panic!("no line");
        };
        assert_eq!(back.len(), line.len());
    }
}

/// Large packets that the kernel segments as they leave, and small ones.
#[test]
fn a_megabyte_in_each_direction() {
    let pod = Forwarding::new();
    pod.lab.attach(STOCK).expect("attached");
    for (mtu, segments) in [(1500, 65535), (1500, 1), (1300, 65535), (9000, 65535)] {
        let set = format!("link set eth0 mtu {mtu} gso_max_segs {segments}");
        pod.netns.ip(&set).expect("an MTU");
        let set = format!("link set br0 gso_max_segs {segments}");
        pod.lab.pod.ip(&set).expect("segments");
        for (socket, server) in pod.call_all() {
            assert!(server.starts_with("proxy:15006"), "{server}");
            bulk(&pod.inner, socket);
        }
    }
}

/// A flooded listener stores nothing of a connection before it is established.
#[test]
fn handshakes_with_cookies() {
    let pod = Forwarding::new();
    let cookies = "net.ipv4.tcp_syncookies";
    pod.lab.pod.sysctl(cookies, "2").expect("a sysctl");
    let old = pod.call_all();
    pod.lab.attach(STOCK).expect("attached");
    for (socket, server) in pod.call_all() {
        assert!(server.starts_with("proxy:15006"), "{server}");
        bulk(&pod.inner, socket);
    }
    assert!(pod.all_echo(&old));
}

/// A client that knows or guesses a stand-in, and has a route there, does not reach the proxy with
/// it.
#[test]
fn stand_ins_cannot_be_dialled_from_outside() {
    let pod = Forwarding::new();
    pod.lab.attach(STOCK).expect("attached");
    let allotted = pod.allotted_stand_in();
    for to in [allotted, "0.128.0.1:8080".parse().expect("an address")] {
        for netns in [&pod.netns, &pod.lab.peer] {
            let kind = try_dial(netns, to);
            assert_eq!(kind, Some(ErrorKind::TimedOut), "{to}");
        }
    }
    assert_eq!(pod.dial_all(), captured());
}

/// Nor through an interface without our programs.
#[test]
fn stand_ins_are_refused_at_other_interfaces() {
    let pod = Forwarding::new();
    forward(&pod.lab.pod, false).expect("a sysctl");
    let only_bridge = ["-i", "*", "-k", "br0", "--dual-stack"];
    pod.lab.attach(&only_bridge).expect("attached");
    let kind = try_dial(&pod.lab.peer, pod.allotted_stand_in());
    assert_eq!(kind, Some(ErrorKind::ConnectionRefused));
}

/// The errno of a failed dial.
fn try_dial(netns: &Netns, to: SocketAddr) -> Option<ErrorKind> {
    let dial = || Ok(TcpStream::connect_timeout(&to, LONG_ENOUGH).err());
    let error = netns.enter(dial).expect("a network namespace");
    error.map(|error| error.kind())
}

/// The local end of a line of `/proc/net/tcp`, if it is a stand-in for a forwarded connection.
fn stand_in(line: &str) -> Option<SocketAddr> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    // Printed as a number in this machine's byte order.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    let is_beyond = address.octets()[0] == 0 && address.octets()[1] & 0xfe == 128;
    is_beyond.then(|| (address, port).into())
}

/// TCP in fragments and behind IPv6's extension headers is not forwarded, whatever its port: it
/// could not be classified.
#[test]
fn tcp_in_disguise_is_not_forwarded() {
    let pod = Forwarding::new();
    let (v4, v6) = (Domain::IPV4, Domain::IPV6);
    let plain = [v4_packet(0, &SEGMENT), v6_packet(TCP, &SEGMENT)];
    let (first, rest) = SEGMENT.split_at(24);
    let options = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &SEGMENT].concat();
    let fragment = [&[TCP, 0, 0, 1, 0, 0, 0, 7][..], first].concat();
    let last = [&[TCP, 0, 0, 24, 0, 0, 0, 7][..], rest].concat();
    let disguised = [
        (v4, vec![v4_packet(0x2000, first), v4_packet(3, rest)]),
        (v6, vec![v6_packet(60, &options)]),
        (v6, vec![v6_packet(44, &fragment), v6_packet(44, &last)]),
    ];
    for (domain, packets) in &disguised {
        assert!(pod.arrives(*domain, packets), "not attached: {packets:?}");
    }
    pod.lab.attach(STOCK).expect("attached");
    for (domain, packet) in [v4, v6].into_iter().zip(plain) {
        assert!(pod.arrives(domain, &[packet]), "plain");
    }
    for (domain, packets) in &disguised {
        assert!(!pod.arrives(*domain, packets), "{packets:?}");
    }
}

/// A tag of VLAN 0 has only a priority: the kernel removes it, and the packet is the interface's
/// own. Behind two of them no hook could parse the packet.
#[test]
fn priority_tags_do_not_hide_packets() {
    let pod = Forwarding::new();
    let (v4, v6) = (Domain::IPV4, Domain::IPV6);
    let plain = [(v4, v4_packet(0, &SEGMENT)), (v6, v6_packet(TCP, &SEGMENT))];
    let arrive = || {
        let arrives = |(domain, packet): &(Domain, Vec<u8>)| {
            pod.arrives(*domain, std::slice::from_ref(packet))
        };
        plain.each_ref().map(arrives)
    };
    let tag = || {
        let program =
            Program::load("tag", AttachType::Egress, Action::TagPriority).expect("a program");
        let link = || Ok(program.link_to_interface(if_nametoindex("eth0")?)?);
        pod.netns.enter(link).expect("linked")
    };
    let outer = tag();
    let dial_out = || BEYOND.map(|to| dial(&pod.inner, to).expect("a dial"));
    assert_eq!(dial_out(), ["remote:80"; 2]);
    pod.lab.attach(STOCK).expect("attached");
    assert_eq!(dial_out().as_slice(), &captured()[..2]);
    assert_eq!(arrive(), [true; 2], "an excluded port");
    let inner = tag();
    assert_eq!(arrive(), [false; 2], "two tags");
    drop(outer);
    // The neighbours did not receive each other's requests either, and retry once a second.
    wait_until("one tag again", || Ok(arrive() == [true; 2])).expect("an excluded port");
    assert_eq!(dial_out().as_slice(), &captured()[..2]);
    pod.lab.detach().expect("detached");
    let _again = tag();
    assert_eq!(arrive(), [true; 2], "two tags, detached");
    drop(inner);
}

const TCP: u8 = 6;

/// The first segment of a connection to port 15020, which is excluded: its header and some data.
const SEGMENT: [u8; 32] = [
    0x4e, 0x20, 0x3a, 0xac, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0, 0,
    0, 0, 0, 0, 0, 0, 0,
];

/// A packet from 172.17.0.2 to 10.2.0.9, or a fragment of it: `fragment` is the header's field.
fn v4_packet(fragment: u16, payload: &[u8]) -> Vec<u8> {
    // The kernel fills in the length and the checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 7];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, TCP, 0, 0, 172, 17, 0, 2, 10, 2, 0, 9]);
    packet.extend(payload);
    packet
}

/// A packet from `fd00:17::2` to `fd00:2::9`.
fn v6_packet(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len())
        .expect("a length")
        .to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    for address in ["fd00:17::2", "fd00:2::9"] {
        let address: Ipv6Addr = address.parse().expect("an address");
        packet.extend(address.octets());
    }
    packet.extend(payload);
    packet
}

#[test]
fn datagrams_pass() {
    let pod = Forwarding::new();
    pod.lab.attach(REROUTED).expect("attached");
    for (server, client) in [("10.2.0.9:53", "0.0.0.0:0"), ("[fd00:2::9]:53", "[::]:0")] {
        let bind = |netns: &Netns, address: &str| {
            netns
                .enter(|| Ok(UdpSocket::bind(address)?))
                .expect("a socket")
        };
        let (server_socket, client) = (bind(&pod.lab.peer, server), bind(&pod.netns, client));
        server_socket
            .set_read_timeout(Some(PACKET_TIMEOUT))
            .expect("a timeout");
        client
            .set_read_timeout(Some(PACKET_TIMEOUT))
            .expect("a timeout");
        client.send_to(b"question", server).expect("sent");
        let mut buffer = [0; 16];
        let (length, from) = server_socket.recv_from(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..length], b"question");
        server_socket.send_to(b"answer", from).expect("sent");
        let (length, from) = client.recv_from(&mut buffer).expect("a response");
        assert_eq!(
            (&buffer[..length], from.to_string().as_str()),
            (&b"answer"[..], server)
        );
    }
}

/// A proxy whose neighbour is unknown resolves it with its own address.
#[test]
fn neighbours_are_resolved_from_the_interfaces_address() {
    let pod = Forwarding::new();
    pod.lab.attach(STOCK).expect("attached");
    // A neighbour with the strictest settings.
    for name in ["all", "eth0"] {
        let name = format!("net.ipv4.conf.{name}.rp_filter");
        pod.netns.sysctl(&name, "1").expect("a sysctl");
    }
    pod.netns
        .ip("route add unreachable 0.0.0.0/8")
        .expect("a route");
    let (socket, _) = call(&pod.inner, BEYOND[0]).expect("a call");
    pod.lab
        .pod
        .ip("neigh flush dev br0")
        .expect("no neighbours");
    assert!(echoes(&pod.inner, socket).expect("an echo"));
}

/// Another program on the same interfaces stays, and does not exclude Interceptor.
#[test]
fn other_programs_filters_stay() {
    let pod = Forwarding::new();
    pod.tc("qdisc add dev br0 clsact");
    pod.tc("filter add dev br0 ingress prio 7 u32 match u32 0 0 flowid 1:1");
    let before = pod.filters();
    pod.lab.attach(STOCK).expect("attached");
    assert_eq!(pod.dial_all(), captured());
    pod.lab.detach().expect("detached");
    assert_eq!(pod.filters(), before);
    assert_eq!(pod.dial_all(), direct());
}

#[test]
fn other_interface_programs_continue_to_run() {
    let pod = Forwarding::new();
    let load =
        || Program::load("foreign", AttachType::Ingress, Action::CountOnly).expect("a program");
    let link = |program: &Program| {
        let link = || Ok(program.link_to_interface(if_nametoindex("br0")?)?);
        pod.lab.pod.enter(link).expect("linked")
    };
    let (older, newer) = (load(), load());
    let _older = link(&older);
    pod.lab.attach(STOCK).expect("attached");
    let _newer = link(&newer);
    assert_eq!(pod.dial_all(), captured());
    for program in [older, newer] {
        assert!(program.runs().expect("a count") > 0);
    }
}

/// Docker's rules: outgoing connections of the bridge's network get the pod's address.
#[test]
fn together_with_masquerading() {
    let pod = Forwarding::new();
    for (program, network) in [("iptables", "172.17.0.0/16"), ("ip6tables", "fd00:17::/64")] {
        let rule = [
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            network,
            "!",
            "-o",
            "br0",
        ];
        let add = || run(bounded(program).args(rule).args(["-j", "MASQUERADE"]), "");
        pod.lab.pod.enter(add).expect("a rule");
    }
    let old = pod.call_all();
    for flags in [STOCK, REROUTED] {
        pod.lab.attach(flags).expect("attached");
        for (socket, server) in pod.call_all() {
            assert!(server.starts_with("proxy:"), "{server}");
            assert!(echoes(&pod.inner, socket).expect("an echo"));
        }
    }
    let included = ["-i", "10.96.0.0/16", "-k", "br0", "--dual-stack"];
    pod.lab.attach(&included).expect("attached");
    let passing = pod.call_all();
    assert!(passing.iter().all(|(_, server)| server == "remote:80"));
    assert!(pod.all_echo(&passing));
    assert!(pod.all_echo(&old));
}

#[test]
fn status_reports_unobserved_forwarding() {
    let pod = Forwarding::new();
    forward(&pod.lab.pod, false).expect("a sysctl");
    pod.lab.attach(STOCK).expect("attached");
    assert!(pod.status().status.success());
    forward(&pod.lab.pod, true).expect("a sysctl");
    let status = pod.status();
    assert_eq!(status.status.code(), Some(3));
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains("br0") && text.contains("forwarded"), "{text}");
    pod.lab.attach(STOCK).expect("attached again");
    assert!(pod.status().status.success());
    assert_eq!(pod.dial_all(), captured());
}
