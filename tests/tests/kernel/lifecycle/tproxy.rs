//! TPROXY's routes, rules and sysctls in a pod are created and deleted with it, except while
//! connections need them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Handle, Protocol, Reply, Request, SocketOption},
    },
    command::{bounded, run},
    lab::{Lab, NOTHING, STOCK, TPROXY, all_captured, all_direct, echoes},
    users::TRANSPARENT_PROXY,
};

/// The client and the app, in each family.
const CONNECTIONS: [(&str, &str); 2] = [
    ("10.1.0.1:0", "10.1.0.2:8080"),
    ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
];

fn tproxy() -> Vec<&'static str> {
    [STOCK, TPROXY].concat()
}

fn lab() -> Lab {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    lab
}

/// The proxy with TPROXY's capabilities.
fn proxy(lab: &Lab) -> Actor {
    let cgroup = lab.cgroup.child("pod/transparent").expect("a cgroup");
    let user = TRANSPARENT_PROXY;
    Actor::start("proxy", user, lab.pod.namespace(), Some(&cgroup)).expect("an actor")
}

/// `proxy` calls the app from the client's address, and the app gets that address.
fn call_app(proxy: &Actor, (client, app): (&str, &str), mark: u32) -> Result<Handle> {
    let (from, to): (SocketAddr, SocketAddr) = (client.parse()?, app.parse()?);
    let socket = proxy.socket(Family::of(to), Protocol::Tcp)?;
    let transparent = match Family::of(to) {
        Family::V4 => SocketOption::Transparent,
        Family::V6 => SocketOption::TransparentV6,
    };
    for option in [transparent, SocketOption::Mark(mark)] {
        proxy.must(&Request::Set { socket, option })?;
    }
    let address = from;
    proxy.must(&Request::Bind { socket, address })?;
    let address = to;
    proxy.must(&Request::Connect { socket, address })?;
    let line = proxy.must(&Request::ReceiveLine { socket })?;
    let ip = from.ip().to_string();
    ensure!(
        matches!(&line, Reply::Data(line) if line.contains("server:8080") && line.contains(&ip)),
        "{line:?}"
    );
    Ok(socket)
}

/// A connection of each family.
fn call_app_by_all(proxy: &Actor, mark: u32) -> Vec<Handle> {
    CONNECTIONS
        .iter()
        .map(|way| call_app(proxy, *way, mark).expect("the app"))
        .collect()
}

fn hang_up(proxy: &Actor) {
    proxy.must(&Request::CloseAll).expect("closed");
}

fn expect_echoes(proxy: &Actor, connections: &[Handle], when: &str) {
    for socket in connections {
        assert!(echoes(proxy, *socket).expect("an echo"), "{when}");
    }
}

#[test]
fn detach_restores_everything() {
    let lab = lab();
    let (before, proxy) = (lab.traces().expect("traces"), proxy(&lab));
    for _ in 0..2 {
        lab.attach(&tproxy()).expect("attached");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        call_app_by_all(&proxy, 1337);
        hang_up(&proxy);
        let again = lab.attach(&tproxy()).expect("attached again");
        assert!(again.contains("the same settings"), "{again}");
        lab.detach().expect("detached");
        assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
        assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
        assert_eq!(lab.dial_all().expect("dials"), all_direct());
    }
}

/// In an unprivileged container /proc/sys may be read-only.
#[test]
fn an_unprivileged_container_attaches() {
    let lab = lab();
    let proxy = proxy(&lab);
    let attach = lab.attach_command(&tproxy());
    let in_container = "mount --bind -o ro /proc/sys /proc/sys && exec \"$@\"";
    let mut command = bounded("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        in_container,
        "sh",
    ]);
    command.arg(attach.get_program()).args(attach.get_args());
    run(&mut command, "").expect("attached");
    call_app_by_all(&proxy, 1337);
    hang_up(&proxy);
    lab.detach().expect("detached");
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

/// Parts that existed before stay, and are used.
#[test]
fn existing_tproxy_state_stays() {
    let lab = lab();
    let proxy = proxy(&lab);
    let sysctls = [
        "net.ipv4.tcp_fwmark_accept",
        "net.ipv4.fwmark_reflect",
        "net.ipv6.fwmark_reflect",
    ];
    for sysctl in sysctls {
        lab.pod.sysctl(sysctl, "1").expect("a sysctl");
        restores(&lab, &proxy);
    }
    for family in ["-4", "-6"] {
        for words in [
            "rule add fwmark 1337 lookup 133",
            "route add local default dev lo table 133",
        ] {
            let words = words.split(' ');
            let ip = || run(bounded("ip").arg(family).args(words), "");
            lab.pod.enter(ip).expect("a rule, a route");
        }
    }
    restores(&lab, &proxy);
    for sysctl in sysctls {
        lab.pod.sysctl(sysctl, "0").expect("a sysctl");
    }
    restores(&lab, &proxy);
}

