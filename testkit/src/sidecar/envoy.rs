//! Envoy, laid out as Istio lays out a sidecar: one listener for all that leaves the pod, one for
//! all that comes in, and clusters that go where the connection was going.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use interceptor_injection::builtin::{bootstrap::Bootstrap, ports};
use serde_json::{Value, json};

use super::exchange::{CLIENT, LISTENER, ORIGINAL};
use crate::settings::{Mode, Settings};

/// How long it may take to tell.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE: &str = "connection: close";

/// An Envoy to be started.
#[derive(Clone, Debug)]
pub struct Envoy {
    /// The program.
    pub binary: PathBuf,
    /// How many workers it has. Each has its own listening sockets.
    pub(super) concurrency: u32,
}

impl Envoy {
    /// The one that the environment names.
    pub fn new(concurrency: u32) -> Result<Self> {
        let binary = env::var_os("ENVOY_BIN").map(PathBuf::from).context(
            "ENVOY_BIN does not say where Envoy is: run `cargo xtask test`, which installs one",
        )?;
        let shown = binary.display();
        ensure!(
            binary.is_file(),
            "{shown} (ENVOY_BIN) is not there: run `cargo xtask test`, which installs one"
        );
        Ok(Self {
            binary,
            concurrency,
        })
    }

    /// Its command line. The configuration is part of it: there is no file to be left behind.
    pub fn arguments(&self, mode: Mode) -> Vec<String> {
        [
            "--config-yaml",
            &configuration(mode).to_string(),
            "--concurrency",
            &self.concurrency.to_string(),
            "--disable-hot-restart",
            "--log-level",
            "error",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// How many listening sockets it has on each port: one a worker for each family.
    #[must_use]
    pub const fn listeners(&self) -> usize {
        2 * self.concurrency as usize
    }
}

/// How many connections each worker has taken on a port, asked of an Envoy in the thread's network
/// namespace.
pub fn connections_by_worker(port: u16) -> Result<Vec<u32>> {
    let mut admin = TcpStream::connect((Ipv4Addr::LOCALHOST, ports::ADMIN))?;
    admin.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    let name = format!("_{port}.worker_[0-9]+.downstream_cx_total");
    let request = format!("GET /stats?filter={name} HTTP/1.1\r\nhost: admin\r\n{CLOSE}\r\n\r\n");
    admin.write_all(request.as_bytes())?;
    let mut response = String::new();
    admin.read_to_string(&mut response)?;
    response
        .lines()
        .filter_map(|line| line.split_once(".downstream_cx_total: "))
        .map(|(_, count)| count.parse().context(count.to_owned()))
        .collect()
}

/// The configuration of the built-in sidecar, which also reports in request headers what it knows of
/// the connection.
fn configuration(mode: Mode) -> Value {
    let transparent_mark = (mode == Mode::Tproxy).then(|| Settings::default().tproxy_mark);
    let mut configuration = Bootstrap { transparent_mark }.configuration();
    let listeners = configuration["static_resources"]["listeners"].as_array_mut();
    for listener in listeners.into_iter().flatten() {
        report_connections(listener);
    }
    configuration
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
