//! Envoy, laid out as Istio lays out a sidecar: one listener for all that leaves the pod, one for
//! all that comes in, and clusters that go where the connection was going.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    builtin::{INBOUND_PORT, OUTBOUND_PORT},
    exchange::{CLIENT, LISTENER, ORIGINAL},
};
use crate::settings::{Mode, Settings};

/// Where it tells its administrators about itself, on localhost.
const ADMIN_PORT: u16 = 15000;

/// How long it may take to tell.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE: &str = "connection: close";

/// Goes where an outbound connection was going.
const OUTBOUND: &str = "PassthroughCluster";
/// The same for inbound ones, which are to come from an address that is not captured.
const INBOUND_V4: &str = "InboundPassthroughClusterIpv4";
const INBOUND_V6: &str = "InboundPassthroughClusterIpv6";
/// Goes nowhere.
const NOWHERE: &str = "BlackHoleCluster";

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
    let mut admin = TcpStream::connect((Ipv4Addr::LOCALHOST, ADMIN_PORT))?;
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

fn configuration(mode: Mode) -> Value {
    json!({
        "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
        "static_resources": {
            "listeners": [outbound(), inbound(mode)],
            "clusters": [
                passthrough(OUTBOUND, None),
                passthrough(INBOUND_V4, Some("127.0.0.6")),
                passthrough(INBOUND_V6, Some("::6")),
                {"name": NOWHERE, "type": "STATIC", "connect_timeout": "1s"},
            ],
        },
    })
}

fn outbound() -> Value {
    let chains = [
        chain(
            "loop",
            &json!({"destination_port": OUTBOUND_PORT}),
            &tcp(NOWHERE),
        ),
        chain("http", &http_match(None), &http(OUTBOUND_PORT, OUTBOUND)),
        chain("tcp", &json!({}), &tcp(OUTBOUND)),
    ];
    listener("virtualOutbound", "OUTBOUND", OUTBOUND_PORT, &chains)
}

fn inbound(mode: Mode) -> Value {
    let mut chains = vec![chain(
        "loop",
        &json!({"destination_port": INBOUND_PORT}),
        &tcp(NOWHERE),
    )];
    for (cluster, everything) in [(INBOUND_V4, "0.0.0.0"), (INBOUND_V6, "::")] {
        let range = json!([{"address_prefix": everything, "prefix_len": 0}]);
        chains.push(chain(
            &format!("{cluster}-http"),
            &http_match(Some(&range)),
            &http(INBOUND_PORT, cluster),
        ));
        chains.push(chain(
            cluster,
            &json!({"prefix_ranges": range}),
            &tcp(cluster),
        ));
    }
    let listener = listener("virtualInbound", "INBOUND", INBOUND_PORT, &chains);
    match mode {
        Mode::Redirect => listener,
        Mode::Tproxy => transparent(listener),
    }
}

/// Has what a listener takes go on in the client's own name.
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
        // A client of a protocol in which the server speaks first.
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

/// Passes requests on, and tells in headers what it was told of their connection.
fn http(port: u16, cluster: &str) -> Value {
    let header = |(key, value): (&str, &str)| {
        json!({
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        })
    };
    let headers = [
        (LISTENER, port.to_string().as_str()),
        (ORIGINAL, "%DOWNSTREAM_LOCAL_ADDRESS%"),
        (CLIENT, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
    ]
    .map(header);
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": kind_of(kind),
            "stat_prefix": cluster,
            "route_config": {
                "request_headers_to_add": headers,
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
                }],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": kind_of("filters.http.router.v3.Router")},
            }],
        },
    })
}

fn tcp(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": kind_of("filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    })
}

fn passthrough(name: &str, source: Option<&str>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
    });
    if let Some(source) = source {
        cluster["upstream_bind_config"] =
            json!({"source_address": {"address": source, "port_value": 0}});
    }
    cluster
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn kind_of(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
