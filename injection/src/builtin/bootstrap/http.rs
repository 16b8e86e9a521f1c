//! HTTP as the proxy forwards it: unchanged, as far as Envoy permits.

use serde_json::{Value, json};

use super::{NO_TIMEOUT, type_url};

/// Protocols to which a connection may be upgraded. Envoy has no word for all.
const UPGRADES: [&str; 4] = ["websocket", "tcp", "SPDY/3.1", "CONNECT"];

/// Envoy's largest limits of a message's head.
const MAX_HEADERS_KIB: u32 = 8192;
const MAX_HEADERS: u32 = 100_000;

/// The host of requests that have none. HTTP/1.0 permits that.
const DEFAULT_HOST: &str = "localhost";

/// Envoy sets this header of every request.
const PROTO: &str = "x-forwarded-proto";
/// Holds the client's value until the request is sent.
const CLIENTS_PROTO: &str = "x-interceptor-forwarded-proto";

/// Forwards requests to `cluster`.
pub(super) fn forwarding(cluster: &str) -> Value {
    let matches = [json!({"connect_matcher": {}}), json!({"prefix": "/"})];
    let mut routes = virtual_host(&matches.map(|request| route(&request, cluster)));
    routes["request_headers_to_remove"] = json!([CLIENTS_PROTO]);
    let mut filter = connection_manager(cluster, &routes);
    let config = &mut filter["typed_config"];
    config["upgrade_configs"] = UPGRADES
        .iter()
        .map(|upgrade| json!({"upgrade_type": upgrade}))
        .collect();
    config["stream_idle_timeout"] = json!(NO_TIMEOUT);
    config["common_http_protocol_options"] =
        json!({"idle_timeout": NO_TIMEOUT, "max_headers_count": MAX_HEADERS});
    config["max_request_headers_kb"] = json!(MAX_HEADERS_KIB);
    config["http_protocol_options"] = json!({
        "accept_http_10": true,
        "default_host_for_http_10": DEFAULT_HOST,
        "allow_absolute_url": true,
        "allow_custom_methods": true,
        "enable_trailers": true,
        "header_key_format": preserved_case(),
    });
    config["proxy_100_continue"] = json!(true);
    config["generate_request_id"] = json!(false);
    config["server_header_transformation"] = json!("PASS_THROUGH");
    config["skip_xff_append"] = json!(true);
    config["early_header_mutation_extensions"] = json!([stored_proto()]);
    filter
}

fn route(request: &Value, cluster: &str) -> Value {
    json!({
        "match": request,
        "route": {
            "cluster": cluster,
            "timeout": NO_TIMEOUT,
            "idle_timeout": NO_TIMEOUT,
            "max_stream_duration": {"max_stream_duration": NO_TIMEOUT},
        },
        // The client's value, or none. Headers are removed before others are added.
        "request_headers_to_remove": [PROTO],
        "request_headers_to_add": [
            {"header": {"key": PROTO, "value": format!("%REQ({CLIENTS_PROTO})%")}},
        ],
    })
}

/// Stores the client's header before Envoy sets its own.
fn stored_proto() -> Value {
    let mutation = "http.early_header_mutation.header_mutation.v3.HeaderMutation";
    json!({
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": type_url(mutation),
            "mutations": [{"append": {
                "header": {"key": CLIENTS_PROTO, "value": format!("%REQ({PROTO})%")},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }}],
        },
    })
}

/// The options of connections to servers.
pub(super) fn upstream_options() -> Value {
    let kind = "upstreams.http.v3.HttpProtocolOptions";
    json!({format!("envoy.extensions.{kind}"): {
        "@type": type_url(kind),
        "common_http_protocol_options": {
            "max_headers_count": MAX_HEADERS,
            "max_response_headers_kb": MAX_HEADERS_KIB,
        },
        "explicit_http_config": {"http_protocol_options": {
            "enable_trailers": true,
            "header_key_format": preserved_case(),
        }},
    }})
}

pub(super) fn virtual_host(routes: &[Value]) -> Value {
    json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

pub(super) fn connection_manager(stat_prefix: &str, routes: &Value) -> Value {
    let manager = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": type_url(manager),
            "stat_prefix": stat_prefix,
            "route_config": routes,
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": type_url("filters.http.router.v3.Router"),
                    "suppress_envoy_headers": true,
                },
            }],
        },
    })
}

/// Header names keep the case in which the peer wrote them.
fn preserved_case() -> Value {
    let formatter = "http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
    json!({"stateful_formatter": {
        "name": "preserve_case",
        "typed_config": {"@type": type_url(formatter)},
    }})
}
