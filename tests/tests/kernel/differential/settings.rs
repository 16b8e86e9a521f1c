//! Every setting.

use interceptor_testkit::{
    scenario::{Dial, Scenario, differential},
    settings::Settings,
    world::{Layout, Role, Setup},
};

type Rows<'a> = &'a [(Role, &'a str, &'static str)];

fn compare(settings: Settings, rows: Rows<'_>) {
    compare_in(&Setup::with(settings), rows);
}

fn compare_in(setup: &Setup, rows: Rows<'_>) {
    let scenarios: Vec<_> = rows
        .iter()
        .map(|(role, to, outcome)| {
            Scenario::dial(&format!("{role:?}"), outcome, Dial::new(*role, to))
        })
        .collect();
    differential(setup, &scenarios);
}

#[test]
fn a_list_of_inbound_ports() {
    let settings = Settings {
        inbound_ports: "8080,15020,15008",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
            (Role::Client, "10.1.0.2:9090", "app:9090"),
            (Role::Client, "10.1.0.2:15006", "proxy:15006"),
            (Role::Client, "10.1.0.2:15008", "app:15008"),
            // With a list, the excluded ports are ignored.
            (Role::Client, "10.1.0.2:15020", "proxy:15006"),
            (Role::Client, "10.1.0.2:15021", "app:15021"),
            (Role::Client, "[fd00:1::2]:8080", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:9090", "app:9090"),
            (Role::Proxy, "10.1.0.2:9090", "proxy:15006"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
        ],
    );
}

#[test]
fn no_inbound_ports() {
    let settings = Settings {
        inbound_ports: "",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "10.1.0.2:15006", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:8080", "app:8080"),
            (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
            (Role::Proxy, "[fd00:1::2]:80", "proxy:15006"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
        ],
    );
}

#[test]
fn excluded_inbound_ports() {
    let settings = Settings {
        inbound_excluded_ports: "22,8080",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:22", "app:22"),
            (Role::Client, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "10.1.0.2:80", "proxy:15006"),
            (Role::Client, "10.1.0.2:15020", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:8080", "app:8080"),
            (Role::Client, "[fd00:1::2]:15020", "proxy:15006"),
            (Role::Proxy, "10.1.0.2:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn excluded_outbound_ports() {
    let settings = Settings {
        outbound_excluded_ports: "443,9090",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.2.0.9:443", "remote:443"),
            (Role::App, "10.2.0.9:9090", "remote:9090"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
            (Role::App, "[fd00:2::9]:443", "remote:443"),
            (Role::App, "[::ffff:10.2.0.9]:443", "remote:443"),
            (Role::App, "[fd00:2::9]:80", "proxy:15001"),
            // Before the proxy's own rules.
            (Role::Proxy, "10.1.0.2:443", "app:443"),
            (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
            (Role::Client, "10.1.0.2:443", "proxy:15006"),
        ],
    );
}

#[test]
fn included_outbound_cidrs() {
    let settings = Settings {
        outbound_cidrs: "10.96.0.1/16,10.2.0.10/32,fd00:96::/32",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.96.0.10:80", "proxy:15001"),
            (Role::App, "10.2.0.10:80", "proxy:15001"),
            (Role::App, "10.2.0.9:80", "remote:80"),
            (Role::App, "10.2.0.11:80", "remote:80"),
            (Role::App, "[fd00:96::10]:80", "proxy:15001"),
            (Role::App, "[fd00:2::9]:80", "remote:80"),
            (Role::App, "[::ffff:10.96.0.10]:80", "proxy:15001"),
            (Role::App, "[::ffff:10.2.0.9]:80", "remote:80"),
            (Role::App, "10.1.0.2:80", "app:80"),
            (Role::App, "127.0.0.1:80", "app:80"),
            (Role::Proxy, "10.96.0.10:80", "remote:80"),
            (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
            (Role::App, "10.66.1.1:80", "EHOSTUNREACH"),
        ],
    );
}

#[test]
fn included_outbound_cidrs_of_one_family() {
    let settings = Settings {
        outbound_cidrs: "10.0.0.0/8",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.2.0.9:80", "proxy:15001"),
            (Role::App, "[::ffff:10.2.0.9]:80", "proxy:15001"),
            (Role::App, "[fd00:2::9]:80", "remote:80"),
            (Role::App, "10.1.0.2:80", "app:80"),
        ],
    );
}

#[test]
fn no_outbound_cidrs() {
    let settings = Settings {
        outbound_cidrs: "",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.2.0.9:80", "remote:80"),
            (Role::App, "[fd00:2::9]:80", "remote:80"),
            (Role::App, "10.1.0.2:80", "app:80"),
            (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn excluded_outbound_cidrs() {
    let settings = Settings {
        outbound_excluded_cidrs: "10.96.0.0/16,fd00:96::/32,10.2.0.9/32",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.96.0.10:80", "remote:80"),
            (Role::App, "10.2.0.9:80", "remote:80"),
            (Role::App, "10.2.0.10:80", "proxy:15001"),
            (Role::App, "[fd00:96::10]:80", "remote:80"),
            (Role::App, "[fd00:2::9]:80", "proxy:15001"),
            (Role::App, "[::ffff:10.96.0.10]:80", "remote:80"),
            (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
        ],
    );
}

/// An excluded CIDR wins over an included one, whichever is longer.
#[test]
fn cidrs_that_overlap() {
    let settings = Settings {
        outbound_cidrs: "10.0.0.0/8,10.2.0.9/32,fd00::/16",
        outbound_excluded_cidrs: "10.2.0.0/16,fd00:2::9/128,10.96.0.10/32",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.2.0.9:80", "remote:80"),
            (Role::App, "10.2.0.10:80", "remote:80"),
            (Role::App, "10.96.0.10:80", "remote:80"),
            (Role::App, "10.9.0.1:80", "proxy:15001"),
            (Role::App, "[fd00:2::9]:80", "remote:80"),
            (Role::App, "[fd00:2::10]:80", "proxy:15001"),
        ],
    );
}

/// One loopback CIDR, in either family, drops the rules that pass the pod's traffic to itself, in
/// both families.
#[test]
fn a_loopback_cidr() {
    for outbound_cidrs in [
        "127.1.0.0/16,10.0.0.0/8,fd00::/16",
        "::1/128,10.0.0.0/8,fd00::/16",
    ] {
        let v4 = if outbound_cidrs.starts_with("127") {
            "proxy:15001"
        } else {
            "app:80"
        };
        let settings = Settings {
            outbound_cidrs,
            ..Settings::default()
        };
        compare(
            settings,
            &[
                (Role::App, "127.1.2.3:80", v4),
                (Role::App, "127.0.0.2:80", "app:80"),
                (Role::App, "127.0.0.1:80", "app:80"),
                (Role::App, "0.0.0.0:80", "app:80"),
                (Role::App, "10.1.0.2:80", "proxy:15001"),
                (Role::App, "10.1.0.2:15008", "proxy:15001"),
                (Role::App, "[fd00:1::2]:80", "proxy:15001"),
                (Role::App, "[::1]:80", "app:80"),
                (Role::App, "10.2.0.9:80", "proxy:15001"),
                (Role::Proxy, "127.1.2.3:80", "proxy:15006"),
                (Role::Proxy, "10.1.0.2:80", "proxy:15006"),
                (Role::Proxy, "10.1.0.2:15008", "app:15008"),
                (Role::ProxyGid, "10.1.0.2:80", "proxy:15006"),
                (Role::ProxyGid, "127.0.0.1:80", "app:80"),
                (Role::ProxyGid, "[fd00:1::2]:80", "proxy:15006"),
                (Role::Root, "127.0.0.1:80", "app:80"),
            ],
        );
    }
}

/// Only the first UID's connections to the pod itself are redirected to 15006: its rules return for
/// all others.
#[test]
fn several_uids_in_order() {
    for (uids, app, proxy) in [
        ("1337,1000", "app:80", "proxy:15006"),
        ("1000,1337", "proxy:15006", "app:80"),
    ] {
        let settings = Settings {
            uids,
            ..Settings::default()
        };
        compare(
            settings,
            &[
                (Role::App, "10.1.0.2:80", app),
                (Role::App, "[fd00:1::2]:80", app),
                (Role::App, "10.2.0.9:80", "remote:80"),
                (Role::Proxy, "10.1.0.2:80", proxy),
                (Role::Proxy, "[fd00:1::2]:80", proxy),
                (Role::Proxy, "10.2.0.9:80", "remote:80"),
                (Role::ProxyGid, "10.2.0.9:80", "remote:80"),
                (Role::Root, "10.2.0.9:80", "proxy:15001"),
                (Role::Root, "10.1.0.2:80", "app:80"),
            ],
        );
    }
}

#[test]
fn root_as_the_proxy() {
    let settings = Settings {
        uids: "0",
        gids: "7",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Root, "10.2.0.9:80", "remote:80"),
            (Role::Root, "10.1.0.2:80", "proxy:15006"),
            (Role::ProxyGid, "10.2.0.9:80", "remote:80"),
            (Role::Proxy, "10.2.0.9:80", "proxy:15001"),
            (Role::ProxyUid, "10.2.0.9:80", "proxy:15001"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
        ],
    );
}

#[test]
fn other_ports() {
    let settings = Settings {
        proxy_port: 16001,
        capture_port: 16006,
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.2.0.9:80", "proxy:16001"),
            (Role::App, "[fd00:2::9]:80", "proxy:16001"),
            (Role::Proxy, "10.1.0.2:80", "proxy:16006"),
            (Role::Client, "10.1.0.2:8080", "proxy:16006"),
            (Role::Client, "10.1.0.2:15001", "proxy:16006"),
        ],
    );
}

/// One port for both directions.
#[test]
fn one_port_for_both() {
    let settings = Settings {
        proxy_port: 15001,
        capture_port: 15001,
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::App, "10.2.0.9:80", "proxy:15001"),
            (Role::Proxy, "10.1.0.2:80", "proxy:15001"),
            (Role::Client, "10.1.0.2:8080", "proxy:15001"),
        ],
    );
}

const IPV6_OFF: Rows<'static> = &[
    (Role::App, "[fd00:2::9]:80", "remote:80"),
    (Role::App, "[fd00:1::2]:80", "app:80"),
    (Role::Proxy, "[fd00:1::2]:80", "app:80"),
    (Role::Client, "[fd00:1::2]:8080", "app:8080"),
    (Role::App, "[::ffff:10.2.0.9]:80", "proxy:15001"),
    (Role::App, "10.2.0.9:80", "proxy:15001"),
    (Role::Client, "10.1.0.2:8080", "proxy:15006"),
    (Role::App, "[fd00:66:1::1]:80", "EHOSTUNREACH"),
];

/// Without dual-stack the first address decides, and IPv4 ones come first.
#[test]
fn dual_stack_off() {
    let settings = Settings {
        dual_stack: false,
        ..Settings::default()
    };
    compare(settings, IPV6_OFF);
}

#[test]
fn dual_stack_off_in_a_pod_without_ipv4() {
    let setup = Setup {
        settings: Settings {
            dual_stack: false,
            ..Settings::default()
        },
        layout: Layout {
            v4: false,
            ..Layout::default()
        },
        ..Setup::default()
    };
    compare_in(
        &setup,
        &[
            (Role::App, "[fd00:2::9]:80", "proxy:15001"),
            (Role::Proxy, "[fd00:1::2]:80", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:8080", "proxy:15006"),
            (Role::App, "127.0.0.1:80", "app:80"),
            (Role::Proxy, "127.0.0.2:80", "proxy:15006"),
        ],
    );
}
