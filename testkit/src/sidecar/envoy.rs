//! Envoy with the layout of Istio's sidecar: one listener for all outbound connections, one for all
//! inbound ones, and clusters that connect to the original destination.

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

/// The port of its admin interface, on localhost.
const ADMIN_PORT: u16 = 15000;

/// Time limit of a response of the admin interface.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE: &str = "connection: close";

/// Connects to the original destination of an outbound connection.
const OUTBOUND: &str = "PassthroughCluster";
/// The same for inbound ones, from a source address that is not captured.
const INBOUND_V4: &str = "InboundPassthroughClusterIpv4";
const INBOUND_V6: &str = "InboundPassthroughClusterIpv6";
/// Has no endpoint.
const NOWHERE: &str = "BlackHoleCluster";

/// An Envoy to start.
#[derive(Clone, Debug)]
pub struct Envoy {
    /// The binary.
    pub binary: PathBuf,
    /// The number of workers. Each has its own listening sockets.
    pub(super) concurrency: u32,
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
        })
    }

    /// Its command line, which includes the configuration: no file is left behind.
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

    /// The number of its listening sockets on each port: one per worker and family.
    #[must_use]
    pub const fn listeners(&self) -> usize {
        2 * self.concurrency as usize
    }
}

/// The number of connections that each worker has accepted on a port, read from an Envoy in the
/// thread's network namespace.
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

/// Lets a listener's connections continue from the client's address.
fn transparent(mut listener: Value) -> Value {
    listener["transparent"] = json!(true);
    let mut filter = listener_filter("original_src", "original_src.v3.OriginalSrc");
    filter["typed_config"]["mark"] = json!(Settings::default().tproxy_mark);
    if let Some(filters) = listener["listener_filters"].as_array_mut() {
        filters.insert(1, filter);
    }
    listener
}

fn listener(name: &str, direction: &str, port: u16, chains: &[Value]) -> Value {
    let any_v6 = Ipv6Addr::UNSPECIFIED.to_string();
    json!({
        "name": name,
        "traffic_direction": direction,
        "address": address("0.0.0.0", port),
        "additional_addresses": [{"address": address(&any_v6, port)}],
        "listener_filters": [
            listener_filter("original_dst", "original_dst.v3.OriginalDst"),
            listener_filter("http_inspector", "http_inspector.v3.HttpInspector"),
        ],
        // For a client of a protocol in which the server speaks first.
        "listener_filters_timeout": "0.2s",
        "continue_on_listener_filters_timeout": true,
        "filter_chains": chains,
    })
}

fn listener_filter(name: &str, kind: &str) -> Value {
    json!({
        "name": format!("envoy.filters.listener.{name}"),
        "typed_config": {"@type": kind_of(&format!("filters.listener.{kind}"))},
    })
}

fn chain(name: &str, matches: &Value, filter: &Value) -> Value {
    json!({"name": name, "filter_chain_match": matches, "filters": [filter]})
}

fn http_match(destinations: Option<&Value>) -> Value {
    let mut matches = json!({"application_protocols": ["http/1.1"]});
    if let Some(ranges) = destinations {
        matches["prefix_ranges"] = ranges.clone();
    }
    matches
}

/// Forwards requests, and adds headers with the properties of their connection.
fn http(port: u16, cluster: &str) -> Value {
    let header = |(key, value): (&str, &str)| {
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
