//! The real Envoy, laid out as Istio lays out a sidecar. Every test is made behind iptables too,
//! which proves that what it expects is what a mesh has today.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    settings::{Mode, Settings},
    sidecar::{Envoy, INBOUND_PORT, OUTBOUND_PORT, Proxy, Scene, Seen, Who},
    world::Mechanism,
};

/// A connection that goes through Envoy.
struct Way {
    who: Who,
    to: &'static str,
    /// Envoy's listener.
    listener: u16,
    /// What Envoy is told is the original destination.
    original: &'static str,
    /// Who answers in the end, and whom he sees.
    answers: &'static str,
    sees: &'static str,
}

const fn outbound(to: &'static str, original: &'static str, sees: &'static str) -> Way {
    Way {
        who: Who::App,
        to,
        listener: OUTBOUND_PORT,
        original,
        answers: "remote:80",
        sees,
    }
}

const fn inbound(who: Who, to: &'static str, original: &'static str, sees: &'static str) -> Way {
    Way {
        who,
        to,
        listener: INBOUND_PORT,
        original,
        answers: "app:8080",
        sees,
    }
}

const WAYS: [Way; 7] = [
    outbound("10.2.0.9:80", "10.2.0.9:80", "10.1.0.2"),
    outbound("[fd00:2::9]:80", "[fd00:2::9]:80", "fd00:1::2"),
    outbound("[::ffff:10.2.0.9]:80", "10.2.0.9:80", "10.1.0.2"),
    inbound(Who::Client, "10.1.0.2:8080", "10.1.0.2:8080", "127.0.0.6"),
    inbound(Who::Client, "[fd00:1::2]:8080", "[fd00:1::2]:8080", "::6"),
    inbound(Who::Proxy, "10.1.0.2:8080", "10.1.0.2:8080", "127.0.0.6"),
    inbound(Who::Proxy, "[fd00:1::2]:8080", "[fd00:1::2]:8080", "::6"),
];

/// With TPROXY, the app sees who calls.
const TRANSPARENT_WAYS: [Way; 6] = [
    outbound("10.2.0.9:80", "10.2.0.9:80", "10.1.0.2"),
    outbound("[fd00:2::9]:80", "[fd00:2::9]:80", "fd00:1::2"),
    inbound(Who::Client, "10.1.0.2:8080", "10.1.0.2:8080", "10.1.0.1"),
    inbound(
        Who::Client,
        "[fd00:1::2]:8080",
        "[fd00:1::2]:8080",
        "fd00:1::1",
    ),
    inbound(Who::Proxy, "10.1.0.2:8080", "10.1.0.2:8080", "10.1.0.2"),
    inbound(
        Who::Proxy,
        "[fd00:1::2]:8080",
        "[fd00:1::2]:8080",
        "fd00:1::2",
    ),
];

/// Enough for the kernel's choice to fall on either worker: it chooses by a hash of the addresses.
const MANY: u32 = 60;

#[test]
fn http_goes_through_it() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        expect_http(scene)
    })
}

#[test]
fn other_protocols_go_through_it() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        expect(|way| {
            let seen = scene.say(way.who, way.to.parse()?)?;
            way.expect_answer(&seen)
        })
    })
}

#[test]
fn both_workers_get_connections() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(2)?)?;
        for _ in 0..MANY {
            for way in [&WAYS[0], &WAYS[3]] {
                way.expect_http(scene)?;
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
fn it_may_run_before_the_interception() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::new()?;
        scene.start_proxy(&envoy(2)?)?;
        let straight = scene.ask(Who::App, WAYS[0].to.parse()?)?;
        ensure!(
            straight.answer.is_ok_and(|answer| answer.told.is_none()),
            "captured without an interception"
        );
        scene.intercept(mechanism)?;
        expect_http(&scene).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

#[test]
fn with_tproxy_the_app_sees_the_client() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::with(Settings {
            mode: Mode::Tproxy,
            ..Settings::default()
        })?;
        scene.intercept(mechanism)?;
        scene.start_proxy(&envoy(2)?)?;
        for way in TRANSPARENT_WAYS.iter().cycle().take(MANY as usize) {
            way.expect_http(&scene)
                .and_then(|()| way.expect_answer(&scene.say(way.who, way.to.parse()?)?))
                .with_context(|| format!("{mechanism:?}: {:?} to {}", way.who, way.to))?;
        }
    }
    Ok(())
}

fn envoy(concurrency: u32) -> Result<Proxy> {
    Ok(Proxy::Envoy(Envoy::new(concurrency)?))
}

/// Plays with an interception by iptables, then with one by Interceptor.
fn behind_both(play: impl Fn(&mut Scene) -> Result<()>) -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::new()?;
        scene.intercept(mechanism)?;
        play(&mut scene).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

fn expect(expectation: impl Fn(&Way) -> Result<()>) -> Result<()> {
    WAYS.iter().try_for_each(|way| {
        expectation(way).with_context(|| format!("{:?} to {}", way.who, way.to))
    })
}

fn expect_http(scene: &Scene) -> Result<()> {
    expect(|way| way.expect_http(scene))
}

fn expect_refused(scene: &Scene) -> Result<()> {
    expect(|way| {
        let seen = scene.ask(way.who, way.to.parse()?)?;
        ensure!(seen.answer == Err("ECONNREFUSED".to_owned()), "{seen:?}");
        Ok(())
    })
}

impl Way {
    /// An answer, and that Envoy was told the original destination and the client's own address.
    fn expect_http(&self, scene: &Scene) -> Result<()> {
        let seen = scene.ask(self.who, self.to.parse()?)?;
        self.expect_answer(&seen)?;
        let told = seen.answer.ok().and_then(|answer| answer.told);
        let told = told.context("Envoy did not see it")?;
        ensure!(told.listener == self.listener.to_string(), "{told:?}");
        ensure!(told.original == self.original, "{told:?}");
        let client = canonical(seen.local);
        ensure!(told.client == client.to_string(), "{told:?}: {client}");
        Ok(())
    }

    fn expect_answer(&self, seen: &Seen) -> Result<()> {
        let Ok(answer) = &seen.answer else {
            anyhow::bail!("{seen:?}");
        };
        ensure!(answer.who == self.answers, "{seen:?}");
        ensure!(answer.peer.ip() == self.sees.parse::<IpAddr>()?, "{seen:?}");
        ensure!(seen.peer == Some(self.to.parse()?), "{seen:?}");
        Ok(())
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
