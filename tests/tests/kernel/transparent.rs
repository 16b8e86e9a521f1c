//! A proxy that connects from its clients' addresses, with many clients at once. Every test also
//! runs behind iptables.

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    settings::{Mode, Settings},
    sidecar::{ClientView, Proxy, Scene, SceneClient},
    world::Mechanism,
};

/// How many connections are open at once.
const MANY: usize = 500;

/// A range of 16 ports for the proxy's connections. The kernel first tries the even ones.
const FEW_PORTS: &str = "20000 20015";

/// More connections than even ports. The other ports are for connections that the proxy opens only
/// when the first ones have closed: a port is not free immediately.
const MORE_THAN_EVEN_PORTS: usize = 9;

#[test]
fn many_connections_at_once_are_not_mixed_up() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let scene = transparent_scene(mechanism)?;
        expect_all_served(&scene, MANY).with_context(|| format!("{mechanism:?}"))?;
    }
    Ok(())
}

/// The kernel assigns no connection the port of another one that is open to the same destination.
#[test]
fn no_connection_gets_the_port_of_an_open_one() -> Result<()> {
    for mechanism in [Mechanism::Iptables, Mechanism::Interceptor] {
        let scene = transparent_scene(mechanism)?;
        scene.set_port_range(FEW_PORTS)?;
        expect_all_served(&scene, MORE_THAN_EVEN_PORTS)
            .with_context(|| format!("{mechanism:?}"))?;
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

/// All of `count` concurrent connections get their own responses, for both families.
fn expect_all_served(scene: &Scene, count: usize) -> Result<()> {
    for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
        let view = scene.send_http_at_once(SceneClient::Client, to.parse()?, count)?;
        expect_own_responses(&view).with_context(|| to.to_owned())?;
        ensure!(view.len() == count, "{} of {count}", view.len());
    }
    Ok(())
}

/// Each client has received the app's response to its own request, and the app has observed the
/// client's address with a port of the proxy's.
fn expect_own_responses(all: &[ClientView]) -> Result<()> {
    for view in all {
        let response = view
            .response
            .as_ref()
            .ok()
            .with_context(|| format!("{view:?}"))?;
        ensure!(response.server == "app:8080", "{view:?}");
        ensure!(response.peer.ip() == view.local.ip(), "{view:?}");
        ensure!(response.peer.port() != view.local.port(), "{view:?}");
        let report = response.report.as_ref().context("no proxy")?;
        ensure!(report.listener == "15006", "{view:?}");
        ensure!(report.client == view.local.to_string(), "{view:?}");
    }
    Ok(())
}
