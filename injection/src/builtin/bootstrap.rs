//! The static Envoy configuration of the built-in sidecar, laid out like Istio's: one listener for
//! outbound connections, one for inbound connections, and clusters that connect to the original
//! destination.
//!
//! The proxy forwards bytes unchanged, and requests as far as Envoy permits: no timeout and no header
//! of a request is its own.
//! The field names are those of Envoy's API v3.

use serde_json::{Value, json};

use super::ports::{ADMIN, HEALTH, INBOUND, OUTBOUND, STATS};

mod http;
mod probes;

pub use probes::Probe;

/// Connects outbound connections to their original destination.
const OUTBOUND_CLUSTER: &str = "PassthroughCluster";
/// The same for inbound connections, from a source address that is not captured.
const INBOUND_V4_CLUSTER: &str = "InboundPassthroughClusterIpv4";
const INBOUND_V6_CLUSTER: &str = "InboundPassthroughClusterIpv6";
/// Has no endpoint. Connections to a listener's own port, which would loop, end here.
const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
const ADMIN_CLUSTER: &str = "admin";

/// The source addresses of the proxy's connections to its own pod.
pub const INBOUND_SOURCES: [&str; 2] = ["127.0.0.6", "::6"];

/// How long a listener waits for a client's first bytes. The server of some protocols speaks first.
const INSPECTION_TIMEOUT: &str = "0.2s";
const CONNECT_TIMEOUT: &str = "10s";
/// Envoy's value for no timeout.
const NO_TIMEOUT: &str = "0s";

/// What varies in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// The mark of connections to the app that use the client's address (TPROXY). Envoy then needs
    /// `CAP_NET_ADMIN`.
    pub transparent_mark: Option<u32>,
    /// The app's TCP probes, which the proxy does.
    pub probes: Vec<Probe>,
    /// The pod's address, to which they connect.
    pub pod_ip: String,
}

impl Bootstrap {
    /// The configuration.
    #[must_use]
    pub fn configuration(&self) -> Value {
        let mut configuration = json!({
            "admin": {"address": address("127.0.0.1", ADMIN)},
            "static_resources": {
                "listeners": [outbound(), self.inbound(), health(), stats()],
                "clusters": [
                    passthrough(OUTBOUND_CLUSTER, None),
                    passthrough(INBOUND_V4_CLUSTER, Some(INBOUND_SOURCES[0])),
                    passthrough(INBOUND_V6_CLUSTER, Some(INBOUND_SOURCES[1])),
                    {"name": BLACK_HOLE_CLUSTER, "type": "STATIC", "connect_timeout": "1s"},
                    admin_cluster(),
                ],
            },
        });
        if !self.probes.is_empty() {
            let resources = &mut configuration["static_resources"];
            append(
                &mut resources["listeners"],
                [probes::listener_of(&self.probes)],
            );
            let clusters = self.probes.iter().map(|probe| probe.cluster(&self.pod_ip));
            append(&mut resources["clusters"], clusters);
        }
        configuration
    }

    fn inbound(&self) -> Value {
        let mut chains = vec![chain(
            "loop",
            &json!({"destination_port": INBOUND}),
            &tcp(BLACK_HOLE_CLUSTER),
        )];
        for (cluster, any) in [(INBOUND_V4_CLUSTER, "0.0.0.0"), (INBOUND_V6_CLUSTER, "::")] {
            let range = json!([{"address_prefix": any, "prefix_len": 0}]);
            chains.push(chain(
                &format!("{cluster}-http"),
                &http_match(Some(&range)),
                &http::forwarding(cluster),
            ));
            chains.push(chain(
                cluster,
                &json!({"prefix_ranges": range}),
                &tcp(cluster),
            ));
        }
        let mut listener = capturing("virtualInbound", "INBOUND", INBOUND, &chains);
        if let Some(mark) = self.transparent_mark {
            make_transparent(&mut listener, mark);
        }
        listener
    }
}

fn append(list: &mut Value, items: impl IntoIterator<Item = Value>) {
    if let Some(list) = list.as_array_mut() {
        list.extend(items);
    }
}

