//! The routes for captured DNS queries that name an interface, to the agent.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Protocol, Reply, Request, SocketOption, Zone},
    },
    lab::{Lab, NOTHING, STOCK, Traces, wait_until},
    scenario::address,
};

use super::running::Run;

const DNS: &[&str] = &["--redirect-dns", "--capture-all-dns"];
const SERVERS: [&str; 2] = ["10.2.0.9:53", "[fd00:2::9]:53"];
const LOCALHOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
const ZONE: Zone = Zone {
    v4: Ipv4Addr::new(192, 0, 2, 1),
    v6: Ipv6Addr::LOCALHOST,
    is_long: false,
};

/// A DNS query for the address of `a.`.
const QUERY: &str = "\0\u{1}\u{1}\0\0\u{1}\0\0\0\0\0\0\u{1}a\0\0\u{1}\0\u{1}";

/// A pod whose agent responds to DNS queries.
fn lab() -> Lab {
    let lab = Lab::new().expect("a lab");
    for ip in LOCALHOSTS {
        let address = SocketAddr::new(ip, 15053);
        let (agent, protocol) = (&lab.proxy, Protocol::Udp);
        let socket = agent
            .socket(Family::of(address), protocol)
            .expect("a socket");
        let zone = ZONE;
        for request in [
            Request::Bind { socket, address },
            Request::ServeDns { socket, zone },
        ] {
            agent.must(&request).expect("an agent");
        }
    }
    lab
}

/// The number of queries that the agent has received.
fn received(lab: &Lab) -> usize {
    match lab.proxy.must(&Request::Queries).expect("a number") {
        Reply::Queries { udp, .. } => udp,
        reply => panic!("{reply:?}"),
    }
}

/// Sends a query with a socket that has `option`, and returns the outcome.
fn query(actor: &Actor, server: &str, option: SocketOption) -> Result<String> {
    let (address, peek) = (address(server), false);
    let socket = actor.socket(Family::of(address), Protocol::Udp)?;
    actor.must(&Request::Set { socket, option })?;
    let data = QUERY.to_owned();
    let sent = actor.call(&Request::SendTo {
        socket,
        address,
        data,
    })?;
    if let Reply::Error(errno) = sent {
        return Ok(errno);
    }
    match actor.call(&Request::ReceiveFrom { socket, peek })? {
        Reply::Datagrams(datagrams) => Ok(datagrams[0].sender.to_string()),
        Reply::Error(errno) => Ok(errno),
        reply => Ok(format!("{reply:?}")),
    }
}

/// The outcome of an app's query that names `interface`.
fn query_via(lab: &Lab, interface: &str, server: &str) -> Result<String> {
    let interface = interface.to_owned();
    let option = match Family::of(address(server)) {
        Family::V4 => SocketOption::UnicastInterface(interface),
        Family::V6 => SocketOption::UnicastInterfaceV6(interface),
    };
    query(&lab.app, server, option)
}

fn assert_outcome(lab: &Lab, interface: &str) {
    for server in SERVERS {
        let outcome = query_via(lab, interface, server).expect("an outcome");
        assert_eq!(outcome, server, "via {interface}");
    }
}

fn routes(traces: &Traces) -> usize {
    let is_ours = |line: &&String| line.contains("proto 152");
    traces.network.iter().filter(is_ours).count()
}

