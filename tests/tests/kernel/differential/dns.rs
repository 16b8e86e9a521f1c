//! DNS queries, which are redirected to the proxy's DNS agent.

mod sockets;

use interceptor_testkit::{
    scenario::{Dial, Query, Scenario, Sending, differential},
    settings::{Dns, Mode, Settings},
    world::{Layout, Role, Setup},
};

type Rows = &'static [(Role, &'static str, &'static str)];

fn setup(settings: Settings) -> Setup {
    Setup {
        dns: true,
        ..Setup::with(settings)
    }
}

fn all() -> Settings {
    Settings {
        dns: Dns::All,
        ..Settings::default()
    }
}

fn servers(servers: &'static str) -> Settings {
    Settings {
        dns: Dns::Servers(servers),
        ..Settings::default()
    }
}

/// Queries over UDP in both modes.
fn query(rows: Rows) -> Vec<Scenario> {
    rows.iter()
        .flat_map(|(role, to, outcome)| {
            Sending::BOTH.map(|sending| {
                let query = Query::new(*role, to, sending);
                Scenario::query(&format!("{role:?}"), outcome, query)
            })
        })
        .collect()
}

fn dial(rows: Rows) -> Vec<Scenario> {
    rows.iter()
        .map(|(role, to, outcome)| {
            Scenario::dial(&format!("{role:?}"), outcome, Dial::new(*role, to))
        })
        .collect()
}

const AGENT: &str = "agent:15053";

#[test]
fn every_query_over_udp() {
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "10.2.0.9:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "[::ffff:10.96.0.10]:53", AGENT),
        // Routing selects another source address than usual.
        (Role::App, "10.8.0.1:53", AGENT),
        (Role::App, "10.9.0.1:53", AGENT),
        (Role::App, "10.4.0.1:53", AGENT),
        // No host has the address.
        (Role::App, "198.51.100.53:53", AGENT),
        // The pod itself.
        (Role::App, "127.0.0.1:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "[::ffff:127.0.0.53]:53", AGENT),
        (Role::App, "10.1.0.2:53", AGENT),
        (Role::App, "10.3.0.2:53", AGENT),
        (Role::App, "[::1]:53", AGENT),
        (Role::App, "[fd00:1::2]:53", AGENT),
        (Role::App, "0.0.0.0:53", AGENT),
        (Role::App, "[::]:53", AGENT),
        (Role::Root, "10.96.0.10:53", AGENT),
        (Role::Root, "[fd00:96::10]:53", AGENT),
        // The proxy and the agent.
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
        (Role::ProxyUid, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "[fd00:96::10]:53", "remote:53"),
        (Role::ProxyGid, "[fd00:96::10]:53", "remote:53"),
        (Role::Proxy, "127.0.0.1:53", "app:53"),
        (Role::Proxy, "127.0.0.53:53", "app:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
        (Role::Proxy, "10.1.0.2:53", "app:53"),
        (Role::Proxy, "[::1]:53", "app:53"),
        // Other ports.
        (Role::App, "10.2.0.9:5353", "remote:5353"),
        (Role::App, "127.0.0.1:5353", "app:5353"),
        (Role::App, "127.0.0.1:15053", AGENT),
        (Role::App, "[::1]:15053", AGENT),
        // No UDP from outside is captured.
        (Role::Client, "10.1.0.2:53", "app:53"),
        (Role::Client, "[fd00:1::2]:53", "app:53"),
    ]);
    differential(&setup(all()), &scenarios);
}

#[test]
fn every_query_over_tcp() {
    let scenarios = dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "[::ffff:10.96.0.10]:53", AGENT),
        (Role::App, "10.8.0.1:53", AGENT),
        (Role::App, "10.4.0.1:53", AGENT),
        (Role::App, "127.0.0.1:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "10.1.0.2:53", AGENT),
        (Role::App, "[::1]:53", AGENT),
        (Role::App, "[fd00:1::2]:53", AGENT),
        (Role::App, "0.0.0.0:53", AGENT),
        (Role::Root, "10.96.0.10:53", AGENT),
        (Role::App, "10.66.1.1:53", "EHOSTUNREACH"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
        (Role::ProxyUid, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "127.0.0.1:53", "app:53"),
        (Role::Proxy, "127.0.0.53:53", "app:53"),
        (Role::Proxy, "10.1.0.2:53", "app:53"),
        (Role::Proxy, "[fd00:1::2]:53", "app:53"),
        // Only the rules of UIDs pass port 53.
        (Role::ProxyGid, "127.0.0.53:53", "proxy:15006"),
        (Role::ProxyGid, "10.1.0.2:53", "proxy:15006"),
        (Role::ProxyGid, "[fd00:1::2]:53", "proxy:15006"),
        (Role::ProxyGid, "127.0.0.1:53", "app:53"),
        (Role::ProxyGid, "[::1]:53", "app:53"),
        (Role::ProxyUid, "127.0.0.53:53", "app:53"),
        // Everything else is as without DNS.
        (Role::App, "10.2.0.9:80", "proxy:15001"),
        (Role::App, "10.1.0.2:80", "app:80"),
        (Role::Client, "10.1.0.2:53", "proxy:15006"),
    ]);
    differential(&setup(all()), &scenarios);
}

