//! A proxy that speaks in its clients' names, with many of them at once. Every test is made behind
//! iptables too.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    settings::{Mode, Settings},
    sidecar::{Proxy, Scene, Seen, Who},
    world::Mechanism,
};

/// How many connections are open at once.
const MANY: usize = 500;

/// The ports that a proxy may choose from in the test of a full port range, and how many there are.
const FEW_PORTS: (&str, usize) = ("20000 20009", 10);

#[test]
fn many_connections_at_once_are_not_mixed_up() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let scene = transparent_scene(mechanism)?;
        expect_all_served(&scene, MANY).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

/// The kernel gives each of the proxy's connections to one destination another port.
#[test]
fn as_many_connections_as_there_are_ports_get_one_each() -> Result<()> {
    let (range, count) = FEW_PORTS;
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let scene = transparent_scene(mechanism)?;
        scene.set_port_range(range)?;
        expect_all_served(&scene, count).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

fn transparent_scene(mechanism: Mechanism) -> Result<Scene> {
    let mut scene = Scene::with(Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    })?;
    scene.intercept(mechanism)?;
    scene.start_proxy(&Proxy::Builtin)?;
    Ok(scene)
}

/// All of `count` connections that are open at once get their own answers, for both families.
fn expect_all_served(scene: &Scene, count: usize) -> Result<()> {
    for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
        let seen = scene.ask_at_once(Who::Client, to.parse()?, count)?;
        expect_own_answers(&seen).with_context(|| to.to_owned())?;
        ensure!(seen.len() == count, "{} of {count}", seen.len());
    }
    Ok(())
}

/// Each client has got the app's answer to its own request, and the app has seen its address, and a
/// port of the proxy's that nobody else had.
fn expect_own_answers(all: &[Seen]) -> Result<()> {
    let mut ports = BTreeSet::new();
    for seen in all {
        let answer = seen
            .answer
            .as_ref()
            .ok()
            .with_context(|| format!("{seen:?}"))?;
        ensure!(answer.who == "app:8080", "{seen:?}");
        ensure!(answer.peer.ip() == seen.local.ip(), "{seen:?}");
        ensure!(answer.peer.port() != seen.local.port(), "{seen:?}");
        ensure!(ports.insert(answer.peer.port()), "{seen:?}");
        let told = answer.told.as_ref().context("no proxy")?;
        ensure!(told.listener == "15006", "{seen:?}");
        ensure!(told.client == seen.local.to_string(), "{seen:?}");
    }
    Ok(())
}
