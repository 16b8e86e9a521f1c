//! TCP that is forwarded through the pod: from and to a host on a bridge inside it.

use interceptor_testkit::{
    actor::protocol::{Protocol, SocketOption},
    scenario::{ConnectMode, Dial, Scenario, differential},
    settings::{Mode, Settings},
    world::{Role, Setup},
};

type Rows<'a> = &'a [(Role, &'a str, &'static str)];

fn setup(settings: Settings) -> Setup {
    Setup {
        inner: true,
        ..Setup::with(settings)
    }
}

/// Whether `to` is beyond the pod, or the pod itself.
fn is_through(to: &str) -> bool {
    const POD: [&str; 8] = [
        "10.1.0.2:",
        "10.1.0.3:",
        "10.3.0.2:",
        "172.17.0.1:",
        "[fd00:1::2]:",
        "[fd00:1::3]:",
        "[fd00:3::2]:",
        "[fd00:17::1]:",
    ];
    !POD.iter().any(|own| to.starts_with(own))
}

fn scenario((role, to, outcome): &(Role, &str, &'static str)) -> Scenario {
    let mut dial = Dial::new(*role, to);
    if is_through(to) {
        dial = dial.through();
    }
    Scenario::dial(&format!("{role:?}"), outcome, dial)
}

fn compare(settings: Settings, rows: Rows<'_>) {
    let scenarios: Vec<_> = rows.iter().map(scenario).collect();
    differential(&setup(settings), &scenarios);
}

#[test]
fn forwarded_is_inbound_without_rerouted_interfaces() {
    compare(
        Settings::default(),
        &[
            (Role::Inner, "10.2.0.9:80", "proxy:15006"),
            (Role::Inner, "10.2.0.9:81", "proxy:15006"),
            (Role::Inner, "10.2.0.9:15020", "remote:15020"),
            (Role::Inner, "10.2.0.9:15008", "remote:15008"),
            (Role::Inner, "10.1.0.2:8080", "proxy:15006"),
            (Role::Inner, "172.17.0.1:8080", "proxy:15006"),
            (Role::Inner, "172.17.0.1:15020", "app:15020"),
            (Role::Inner, "[fd00:2::9]:80", "proxy:15006"),
            (Role::Inner, "[fd00:2::9]:15020", "remote:15020"),
            (Role::Inner, "[fd00:17::1]:8080", "proxy:15006"),
            (Role::Client, "172.17.0.2:8080", "proxy:15006"),
            (Role::Client, "172.17.0.2:15020", "inner:15020"),
            (Role::Client, "[fd00:17::2]:8080", "proxy:15006"),
            (Role::Client, "[fd00:17::2]:15020", "inner:15020"),
            (Role::App, "172.17.0.2:8080", "proxy:15001"),
            (Role::Proxy, "172.17.0.2:8080", "inner:8080"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
        ],
    );
}

#[test]
fn ip_options_and_other_modes_of_connecting() {
    let forms: [fn(Dial) -> Dial; 4] = [
        |dial| dial.with(SocketOption::IpOptions),
        |dial| dial.mode(ConnectMode::NonBlocking),
        |dial| dial.mode(ConnectMode::FastOpen),
        |dial| dial.over(Protocol::Mptcp),
    ];
    let scenarios: Vec<_> = forms
        .into_iter()
        .flat_map(|form| {
            let rows = [
                ("10.2.0.9:80", "proxy:15006"),
                ("10.2.0.9:15020", "remote:15020"),
            ];
            rows.map(|(to, outcome)| {
                let dial = form(Dial::new(Role::Inner, to)).through();
                Scenario::dial("inner", outcome, dial)
            })
        })
        .collect();
    differential(&setup(Settings::default()), &scenarios);
}

#[test]
fn lists_of_inbound_ports_apply() {
    let settings = Settings {
        inbound_ports: "80,15020",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Inner, "10.2.0.9:80", "proxy:15006"),
            (Role::Inner, "10.2.0.9:443", "remote:443"),
            (Role::Inner, "[fd00:2::9]:15020", "proxy:15006"),
            (Role::Client, "172.17.0.2:80", "proxy:15006"),
            (Role::Client, "172.17.0.2:443", "inner:443"),
        ],
    );
}

#[test]
fn nothing_is_captured_without_inbound_ports() {
    let settings = Settings {
        inbound_ports: "",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Inner, "10.2.0.9:80", "remote:80"),
            (Role::Client, "[fd00:17::2]:8080", "inner:8080"),
        ],
    );
}

