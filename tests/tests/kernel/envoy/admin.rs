//! The ports with parts of the admin interface: each has its own path, and nothing else.

use anyhow::{Result, ensure};

use super::{behind_both, envoy, exchange::respond};

/// The paths that the two ports serve, and the start of what they respond.
const SERVED: [(u16, &str, &str); 2] = [
    (15021, "/healthz/ready", "LIVE"),
    (15090, "/stats/prometheus", "# TYPE"),
];

/// Paths of the admin interface, and ways to write one path for another.
const OTHERS: [&str; 16] = [
    "/",
    "/ready",
    "/stats",
    "/stats/prometheus/",
    "/clusters",
    "/config_dump",
    "/healthz/ready/",
    "/healthz/ready/../../config_dump",
    "/healthz/ready%2f..%2f..%2fquitquitquit",
    "//healthz/ready",
    "/healthcheck/fail",
    "/logging?level=trace",
    "/quitquitquit",
    "/drain_listeners",
    "/stats/prometheus/../../quitquitquit",
    "/Healthz/Ready",
];

#[test]
fn health_and_stats_ports_serve_one_path_each() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        for (port, path, start) in SERVED {
            for host in ["10.1.0.2", "[fd00:1::2]"] {
                let response = get(scene, &format!("{host}:{port}"), "GET", path)?;
                let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
                ensure!(head.starts_with("HTTP/1.1 200 "), "{port} {path}: {head}");
                ensure!(body.contains(start), "{port} {path}: {body}");
            }
            let others = SERVED.iter().map(|(_, path, _)| *path);
            for other in others.chain(OTHERS).filter(|other| *other != path) {
                for method in ["GET", "POST"] {
                    let response = get(scene, &format!("10.1.0.2:{port}"), method, other)?;
                    let is_refused = ["HTTP/1.1 404 ", "HTTP/1.1 400 "]
                        .iter()
                        .any(|status| response.starts_with(status));
                    ensure!(is_refused, "{port} {method} {other}: {response}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn the_admin_interface_is_not_reachable_from_outside() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        for path in ["/ready", "/quitquitquit"] {
            let response = get(scene, "10.1.0.2:15000", "POST", path)?;
            ensure!(!response.starts_with("HTTP/1.1 200 "), "{response}");
        }
        Ok(())
    })
}

fn get(
    scene: &interceptor_testkit::sidecar::Scene,
    address: &str,
    method: &str,
    path: &str,
) -> Result<String> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    respond(scene, address, &request)
}