fn outbound() -> Value {
    let chains = [
        chain(
            "loop",
            &json!({"destination_port": OUTBOUND}),
            &tcp(BLACK_HOLE_CLUSTER),
        ),
        chain(
            "http",
            &http_match(None),
            &http::forwarding(OUTBOUND_CLUSTER),
        ),
        chain("tcp", &json!({}), &tcp(OUTBOUND_CLUSTER)),
    ];
    capturing("virtualOutbound", "OUTBOUND", OUTBOUND, &chains)
}

/// The probes of kubelet. The admin interface offers more than other pods may use.
fn health() -> Value {
    internal("health", HEALTH, "/healthz/ready", "/ready")
}

fn stats() -> Value {
    internal("stats", STATS, "/stats/prometheus", "/stats/prometheus")
}

/// A listener with one path of the admin interface.
fn internal(name: &str, port: u16, path: &str, admin_path: &str) -> Value {
    let routes = http::virtual_host(&[json!({
        "match": {"path": path},
        "route": {"cluster": ADMIN_CLUSTER, "prefix_rewrite": admin_path},
    })]);
    let chains = [json!({"filters": [http::connection_manager(name, &routes)]})];
    listener(name, port, &chains)
}

/// A listener for captured connections.
fn capturing(name: &str, direction: &str, port: u16, chains: &[Value]) -> Value {
    let mut listener = listener(name, port, chains);
    listener["traffic_direction"] = json!(direction);
    listener["listener_filters"] = json!([
        listener_filter("original_dst", "original_dst.v3.OriginalDst"),
        listener_filter("http_inspector", "http_inspector.v3.HttpInspector"),
    ]);
    listener["listener_filters_timeout"] = json!(INSPECTION_TIMEOUT);
    listener["continue_on_listener_filters_timeout"] = json!(true);
    listener
}

fn listener(name: &str, port: u16, chains: &[Value]) -> Value {
    json!({
        "name": name,
        "address": address("0.0.0.0", port),
        "additional_addresses": [{"address": address("::", port)}],
        "filter_chains": chains,
    })
}

/// The connections to the app use the client's address.
fn make_transparent(listener: &mut Value, mark: u32) {
    listener["transparent"] = json!(true);
    let mut filter = listener_filter("original_src", "original_src.v3.OriginalSrc");
    filter["typed_config"]["mark"] = json!(mark);
    if let Some(filters) = listener["listener_filters"].as_array_mut() {
        filters.insert(1, filter);
    }
}

fn listener_filter(name: &str, kind: &str) -> Value {
    json!({
        "name": format!("envoy.filters.listener.{name}"),
        "typed_config": {"@type": type_url(&format!("filters.listener.{kind}"))},
    })
}

fn chain(name: &str, matches: &Value, filter: &Value) -> Value {
    json!({"name": name, "filter_chain_match": matches, "filters": [filter]})
}

fn http_match(destinations: Option<&Value>) -> Value {
    let mut matches = json!({"application_protocols": ["http/1.0", "http/1.1"]});
    if let Some(ranges) = destinations {
        matches["prefix_ranges"] = ranges.clone();
    }
    matches
}

fn tcp(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": type_url("filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": cluster,
            "cluster": cluster,
            "idle_timeout": NO_TIMEOUT,
        },
    })
}

fn passthrough(name: &str, source: Option<&str>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": CONNECT_TIMEOUT,
        "circuit_breakers": {"thresholds": [{
            "max_connections": u32::MAX,
            "max_pending_requests": u32::MAX,
            "max_requests": u32::MAX,
            "max_retries": u32::MAX,
        }]},
        "typed_extension_protocol_options": http::upstream_options(),
    });
    if let Some(source) = source {
        cluster["upstream_bind_config"] =
            json!({"source_address": {"address": source, "port_value": 0}});
    }
    cluster
}

fn admin_cluster() -> Value {
    let endpoint = json!({"endpoint": {"address": address("127.0.0.1", ADMIN)}});
    json!({
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
