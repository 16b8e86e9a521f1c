//! The proxy's listeners, and when they are opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::{Handle, Request, SocketOption},
    scenario::{Run, Scenario, differential},
    users::PROXY,
    world::{Bind, Role, Setup, serve, serve_with},
};

const LOCALHOST_V4: Bind = Bind::to(IpAddr::V4(Ipv4Addr::LOCALHOST));
const LOCALHOST_V6: Bind = Bind::to(IpAddr::V6(Ipv6Addr::LOCALHOST));
const POD_V4: Bind = Bind::to(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)));
/// The address that was added last: the kernel puts it first.
const POD_V6: Bind = Bind::to(IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 3)));
const MAPPED_LOCALHOST: Bind =
    Bind::to(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1)));

/// Connections of every kind that the rules capture.
const CAPTURED: [(Role, &str); 11] = [
    (Role::App, "10.2.0.9:80"),
    (Role::App, "[::ffff:10.2.0.9]:80"),
    (Role::App, "[fd00:2::9]:80"),
    (Role::Proxy, "10.1.0.2:80"),
    (Role::Proxy, "[fd00:1::2]:80"),
    (Role::Client, "10.1.0.2:8080"),
    (Role::Client, "10.1.0.3:8080"),
    (Role::Client, "10.3.0.2:8080"),
    (Role::Client, "[fd00:1::2]:8080"),
    (Role::Client, "[fd00:1::3]:8080"),
    (Role::Client, "[fd00:3::2]:8080"),
];

const CAPTURED_V4: &[&str] = &["10.", "[::ffff:"];

/// `role` dials `to`, and either the proxy responds or the connection is refused.
fn expect(role: Role, to: &'static str, responses: bool) -> Scenario {
    Scenario::new(format!("{role:?} dials {to}"), move |run| {
        run.dial(role, to)?;
        let responded = run.outcome().starts_with("proxy");
        let refused = run.outcome() == "ECONNREFUSED";
        run.expect("the proxy responds, or it is refused", responded != refused);
        run.expect(
            &format!("the proxy responds: {responses}"),
            responded == responses,
        );
        Ok(())
    })
}

fn compare(proxy: &'static [Bind], responses: impl Fn(Role, &str) -> bool) {
    for proxy_first in [false, true] {
        let setup = Setup {
            proxy,
            proxy_first,
            ..Setup::default()
        };
        let scenarios = CAPTURED.map(|(role, to)| expect(role, to, responses(role, to)));
        differential(&setup, &scenarios);
    }
}

fn is_v4(to: &str) -> bool {
    CAPTURED_V4.iter().any(|start| to.starts_with(start))
}

#[test]
fn on_a_wildcard_of_each_family() {
    compare(&Bind::BOTH_WILDCARDS, |_, _| true);
}

#[test]
fn on_the_ipv4_wildcard_only() {
    compare(&[Bind::V4_WILDCARD], |_, to| is_v4(to));
}

#[test]
fn on_the_ipv6_wildcard_for_both_families() {
    compare(&[Bind::DUAL_WILDCARD], |_, _| true);
}

#[test]
fn on_the_ipv6_wildcard_for_ipv6_only() {
    compare(&[Bind::V6_WILDCARD], |_, to| !is_v4(to));
}

#[test]
fn on_localhost_of_each_family() {
    compare(&[LOCALHOST_V4, LOCALHOST_V6], |role, _| {
        role != Role::Client
    });
}

#[test]
fn on_ipv4_localhost_only() {
    compare(&[LOCALHOST_V4], |role, to| {
        role != Role::Client && is_v4(to)
    });
}

#[test]
fn on_ipv4_localhost_by_an_ipv6_socket() {
    compare(&[MAPPED_LOCALHOST], |role, to| {
        role != Role::Client && is_v4(to)
    });
}

