//! A proxy that speaks in its clients' names, with many of them at once. Every test is made behind
//! iptables too.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::{
    settings::{Mode, Settings},
    sidecar::{Proxy, Scene, Seen, Who},
    world::Mechanism,
};

/// How many connections are open at once.
const MANY: usize = 500;

#[test]
fn many_connections_at_once_are_not_mixed_up() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let mut scene = Scene::with(Settings {
            mode: Mode::Tproxy,
            ..Settings::default()
        })?;
        scene.intercept(mechanism)?;
        scene.start_proxy(&Proxy::Builtin)?;
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            let seen = scene.ask_at_once(Who::Client, to.parse()?, MANY)?;
            expect_own_answers(&seen).with_context(|| format!("{mechanism:?}: {to}"))?;
        }
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
    ensure!(all.len() == MANY, "{}", all.len());
    Ok(())
}