/// An app's queries to other servers than resolv.conf's pass as before: UDP directly, TCP through
/// the proxy.
#[test]
fn only_the_servers_of_resolv_conf() {
    let settings = servers("10.96.0.10,fd00:96::10,127.0.0.53");
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[::ffff:10.96.0.10]:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "10.2.0.9:53", "remote:53"),
        (Role::App, "[fd00:2::9]:53", "remote:53"),
        (Role::App, "127.0.0.1:53", "app:53"),
        (Role::App, "10.1.0.2:53", "app:53"),
        (Role::App, "[::1]:53", "app:53"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "10.2.0.9:53", "remote:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "10.2.0.9:53", "proxy:15001"),
        (Role::App, "127.0.0.1:53", "app:53"),
        (Role::ProxyGid, "127.0.0.53:53", "proxy:15006"),
    ]));
    differential(&setup(settings), &scenarios);
}

#[test]
fn servers_of_one_family() {
    for (named, v4, v6) in [
        ("10.96.0.10", AGENT, "remote:53"),
        ("fd00:96::10", "remote:53", AGENT),
    ] {
        let rows = [
            (Role::App, "10.96.0.10:53", v4),
            (Role::App, "[::ffff:10.96.0.10]:53", v4),
            (Role::App, "[fd00:96::10]:53", v6),
            (Role::Proxy, "10.96.0.10:53", "remote:53"),
            (Role::Proxy, "[fd00:96::10]:53", "remote:53"),
        ];
        let scenarios = query(Box::leak(Box::new(rows)));
        differential(&setup(servers(named)), &scenarios);
    }
}

/// As behind rules without DNS, whatever listens on the agent's port.
#[test]
fn no_dns_capture() {
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::App, "[fd00:96::10]:53", "remote:53"),
        (Role::App, "[::ffff:10.96.0.10]:53", "remote:53"),
        (Role::App, "127.0.0.53:53", "app:53"),
        (Role::App, "127.0.0.1:15053", AGENT),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", "proxy:15001"),
        (Role::App, "127.0.0.1:53", "app:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]));
    differential(&setup(Settings::default()), &scenarios);
}

/// Where the agent does not listen, no other server responds instead. (The error of a connected
/// socket is a known difference.)
#[test]
fn no_agent() {
    let rows: Rows = &[
        (Role::App, "10.96.0.10:53", "ECONNREFUSED"),
        (Role::App, "[fd00:96::10]:53", "ECONNREFUSED"),
        (Role::App, "[::ffff:10.96.0.10]:53", "ECONNREFUSED"),
        (Role::App, "127.0.0.1:53", "ECONNREFUSED"),
        (Role::App, "10.1.0.2:53", "ECONNREFUSED"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ];
    let over_tcp = rows.iter().map(|(role, to, outcome)| {
        let dial = Dial::new(*role, to);
        Scenario::new(format!("{role:?} dials {to}"), move |run| {
            run.world().stop_proxy()?;
            dial.execute(run)?;
            run.expect_outcome(outcome);
            Ok(())
        })
    });
    let unconnected = ["10.96.0.10:53", "[fd00:96::10]:53"].map(|to| {
        let query = Query::new(Role::App, to, Sending::Unconnected);
        Scenario::new(format!("unconnected to {to}"), move |run| {
            run.world().stop_proxy()?;
            query.execute(run)?;
            run.expect_outcome("silence");
            Ok(())
        })
    });
    let scenarios: Vec<_> = over_tcp.chain(unconnected).collect();
    differential(&setup(all()), &scenarios);
}

/// Reserved addresses, a link-local one without its link, port 0.
#[test]
fn odd_servers() {
    let rows = [
        "240.0.0.1:53",
        "0.1.2.3:53",
        "[::10.2.0.9]:53",
        "[fe80::1]:53",
        "10.96.0.10:0",
    ];
    let scenarios: Vec<_> = rows
        .iter()
        .flat_map(|to| {
            Sending::BOTH.map(|sending| {
                let query = Query::new(Role::App, to, sending);
                Scenario::new(format!("{to}, {sending:?}"), move |run| {
                    query.execute(run).map(drop)
                })
            })
        })
        .collect();
    differential(&setup(all()), &scenarios);
}

/// The proxy is root there, and identified by its GID.
#[test]
fn with_tproxy() {
    let settings = Settings {
        mode: Mode::Tproxy,
        ..all()
    };
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::ProxyGid, "10.96.0.10:53", "remote:53"),
    ]));
    differential(&setup(settings), &scenarios);
}