#[test]
fn connections_from_an_excluded_interface_pass() {
    let settings = Settings {
        excluded_interfaces: "br0",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Inner, "10.2.0.9:80", "remote:80"),
            (Role::Inner, "[fd00:2::9]:80", "remote:80"),
            (Role::Inner, "172.17.0.1:8080", "app:8080"),
            (Role::Client, "172.17.0.2:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn in_tproxy_mode_the_proxy_has_the_destination_address() {
    let settings = Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    };
    let setup = Setup {
        // A bridge that applies the IP rules to its packets loses the sockets that TPROXY has
        // assigned.
        sysctls: &[
            ("net.bridge.bridge-nf-call-iptables", "0"),
            ("net.bridge.bridge-nf-call-ip6tables", "0"),
        ],
        ..setup(settings)
    };
    let rows = [
        (Role::Inner, "10.2.0.9:80", "proxy:15006"),
        (Role::Inner, "[fd00:2::9]:80", "proxy:15006"),
        (Role::Client, "172.17.0.2:8080", "proxy:15006"),
        (Role::Client, "[fd00:17::2]:8080", "proxy:15006"),
    ];
    let scenarios: Vec<_> = rows.iter().map(scenario).collect();
    differential(&setup, &scenarios);
}

/// Whatever the destination: inbound ports and outbound exclusions do not matter.
#[test]
fn forwarded_is_outbound_from_a_rerouted_interface() {
    let settings = Settings {
        rerouted_interfaces: "br0",
        excluded_interfaces: "br0",
        outbound_excluded_cidrs: "10.2.0.9/32,fd00:2::9/128",
        outbound_excluded_ports: "443",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Inner, "10.2.0.9:80", "proxy:15001"),
            (Role::Inner, "10.2.0.9:443", "proxy:15001"),
            (Role::Inner, "10.2.0.9:15020", "proxy:15001"),
            (Role::Inner, "10.2.0.9:15008", "proxy:15001"),
            (Role::Inner, "10.2.0.9:53", "proxy:15001"),
            (Role::Inner, "10.66.1.1:80", "proxy:15001"),
            (Role::Inner, "10.1.0.2:8080", "proxy:15001"),
            (Role::Inner, "172.17.0.1:15020", "proxy:15001"),
            (Role::Inner, "[fd00:2::9]:80", "proxy:15001"),
            (Role::Inner, "[fd00:17::1]:8080", "proxy:15001"),
            (Role::Client, "172.17.0.2:8080", "proxy:15006"),
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
            (Role::App, "10.2.0.9:443", "remote:443"),
        ],
    );
}

#[test]
fn only_destinations_in_a_list_of_cidrs_are_rerouted() {
    let settings = Settings {
        rerouted_interfaces: "br0,eth1",
        outbound_cidrs: "10.96.0.0/16,fd00:96::/32,172.17.0.2/32",
        outbound_ports: "443",
        ..Settings::default()
    };
    compare(
        settings,
        &[
            (Role::Inner, "10.96.0.10:80", "proxy:15001"),
            (Role::Inner, "10.2.0.9:80", "remote:80"),
            (Role::Inner, "10.2.0.9:443", "remote:443"),
            (Role::Inner, "[fd00:96::10]:80", "proxy:15001"),
            (Role::Inner, "[fd00:2::9]:80", "remote:80"),
            (Role::Inner, "172.17.0.1:8080", "app:8080"),
            (Role::Inner, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "10.3.0.2:8080", "app:8080"),
            (Role::Client, "172.17.0.2:8080", "proxy:15006"),
        ],
    );
}

/// Without forwarding, a rerouted interface's traffic is captured all the same.
#[test]
fn rerouted_interfaces_need_no_forwarding() {
    let settings = Settings {
        rerouted_interfaces: "br+",
        inbound_ports: "",
        ..Settings::default()
    };
    let setup = Setup {
        sysctls: &[
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv6.conf.all.forwarding", "0"),
        ],
        ..setup(settings)
    };
    let rows = [
        (Role::Inner, "10.2.0.9:80", "proxy:15001"),
        (Role::Inner, "[fd00:2::9]:80", "proxy:15001"),
        (Role::Inner, "172.17.0.1:8080", "proxy:15001"),
    ];
    let scenarios: Vec<_> = rows.iter().map(scenario).collect();
    differential(&setup, &scenarios);
}

#[test]
fn forwarded_is_refused_while_the_proxy_is_down() {
    let rows = [
        (Role::Inner, "10.2.0.9:80"),
        (Role::Inner, "[fd00:2::9]:80"),
        (Role::Client, "172.17.0.2:8080"),
    ];
    let scenarios = rows.map(|(role, to)| {
        Scenario::new(
            format!("{role:?} dials {to} while the proxy is down"),
            move |run| {
                run.world().stop_proxy()?;
                Dial::new(role, to).through().execute(run)?;
                run.expect_outcome("ECONNREFUSED");
                Ok(())
            },
        )
    });
    differential(&setup(Settings::default()), &scenarios);
}