/// The rules redirect inbound packets to the first address of their interface.
#[test]
fn on_the_pods_address_only() {
    compare(&[POD_V4], |role, to| {
        role == Role::Client && to.starts_with("10.1.")
    });
}

#[test]
fn on_the_pods_ipv6_address_only() {
    compare(&[POD_V6], |role, to| {
        role == Role::Client && to.starts_with("[fd00:1:")
    });
}

/// The exact address precedes the wildcard, and IPv4 precedes IPv6.
#[test]
fn on_everything_at_once() {
    compare(
        &[
            Bind::DUAL_WILDCARD,
            LOCALHOST_V4,
            LOCALHOST_V6,
            POD_V4,
            POD_V6,
        ],
        |_, _| true,
    );
}

#[test]
fn after_a_restart() {
    let scenarios = CAPTURED.map(|(role, to)| {
        Scenario::new(format!("{role:?} dials {to}"), move |run| {
            for turn in 0..2 {
                run.world().stop_proxy()?;
                run.label(format!("turn {turn}, down:"));
                run.dial(role, to)?;
                run.expect_outcome("ECONNREFUSED");
                run.world().start_proxy()?;
                run.label(format!("turn {turn}, up:"));
                run.dial(role, to)?;
                run.expect("the proxy responds", run.outcome().starts_with("proxy"));
            }
            Ok(())
        })
    });
    differential(&Setup::default(), &scenarios);
}

/// Two workers on one port. Which of them responds is random; that one does is not.
#[test]
fn by_two_workers_until_one_closes() {
    let setup = Setup {
        proxy: &[],
        ..Setup::default()
    };
    let scenarios = CAPTURED.map(|(role, to)| {
        Scenario::new(format!("{role:?} dials {to}"), move |run| {
            let second = PROXY;
            let second = run.world().start_in_pod("proxy", second, "pod/second")?;
            let first = run.actor(Role::ProxyServer)?;
            let firsts = workers(first)?;
            workers(&second)?;
            dial_often(run, "both", role, to, "proxy")?;
            for socket in firsts {
                first.must(&Request::Close { socket })?;
            }
            dial_often(run, "the second only", role, to, "proxy")?;
            drop(second);
            dial_often(run, "none", role, to, "ECONNREFUSED")
        })
    });
    differential(&setup, &scenarios);
}

/// A listener on a device accepts only packets of that device, and redirected packets arrive on
/// `lo`.
#[test]
fn on_a_device() {
    let setup = Setup {
        proxy: &[],
        ..Setup::default()
    };
    let mut scenarios = Vec::new();
    for device in ["lo", "eth0", "eth1"] {
        for (role, to) in CAPTURED {
            scenarios.push(Scenario::new(
                format!("{role:?} dials {to}, the proxy listens on {device}"),
                move |run| {
                    let proxy = run.actor(Role::ProxyServer)?;
                    let listeners = [15001, 15006].map(|port| {
                        let option = SocketOption::BindToDevice(device.to_owned());
                        serve_with(proxy, Bind::DUAL_WILDCARD, port, &[option])
                    });
                    run.dial(role, to)?;
                    for socket in listeners {
                        proxy.must(&Request::Close { socket: socket? })?;
                    }
                    Ok(())
                },
            ));
        }
    }
    differential(&setup, &scenarios);
}

fn workers(actor: &interceptor_testkit::actor::Actor) -> Result<Vec<Handle>> {
    let mut sockets = Vec::new();
    for bind in Bind::BOTH_WILDCARDS {
        for port in [15001, 15006] {
            sockets.push(serve(actor, bind, port)?);
        }
    }
    Ok(sockets)
}

fn dial_often(run: &mut Run<'_>, label: &str, role: Role, to: &str, outcome: &str) -> Result<()> {
    for turn in 0..6 {
        run.label(format!("{label}, {turn}:"));
        run.dial(role, to)?;
        run.expect(
            &format!("{label}: {outcome}"),
            run.outcome().starts_with(outcome),
        );
    }
    Ok(())
}
