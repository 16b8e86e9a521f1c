//! Envoy with the layout of Istio's sidecar: one listener for all outbound connections, one for all
//! inbound ones, and clusters that connect to the original destination.

use std::{
    collections::BTreeMap,
    env,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use interceptor_injection::builtin::{
    bootstrap::{Bootstrap, Probe},
    ports,
};
use serde_json::{Value, json};

use super::exchange::{CLIENT, LISTENER, ORIGINAL};
use crate::settings::{Mode, Settings};

/// Time limit of a response of the admin interface.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The clusters of the built-in sidecar that connect to the original destinations.
pub const OUTBOUND_CLUSTER: &str = "PassthroughCluster";
/// The same for inbound connections over IPv4.
pub const INBOUND_CLUSTER: &str = "InboundPassthroughClusterIpv4";

const CLOSE: &str = "connection: close";

/// An Envoy to start.
#[derive(Clone, Debug)]
pub struct Envoy {
    /// The binary.
    pub binary: PathBuf,
    /// The number of workers. Each has its own listening sockets.
    pub(super) concurrency: u32,
    /// The app's probes that it does.
    probes: Vec<Probe>,
    /// The address that it probes.
    pod_ip: String,
    /// Whether it reports each connection in request headers.
    reports: bool,
}

impl Envoy {
    /// The one in the environment variable.
    pub fn new(concurrency: u32) -> Result<Self> {
        let binary = env::var_os("ENVOY_BIN")
            .map(PathBuf::from)
            .context("ENVOY_BIN is not set: run `cargo xtask test`, which installs Envoy")?;
        let shown = binary.display();
        ensure!(
            binary.is_file(),
            "{shown} (ENVOY_BIN) is not there: run `cargo xtask test`, which installs one"
        );
        Ok(Self {
            binary,
            concurrency,
            probes: Vec::new(),
            pod_ip: String::new(),
            reports: true,
        })
    }

    /// The same, which does these probes of a pod with this address.
    #[must_use]
    pub fn with_probes(self, probes: Vec<Probe>, pod_ip: &str) -> Self {
        Self {
            probes,
            pod_ip: pod_ip.to_owned(),
            ..self
        }
    }

    /// The same, which adds nothing to requests.
    #[must_use]
    pub fn without_reports(self) -> Self {
        Self {
            reports: false,
            ..self
        }
    }

    /// Its command line, which includes the configuration: no file is left behind.
    pub fn arguments(&self, mode: Mode) -> Vec<String> {
        [
            "--config-yaml",
            &self.configuration(mode).to_string(),
            "--concurrency",
            &self.concurrency.to_string(),
            "--disable-hot-restart",
            "--log-level",
            "error",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The configuration of the built-in sidecar, which may also report in request headers what it
    /// knows of the connection.
    fn configuration(&self, mode: Mode) -> Value {
        let bootstrap = Bootstrap {
            transparent_mark: (mode == Mode::Tproxy).then(|| Settings::default().tproxy_mark),
            probes: self.probes.clone(),
            pod_ip: self.pod_ip.clone(),
        };
        let mut configuration = bootstrap.configuration();
        let listeners = configuration["static_resources"]["listeners"].as_array_mut();
        for listener in listeners.into_iter().flatten().filter(|_| self.reports) {
            report_connections(listener);
        }
        configuration
    }

    /// The number of its listening sockets on each port: one per worker and family.
    #[must_use]
    pub const fn listeners(&self) -> usize {
        2 * self.concurrency as usize
    }
}

/// The number of connections that each worker has accepted on a port, read from an Envoy in the
/// thread's network namespace.
pub fn connections_by_worker(port: u16) -> Result<Vec<u32>> {
    let name = format!("_{port}.worker_[0-9]+.downstream_cx_total");
    admin(&format!("/stats?filter={name}"))?
        .lines()
        .filter_map(|line| line.split_once(".downstream_cx_total: "))
        .map(|(_, count)| count.parse().context(count.to_owned()))
        .collect()
}

/// The number of connections that a cluster of original destinations has made to each of them, read
/// from an Envoy in the thread's network namespace. Envoy deletes those that are unused.
pub fn connections_by_destination(cluster: &str) -> Result<BTreeMap<SocketAddr, u32>> {
    // `PassthroughCluster::10.2.0.9:80::cx_total::1`
    let start = format!("{cluster}::");
    let text = admin("/clusters")?;
    let lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    lines
        .filter_map(|line| line.split_once("::cx_total::"))
        .map(|(destination, count)| Ok((destination.parse()?, count.parse()?)))
        .collect()
}

/// A response of the admin interface.
fn admin(path: &str) -> Result<String> {
    let mut admin = TcpStream::connect((Ipv4Addr::LOCALHOST, ports::ADMIN))?;
    admin.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n{CLOSE}\r\n\r\n");
    admin.write_all(request.as_bytes())?;
    let mut response = String::new();
    admin.read_to_string(&mut response)?;
    Ok(response)
}

fn report_connections(listener: &mut Value) {
    let port = listener["address"]["socket_address"]["port_value"].to_string();
    let headers = [
        (LISTENER, port.as_str()),
        (ORIGINAL, "%DOWNSTREAM_LOCAL_ADDRESS%"),
        (CLIENT, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
    ]
    .map(|(key, value)| {
        json!({
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        })
    });
    let chains = listener["filter_chains"].as_array_mut();
    for chain in chains.into_iter().flatten() {
        if let Some(routes) = chain.pointer_mut("/filters/0/typed_config/route_config") {
            routes["request_headers_to_add"] = json!(headers);
        }
    }
}
