//! The kubelet's probes of an app behind the built-in sidecar.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use interceptor_injection::builtin::bootstrap::Probe;
use interceptor_testkit::sidecar::{Envoy, Proxy, Scene};

use super::{behind_both, envoy, exchange::respond};

const PATH: &str = "/app-health/app/livez";

/// Time limit of a change of the probe's result. The interval is one second.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The status of the probe's response.
fn status(scene: &Scene, address: &str, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let response = respond(scene, address, &request)?;
    Ok(response.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn until(scene: &Scene, address: &str, expected: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let status = status(scene, address, PATH)?;
        if status == expected {
            return Ok(());
        }
        ensure!(start.elapsed() < TIMEOUT, "{status}, not {expected}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_tcp_probe_has_the_state_of_the_app() -> Result<()> {
    for host in ["10.1.0.2", "[fd00:1::2]"] {
        behind_both(|scene| {
            // It listens on the proxy's port.
            scene.kill_app();
            let probe = Probe {
                path: PATH.to_owned(),
                port: 9000,
                period: 1,
                timeout: 1,
            };
            let envoy = Envoy::new(1)?.with_probes(vec![probe], host.trim_matches(['[', ']']));
            scene.start_proxy(&Proxy::Envoy(envoy))?;
            let proxy = format!("{host}:15020");
            until(scene, &proxy, "503")?;
            for _ in 0..2 {
                let app = format!("{host}:9000");
                let listener = scene.pod().enter(|| Ok(TcpListener::bind(app)?))?;
                until(scene, &proxy, "200")?;
                drop(listener);
                until(scene, &proxy, "503")?;
            }
            for other in ["/", "/app-health/app/readyz", "/app-health/app/livez/"] {
                ensure!(status(scene, &proxy, other)? == "404", "{other}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// So HTTP and gRPC probes need no change. The proxy accepts the connection in both cases.
#[test]
fn http_and_grpc_probes_fail_without_the_app() -> Result<()> {
    let grpc = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        let app = "10.1.0.2:9000";
        let http = status(scene, app, "/")?;
        ensure!(http == "503", "{http}");
        let response = respond(scene, app, grpc)?;
        ensure!(response.is_empty(), "{response}");
        Ok(())
    })
}
