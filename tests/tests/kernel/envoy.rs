//! The real Envoy, configured as Istio's sidecar. Every test also runs behind iptables, which
//! proves that it expects the behavior of today's meshes.

mod admin;
mod exchange;
mod http;
mod probes;
mod streams;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    settings::{Mode, Settings},
    sidecar::{ClientView, Envoy, INBOUND_PORT, OUTBOUND_PORT, Proxy, Scene, SceneClient},
    world::Mechanism,
};

/// A connection through Envoy.
struct Case {
    client: SceneClient,
    to: &'static str,
    /// Envoy's listener.
    listener: u16,
    /// The original destination that Envoy gets.
    original: &'static str,
    /// The server that responds, and the client's address that it observes.
    server: &'static str,
    peer: &'static str,
}

const fn outbound(to: &'static str, original: &'static str, peer: &'static str) -> Case {
    Case {
        client: SceneClient::App,
        to,
        listener: OUTBOUND_PORT,
        original,
        server: "remote:80",
        peer,
    }
}

const fn inbound(
    client: SceneClient,
    to: &'static str,
    original: &'static str,
    peer: &'static str,
) -> Case {
    Case {
        client,
        to,
        listener: INBOUND_PORT,
        original,
        server: "app:8080",
        peer,
    }
}

const CASES: [Case; 7] = [
    outbound("10.2.0.9:80", "10.2.0.9:80", "10.1.0.2"),
    outbound("[fd00:2::9]:80", "[fd00:2::9]:80", "fd00:1::2"),
    outbound("[::ffff:10.2.0.9]:80", "10.2.0.9:80", "10.1.0.2"),
    inbound(
        SceneClient::Client,
        "10.1.0.2:8080",
        "10.1.0.2:8080",
        "127.0.0.6",
    ),
    inbound(
        SceneClient::Client,
        "[fd00:1::2]:8080",
        "[fd00:1::2]:8080",
        "::6",
    ),
    inbound(
        SceneClient::Proxy,
        "10.1.0.2:8080",
        "10.1.0.2:8080",
        "127.0.0.6",
    ),
    inbound(
        SceneClient::Proxy,
        "[fd00:1::2]:8080",
        "[fd00:1::2]:8080",
        "::6",
    ),
];

/// With TPROXY, the app gets the client's address.
const TRANSPARENT_CASES: [Case; 6] = [
    outbound("10.2.0.9:80", "10.2.0.9:80", "10.1.0.2"),
    outbound("[fd00:2::9]:80", "[fd00:2::9]:80", "fd00:1::2"),
    inbound(
        SceneClient::Client,
        "10.1.0.2:8080",
        "10.1.0.2:8080",
        "10.1.0.1",
    ),
    inbound(
        SceneClient::Client,
        "[fd00:1::2]:8080",
        "[fd00:1::2]:8080",
        "fd00:1::1",
    ),
    inbound(
        SceneClient::Proxy,
        "10.1.0.2:8080",
        "10.1.0.2:8080",
        "10.1.0.2",
    ),
    inbound(
        SceneClient::Proxy,
        "[fd00:1::2]:8080",
        "[fd00:1::2]:8080",
        "fd00:1::2",
    ),
];

/// Enough that the kernel selects each worker: it selects by a hash of the addresses.
const MANY: u32 = 60;

#[test]
fn http_is_proxied() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        expect_http(scene)
    })
}

#[test]
fn other_protocols_are_proxied() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        expect(|case| {
            let view = scene.send_line(case.client, case.to.parse()?)?;
            case.expect_response(&view)
        })
    })
}

#[test]
fn both_workers_get_connections() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(2)?)?;
        for _ in 0..MANY {
            for case in [&CASES[0], &CASES[3]] {
                case.expect_http(scene)?;
            }
        }
        for port in [OUTBOUND_PORT, INBOUND_PORT] {
            let workers = scene.connections_by_worker(port)?;
            ensure!(
                workers.len() == 2 && workers.iter().sum::<u32>() == MANY,
                "port {port}: {workers:?}"
            );
            ensure!(!workers.contains(&0), "port {port}: {workers:?}");
        }
        Ok(())
    })
}

#[test]
fn a_dead_envoy_refuses_and_its_successor_accepts() -> Result<()> {
    behind_both(|scene| {
        expect_refused(scene).context("before the first")?;
        for concurrency in [1, 2, 1] {
            scene.start_proxy(&envoy(concurrency)?)?;
            expect_http(scene)?;
            scene.kill_proxy();
            expect_refused(scene)?;
        }
        Ok(())
    })
}

#[test]
fn envoy_may_start_before_the_interception() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::new()?;
        scene.start_proxy(&envoy(2)?)?;
        let straight = scene.send_http(SceneClient::App, CASES[0].to.parse()?)?;
        ensure!(
            straight
                .response
                .is_ok_and(|response| response.report.is_none()),
            "captured without an interception"
        );
        scene.intercept(mechanism)?;
        expect_http(&scene).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

#[test]
fn with_tproxy_the_app_gets_the_clients_address() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::with(Settings {
            mode: Mode::Tproxy,
            ..Settings::default()
        })?;
        scene.intercept(mechanism)?;
        scene.start_proxy(&envoy(2)?)?;
        for case in TRANSPARENT_CASES.iter().cycle().take(MANY as usize) {
            case.expect_http(&scene)
                .and_then(|()| {
                    case.expect_response(&scene.send_line(case.client, case.to.parse()?)?)
                })
                .with_context(|| format!("{mechanism:?}: {:?} to {}", case.client, case.to))?;
        }
    }
    Ok(())
}

fn envoy(concurrency: u32) -> Result<Proxy> {
    Ok(Proxy::Envoy(Envoy::new(concurrency)?))
}

/// Runs with an interception by iptables, then with one by Interceptor.
fn behind_both(play: impl Fn(&mut Scene) -> Result<()>) -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::new()?;
        scene.intercept(mechanism)?;
        play(&mut scene).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

fn expect(expectation: impl Fn(&Case) -> Result<()>) -> Result<()> {
    CASES.iter().try_for_each(|case| {
        expectation(case).with_context(|| format!("{:?} to {}", case.client, case.to))
    })
}

fn expect_http(scene: &Scene) -> Result<()> {
    expect(|case| case.expect_http(scene))
}

fn expect_refused(scene: &Scene) -> Result<()> {
    expect(|case| {
        let view = scene.send_http(case.client, case.to.parse()?)?;
        ensure!(view.response == Err("ECONNREFUSED".to_owned()), "{view:?}");
        Ok(())
    })
}

impl Case {
    /// A response, and Envoy's report of the original destination and the client's own address.
    fn expect_http(&self, scene: &Scene) -> Result<()> {
        let view = scene.send_http(self.client, self.to.parse()?)?;
        self.expect_response(&view)?;
        let report = view.response.ok().and_then(|response| response.report);
        let report = report.context("no report of Envoy")?;
        ensure!(report.listener == self.listener.to_string(), "{report:?}");
        ensure!(report.original == self.original, "{report:?}");
        let client = canonical(view.local);
        ensure!(report.client == client.to_string(), "{report:?}: {client}");
        Ok(())
    }

    fn expect_response(&self, view: &ClientView) -> Result<()> {
        let Ok(response) = &view.response else {
            anyhow::bail!("{view:?}");
        };
        ensure!(response.server == self.server, "{view:?}");
        ensure!(
            response.peer.ip() == self.peer.parse::<IpAddr>()?,
            "{view:?}"
        );
        ensure!(view.peer == Some(self.to.parse()?), "{view:?}");
        Ok(())
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