#[test]
fn unreachable_servers() {
    let rows: Rows = &[
        (Role::App, "10.66.1.1:53", "EHOSTUNREACH"),
        (Role::App, "10.66.2.1:53", "EACCES"),
        (Role::App, "10.66.3.1:53", "EINVAL"),
        (Role::App, "10.66.4.1:53", "ENETUNREACH"),
        (Role::App, "[::ffff:10.66.1.1]:53", "EHOSTUNREACH"),
        (Role::App, "[fd00:66:1::1]:53", "EHOSTUNREACH"),
        (Role::App, "[fd00:66:2::1]:53", "EACCES"),
        (Role::App, "[fd00:66:3::1]:53", "EINVAL"),
        (Role::App, "198.51.100.9:53", "ENETUNREACH"),
        (Role::App, "[2001:db8::9]:53", "ENETUNREACH"),
        (Role::App, "10.96.0.10:53", AGENT),
    ];
    let setup = Setup {
        layout: Layout {
            default_route: false,
            ..Layout::default()
        },
        ..setup(all())
    };
    differential(&setup, &query(rows));
}

#[test]
fn a_pod_of_one_family() {
    let without = |v4, v6| Setup {
        layout: Layout {
            v4,
            v6,
            ..Layout::default()
        },
        ..setup(all())
    };
    let rows: Rows = &[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", "ENETUNREACH"),
    ];
    differential(&without(true, false), &query(rows));
    let rows: Rows = &[
        (Role::App, "10.96.0.10:53", "ENETUNREACH"),
        (Role::App, "127.0.0.53:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
        (Role::App, "[::1]:53", AGENT),
    ];
    differential(&without(false, true), &query(rows));
}

/// Excluded ports, prefixes, interfaces and owner groups.
#[test]
fn dns_excluded_by_other_settings() {
    let port = Settings {
        outbound_excluded_ports: "53",
        ..all()
    };
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::App, "[fd00:96::10]:53", "remote:53"),
        (Role::App, "127.0.0.53:53", "app:53"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::ProxyGid, "127.0.0.53:53", "app:53"),
    ]));
    differential(&setup(port), &scenarios);

    // DNS precedes prefixes.
    let prefix = Settings {
        outbound_excluded_cidrs: "10.96.0.0/16,fd00:96::/32",
        ..all()
    };
    let mut scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "[fd00:96::10]:53", AGENT),
    ]);
    scenarios.extend(dial(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "10.96.0.10:80", "remote:80"),
    ]));
    differential(&setup(prefix), &scenarios);

    let interface = Settings {
        excluded_interfaces: "eth1",
        ..all()
    };
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::App, "10.4.0.1:53", "remote:53"),
        (Role::App, "10.3.0.2:53", AGENT),
    ]);
    differential(&setup(interface), &scenarios);
}

#[test]
fn owner_groups() {
    let excluded = Settings {
        excluded_owner_groups: "1000",
        ..all()
    };
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", "remote:53"),
        (Role::App, "[fd00:96::10]:53", "remote:53"),
        (Role::App, "127.0.0.53:53", "app:53"),
        (Role::Root, "10.96.0.10:53", AGENT),
    ]);
    differential(&setup(excluded), &scenarios);

    let included = Settings {
        owner_groups: "1000",
        ..all()
    };
    let scenarios = query(&[
        (Role::App, "10.96.0.10:53", AGENT),
        (Role::Root, "10.96.0.10:53", "remote:53"),
        (Role::Proxy, "10.96.0.10:53", "remote:53"),
    ]);
    differential(&setup(included), &scenarios);
}
