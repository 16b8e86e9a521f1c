//! `cargo xtask demo`: a pod behind Interceptor and the same pod behind Istio's iptables rules, the
//! same connections in both, and one table of the results.

use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    interruption::ensure_uninterrupted,
    sidecar::{Proxy, Scene},
    world::Mechanism,
};

use crate::{
    result::ConnectionResult,
    rows::{ROWS, Row},
    table,
};

/// A connection, and its results in both pods.
pub(crate) struct Compared {
    pub(crate) row: &'static Row,
    pub(crate) ours: ConnectionResult,
    /// Behind iptables.
    pub(crate) theirs: ConnectionResult,
}

impl Compared {
    pub(crate) fn is_equal(&self) -> bool {
        self.ours == self.theirs
    }
}

/// Runs the demo and returns whether everything is as behind iptables.
pub(crate) fn run(proxy: &Proxy) -> Result<bool> {
    let iptables = play(Mechanism::Iptables, proxy)?;
    let interceptor = play(Mechanism::Interceptor, proxy)?;
    let compared: Vec<_> = ROWS
        .iter()
        .zip(interceptor.into_iter().zip(iptables))
        .map(|(row, (ours, theirs))| Compared { row, ours, theirs })
        .collect();
    println!("{}", table::draw(&compared, stdout().is_terminal()));
    let equal = compared.iter().filter(|row| row.is_equal()).count();
    println!(
        "{equal} of {} as behind iptables, getsockname and getpeername too",
        compared.len()
    );
    Ok(equal == compared.len())
}

/// Makes all the connections in a new scene.
fn play(mechanism: Mechanism, proxy: &Proxy) -> Result<Vec<ConnectionResult>> {
    eprintln!("demo: setting up a pod and a client: veth, an app, a remote server");
    let mut scene = Scene::new()?;
    ensure_uninterrupted()?;
    match mechanism {
        Mechanism::Iptables => eprintln!("demo: iptables-restore with Istio's rules"),
        Mechanism::Interceptor => eprintln!("demo: interceptor attach"),
    }
    scene.intercept(mechanism)?;
    ensure_uninterrupted()?;
    match proxy {
        Proxy::Builtin => eprintln!("demo: starting the built-in proxy as UID 1337"),
        Proxy::Envoy(_) => eprintln!("demo: starting Envoy as UID 1337"),
    }
    scene.start_proxy(proxy)?;
    dial_all(&mut scene)
}

fn dial_all(scene: &mut Scene) -> Result<Vec<ConnectionResult>> {
    eprintln!("demo: {} connections", ROWS.len());
    let mut is_up = true;
    ROWS.iter()
        .map(|row| {
            if is_up && !row.proxy_is_up {
                eprintln!("demo: killing the proxy");
                scene.kill_proxy();
                is_up = false;
            }
            ensure_uninterrupted()?;
            dial(scene, row).with_context(|| row.to.to_owned())
        })
        .collect()
}

fn dial(scene: &Scene, row: &Row) -> Result<ConnectionResult> {
    Ok(ConnectionResult::new(
        scene.send_http(row.client, row.to.parse()?)?,
    ))
}