fn restores(lab: &Lab, proxy: &Actor) {
    let before = lab.traces().expect("traces");
    lab.attach(&tproxy()).expect("attached");
    call_app_by_all(proxy, 1337);
    hang_up(proxy);
    lab.attach(STOCK).expect("replaced");
    lab.attach(&tproxy()).expect("replaced");
    call_app_by_all(proxy, 1337);
    hang_up(proxy);
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

#[test]
fn modes_change_and_change_back() {
    let lab = lab();
    let (before, proxy) = (lab.traces().expect("traces"), proxy(&lab));
    lab.attach(STOCK).expect("attached");
    let redirecting = lab.traces().expect("traces").network;
    for _ in 0..3 {
        lab.attach(&tproxy()).expect("replaced");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        call_app_by_all(&proxy, 1337);
        hang_up(&proxy);
        lab.attach(STOCK).expect("replaced");
        assert_eq!(lab.traces().expect("traces").network, redirecting);
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
    }
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

/// Another mark, another table, and IPv6 no longer captured: unused parts are deleted.
#[test]
fn tproxy_settings_change() {
    let lab = lab();
    let (before, proxy) = (lab.traces().expect("traces"), proxy(&lab));
    for (flags, mark, families) in [
        (&["--dual-stack"][..], 1337, 2),
        (&["--dual-stack", "-t", "77", "-r", "300"], 77, 2),
        (&["-t", "77", "-r", "300"], 77, 1),
        (&["-r", "7"], 1337, 1),
        (&["--dual-stack", "-r", "7"], 1337, 2),
    ] {
        let flags = [&["-b", "*", "-i", "*"], TPROXY, flags].concat();
        lab.attach(&flags).expect("attached");
        for way in &CONNECTIONS[..families] {
            call_app(&proxy, *way, mark).expect("the app");
        }
        hang_up(&proxy);
        let network = lab.traces().expect("traces").network;
        let rules = network.iter().filter(|line| line.contains("fwmark 0x"));
        assert_eq!(rules.count(), families, "{flags:?}: {network:#?}");
        let routes = network.iter().filter(|line| line.contains("proto 154"));
        assert_eq!(routes.count(), families, "{flags:?}: {network:#?}");
    }
    // Nothing inbound is captured: nothing is needed.
    let none = [&["-i", "*", "--dual-stack"], TPROXY].concat();
    lab.attach(&none).expect("attached");
    let network = lab.traces().expect("traces").network;
    assert!(
        !network.iter().any(|line| line.contains("fwmark 0x")),
        "{network:#?}"
    );
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

#[test]
fn open_connections_survive_detach() {
    let lab = lab();
    let (before, proxy) = (lab.traces().expect("traces"), proxy(&lab));
    lab.attach(&tproxy()).expect("attached");
    let connections = call_app_by_all(&proxy, 1337);
    let printed = lab.detach().expect("detached");
    assert!(printed.contains("still open"), "{printed}");
    expect_echoes(&proxy, &connections, "detached");
    assert_eq!(lab.dial_all().expect("dials"), all_direct());
    lab.attach(&tproxy()).expect("attached again");
    expect_echoes(&proxy, &connections, "attached again");
    call_app_by_all(&proxy, 1337);
    hang_up(&proxy);
    lab.detach().expect("detached again");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}

#[test]
fn open_connections_survive_other_settings() {
    let lab = lab();
    let (before, proxy) = (lab.traces().expect("traces"), proxy(&lab));
    lab.attach(STOCK).expect("attached");
    let redirecting = lab.traces().expect("traces").network;
    lab.attach(&tproxy()).expect("attached");
    let connections = call_app_by_all(&proxy, 1337);
    lab.attach(STOCK).expect("redirects");
    expect_echoes(&proxy, &connections, "redirects");
    assert_eq!(lab.dial_all().expect("dials"), all_captured());
    lab.attach(&[&tproxy()[..], &["-t", "77", "-r", "300"]].concat())
        .expect("another mark");
    expect_echoes(&proxy, &connections, "another mark");
    call_app_by_all(&proxy, 77);
    expect_echoes(&proxy, &connections, "and others");
    hang_up(&proxy);
    lab.attach(STOCK).expect("redirects again");
    assert_eq!(lab.traces().expect("traces").network, redirecting);
    lab.detach().expect("detached");
    assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
}