#[test]
fn routes_to_localhost_follow_the_settings() {
    let lab = lab();
    let before = lab.traces().expect("traces");
    let v4_only: Vec<_> = STOCK
        .iter()
        .copied()
        .filter(|flag| *flag != "--dual-stack")
        .collect();
    for (flags, expected) in [
        ([STOCK, DNS].concat(), 2),
        ([&v4_only[..], DNS].concat(), 1),
        (STOCK.to_vec(), 0),
        ([STOCK, DNS].concat(), 2),
    ] {
        lab.attach(&flags).expect("attached");
        let now = lab.traces().expect("traces");
        assert_eq!(routes(&now), expected, "{flags:?}: {:#?}", now.network);
        // The policy has the current tables: another attach changes nothing.
        lab.attach(&flags).expect("attached again");
        assert_eq!(lab.changes_since(&now).expect("traces"), NOTHING);
    }
    assert_outcome(&lab, "eth0");
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

const NEW_INTERFACE: &str = "link add eth9 type veth peer name eth8\n\
                             link set eth8 up\n\
                             link set eth9 up\n\
                             addr add 10.77.0.2/24 dev eth9\n\
                             addr add fd00:77::2/64 dev eth9 nodad\n\
                             route add fd00:2::9/128 dev eth9 metric 4000";

/// A query that would leave the pod is refused.
#[test]
fn a_new_interface_since_the_attach() {
    let lab = lab();
    let flags = [STOCK, DNS].concat();
    lab.attach(&flags).expect("attached");
    lab.pod.ip(NEW_INTERFACE).expect("an interface");
    for server in SERVERS {
        let outcome = query_via(&lab, "eth9", server).expect("an outcome");
        assert_eq!(outcome, "ENODEV", "{server}");
    }
    assert_outcome(&lab, "eth0");
    lab.attach(&flags).expect("attached again");
    assert_outcome(&lab, "eth9");
    lab.pod.ip("link set eth9 down").expect("down");
    for server in SERVERS {
        let outcome = query_via(&lab, "eth9", server).expect("an outcome");
        assert_ne!(outcome, server);
    }
}

/// Under `interceptor run` routes follow new interfaces, and those that are set down and up again.
#[test]
fn run_keeps_the_routes_to_localhost() {
    let lab = lab();
    let flags = [STOCK, DNS].concat();
    let mut run = Run::start_with(&lab, &flags);
    let line = run.first_line();
    assert!(line.contains("is captured"), "{line}");
    lab.pod.ip(NEW_INTERFACE).expect("an interface");
    wait_for_responses(&lab, "eth9");
    lab.pod
        .ip(
            "link set eth9 down\nlink set eth9 up\naddr replace fd00:77::2/64 dev eth9 nodad\n\
             route replace fd00:2::9/128 dev eth9 metric 4000",
        )
        .expect("up again");
    wait_for_responses(&lab, "eth9");
    assert_outcome(&lab, "eth0");
}

fn wait_for_responses(lab: &Lab, interface: &str) {
    for server in SERVERS {
        wait_until("a response via a new interface", || {
            Ok(query_via(lab, interface, server)? == server)
        })
        .expect("a response");
    }
}

/// The hardware address of the pod's `eth0`.
const POD_LINK: &str = "02:00:00:00:01:02";

/// The number of IPv6 packets that the pod has dropped because of their headers.
fn dropped_v6(lab: &Lab) -> Result<u64> {
    let text = lab.pod.enter(|| {
        let path = "/proc/thread-self/net/snmp6";
        fs::read_to_string(path).context(path)
    })?;
    let line = text.lines().find(|line| line.starts_with("Ip6InHdrErrors"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context(text.clone())?.parse()?)
}

/// The kernel drops packets from a link to localhost, whatever the routes are. (The neighbour's
/// address must be set at the sending kernel, too.)
#[test]
fn nothing_from_outside_reaches_localhost() {
    let lab = lab();
    lab.attach(&[STOCK, DNS].concat()).expect("attached");
    assert_eq!(routes(&lab.traces().expect("traces")), 2);
    lab.peer
        .ip(&format!(
            "neigh replace 127.0.0.1 lladdr {POD_LINK} dev eth0 nud permanent\n\
             neigh replace ::1 lladdr {POD_LINK} dev eth0 nud permanent\n\
             route add ::1/128 dev eth0 metric 5"
        ))
        .expect("neighbours");
    let by_eth0 = || SocketOption::BindToDevice("eth0".to_owned());
    let before = dropped_v6(&lab).expect("a count");
    for agent in ["127.0.0.1:15053", "[::1]:15053"] {
        let outcome = query(&lab.client, agent, by_eth0()).expect("an outcome");
        assert_eq!(outcome, "EAGAIN", "{agent}");
    }
    assert_eq!(received(&lab), 0);
    // The packets have arrived at the point where they are dropped.
    assert!(dropped_v6(&lab).expect("a count") > before);
    lab.pod
        .sysctl("net/ipv4/conf/eth0/route_localnet", "1")
        .expect("a sysctl");
    query(&lab.client, "127.0.0.1:15053", by_eth0()).expect("an outcome");
    assert_eq!(received(&lab), 1);
}
