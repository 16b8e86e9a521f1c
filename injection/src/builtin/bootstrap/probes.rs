//! TCP probes of the app: Envoy connects to each probe's port at its own interval, and a request of
//! the kubelet gets the result of the last connection.

use serde_json::{Value, json};

use super::{INBOUND_SOURCES, address, http, listener, type_url};
use crate::builtin::ports::PROBES;

/// A TCP probe of the app, which the kubelet does as an HTTP request to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The path of the request.
    pub path: String,
    /// The app's port.
    pub port: u16,
    /// The seconds between two connections to it.
    pub period: u64,
    /// The seconds after which a connection has failed.
    pub timeout: u64,
}

/// Serves one path for each probe: 200 if the last connection succeeded, otherwise 503.
pub(super) fn listener_of(probes: &[Probe]) -> Value {
    let mut manager = http::connection_manager("probes", &http::virtual_host(&[]));
    if let Some(filters) = manager["typed_config"]["http_filters"].as_array_mut() {
        filters.splice(0..0, probes.iter().map(Probe::filter));
    }
    listener("probes", PROBES, &[json!({"filters": [manager]})])
}

impl Probe {
    fn filter(&self) -> Value {
        json!({
            "name": self.path,
            "typed_config": {
                "@type": type_url("filters.http.health_check.v3.HealthCheck"),
                "pass_through_mode": false,
                "headers": [{"name": ":path", "string_match": {"exact": self.path}}],
                "cluster_min_healthy_percentages": {&self.path: {"value": 100}},
            },
        })
    }

    pub(super) fn cluster(&self, pod_ip: &str) -> Value {
        let endpoint = json!({"endpoint": {"address": address(pod_ip, self.port)}});
        let period = format!("{}s", self.period);
        json!({
            "name": self.path,
            "type": "STATIC",
            // From the source addresses that are not captured.
            "upstream_bind_config": {
                "source_address": {"address": INBOUND_SOURCES[0], "port_value": 0},
                "extra_source_addresses": [
                    {"address": {"address": INBOUND_SOURCES[1], "port_value": 0}},
                ],
            },
            "health_checks": [{
                "tcp_health_check": {},
                "timeout": format!("{}s", self.timeout),
                "interval": period,
                "no_traffic_interval": period,
                // The kubelet waits for a start at its own interval: do not add one.
                "unhealthy_interval": "1s",
                // The kubelet counts.
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "reuse_connection": false,
            }],
            "load_assignment": {
                "cluster_name": self.path,
                "endpoints": [{"lb_endpoints": [endpoint]}],
            },
        })
    }
}
