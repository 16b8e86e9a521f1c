//! TPROXY: a proxy that calls the app from its client's address.

mod known_differences;
mod proxy;
mod upstream;

use interceptor_testkit::{
    scenario::{Dial, Scenario, differential},
    settings::{Mode, Settings},
    world::{Role, Setup},
};

fn settings() -> Settings {
    Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    }
}

fn setup() -> Setup {
    Setup::with(settings())
}

fn compare(settings: Settings, rows: &[(Role, &str, &'static str)]) {
    let scenarios: Vec<_> = rows
        .iter()
        .map(|(role, to, outcome)| {
            Scenario::dial(&format!("{role:?}"), outcome, Dial::new(*role, to))
        })
        .collect();
    differential(&Setup::with(settings), &scenarios);
}

#[test]
fn inbound_connections() {
    compare(
        settings(),
        &[
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
            (Role::Client, "10.1.0.2:81", "proxy:15006"),
            (Role::Client, "10.1.0.2:15001", "proxy:15006"),
            (Role::Client, "10.1.0.2:15006", "proxy:15006"),
            // Only nat has the exception.
            (Role::Client, "10.1.0.2:15008", "proxy:15006"),
            (Role::Client, "10.1.0.2:15020", "app:15020"),
            (Role::Client, "10.1.0.2:15021", "app:15021"),
            (Role::Client, "10.1.0.3:8080", "proxy:15006"),
            (Role::Client, "10.3.0.2:8080", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:8080", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:15008", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:15020", "app:15020"),
            (Role::Client, "[fd00:3::2]:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn outbound_connections_are_redirected() {
    compare(
        settings(),
        &[
            (Role::App, "10.2.0.9:80", "proxy:15001"),
            (Role::App, "[fd00:2::9]:80", "proxy:15001"),
            (Role::App, "[::ffff:10.2.0.9]:80", "proxy:15001"),
            (Role::Root, "10.2.0.9:80", "proxy:15001"),
            (Role::ProxyGid, "10.2.0.9:80", "remote:80"),
            (Role::ProxyGid, "[fd00:2::9]:80", "remote:80"),
            (Role::Proxy, "10.2.0.9:80", "remote:80"),
        ],
    );
}

/// The proxy runs as root here, in its own group. nat redirects to localhost; mangle alone keeps
/// the destination address.
#[test]
fn connections_of_the_pod_to_itself() {
    compare(
        settings(),
        &[
            (Role::App, "10.1.0.2:8080", "app:8080"),
            (Role::App, "[fd00:1::2]:8080", "app:8080"),
            (Role::App, "127.0.0.1:8080", "app:8080"),
            (Role::ProxyGid, "10.1.0.2:8080", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.3:8080", "proxy:15006"),
            (Role::ProxyGid, "[fd00:1::2]:8080", "proxy:15006"),
            (Role::ProxyGid, "[::ffff:10.1.0.2]:8080", "proxy:15006"),
            (Role::ProxyGid, "127.0.0.2:8080", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:15008", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:15020", "app:15020"),
            (Role::ProxyGid, "127.0.0.1:8080", "app:8080"),
            (Role::ProxyGid, "[::1]:8080", "app:8080"),
            (Role::Proxy, "10.1.0.2:8080", "proxy:15006"),
            (Role::Proxy, "10.1.0.2:15008", "proxy:15006"),
            (Role::Proxy, "10.1.0.2:15020", "proxy:15006"),
            (Role::Proxy, "[fd00:1::2]:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn from_the_passthrough_address() {
    let rows = [
        (Role::ProxyGid, "127.0.0.6:0", "10.1.0.2:8080", "app:8080"),
        (Role::Proxy, "127.0.0.6:0", "10.1.0.2:8080", "app:8080"),
        (Role::ProxyGid, "[::6]:0", "[fd00:1::2]:8080", "app:8080"),
    ];
    let scenarios = rows.map(|(role, from, to, outcome)| {
        Scenario::dial(
            &format!("{role:?}"),
            outcome,
            Dial::new(role, to).from(from),
        )
    });
    differential(&setup(), &scenarios);
}

#[test]
fn a_list_of_inbound_ports() {
    let settings = Settings {
        inbound_ports: "8080,15020",
        ..settings()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
            (Role::Client, "10.1.0.2:15020", "proxy:15006"),
            (Role::Client, "10.1.0.2:9090", "app:9090"),
            (Role::Client, "[fd00:1::2]:9090", "app:9090"),
            (Role::ProxyGid, "10.1.0.2:8080", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:9090", "app:9090"),
            (Role::Proxy, "10.1.0.2:9090", "proxy:15006"),
        ],
    );
}

#[test]
fn no_inbound_ports() {
    let settings = Settings {
        inbound_ports: "",
        ..settings()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "[fd00:1::2]:8080", "app:8080"),
            (Role::ProxyGid, "10.1.0.2:8080", "app:8080"),
            (Role::Proxy, "10.1.0.2:8080", "proxy:15006"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
        ],
    );
}

#[test]
fn other_excluded_ports() {
    let settings = Settings {
        inbound_excluded_ports: "22,8080",
        ..settings()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:22", "app:22"),
            (Role::Client, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "10.1.0.2:15020", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:8080", "app:8080"),
        ],
    );
}
