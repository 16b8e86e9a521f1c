//! The webhook's command line. Every option is also an environment variable, by which the
//! `Deployment` sets it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args;

use crate::arguments::{dns_label, log_filter, number, object_name, socket_address};

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Open to the control plane in private GKE clusters.
const HTTPS: SocketAddr = SocketAddr::new(ANY, 10250);
const HTTP: SocketAddr = SocketAddr::new(ANY, 15029);

/// 1 GiB. The API server's own limit is 3 MiB for most objects.
const MAX_BODY: usize = 1 << 30;
/// More than any machine has memory for.
const MAX_IN_FLIGHT: usize = 1_000_000;
/// A day.
const MAX_DRAIN: u64 = 86_400;

/// The webhook's options.
#[derive(Args, Clone, Debug)]
pub(crate) struct WebhookOptions {
    /// Listen address of /inject, over TLS
    #[arg(
        long,
        env = "LISTEN_ADDRESS",
        default_value_t = HTTPS,
        value_parser = socket_address,
        value_name = "IP:PORT"
    )]
    pub(crate) listen: SocketAddr,

    /// Listen address of /healthz, /readyz and /metrics
    #[arg(
        long,
        env = "HTTP_ADDRESS",
        default_value_t = HTTP,
        value_parser = socket_address,
        value_name = "IP:PORT"
    )]
    pub(crate) http_address: SocketAddr,

    /// Namespace of the webhook's Service, Secret and ConfigMaps
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "interceptor-system",
        value_parser = dns_label,
        value_name = "NAMESPACE"
    )]
    pub(crate) namespace: String,

    /// Name of the webhook's Service, for which the certificate is issued
    #[arg(
        long,
        env = "SERVICE_NAME",
        default_value = "interceptor-webhook",
        value_parser = dns_label,
        value_name = "NAME"
    )]
    pub(crate) service: String,

    /// Name of the MutatingWebhookConfiguration whose caBundle the webhook sets
    #[arg(
        long,
        env = "WEBHOOK_CONFIG",
        default_value = "interceptor-injector",
        value_parser = object_name,
        value_name = "NAME"
    )]
    pub(crate) webhook_config: String,

    /// Name of the Secret with the webhook's own CA and certificate, which the webhook creates and
    /// renews
    #[arg(
        long,
        env = "TLS_SECRET",
        default_value = "interceptor-webhook-tls",
        value_parser = object_name,
        value_name = "NAME"
    )]
    pub(crate) tls_secret: String,

    /// Directory with tls.crt and tls.key, which another program renews, such as cert-manager.
    /// That program also sets caBundle
    #[arg(
        long,
        env = "TLS_DIR",
        value_name = "DIR",
        conflicts_with = "tls_secret"
    )]
    pub(crate) tls_dir: Option<PathBuf>,

    /// Maximum size of a request's body, in bytes
    #[arg(
        long,
        env = "MAX_BODY",
        default_value_t = 6 * 1024 * 1024,
        value_parser = number(1..=MAX_BODY),
        value_name = "BYTES"
    )]
    pub(crate) max_body: usize,

    /// Maximum number of admission reviews in progress; others get status 429
    #[arg(
        long,
        env = "MAX_IN_FLIGHT",
        default_value_t = 512,
        value_parser = number(1..=MAX_IN_FLIGHT),
        value_name = "NUMBER"
    )]
    pub(crate) max_in_flight: usize,

    /// How long the webhook serves new requests after SIGTERM, in seconds, while its address is
    /// removed from the Service
    #[arg(
        long,
        env = "DRAIN_SECONDS",
        default_value_t = 10,
        value_parser = number(0..=MAX_DRAIN),
        value_name = "SECONDS"
    )]
    pub(crate) drain_seconds: u64,

    /// Log level (error, warn, info, debug, trace), or filters such as `info,interceptor=debug`
    #[arg(
        long,
        env = "LOGGING_LEVEL",
        default_value = "info",
        value_parser = log_filter,
        value_name = "FILTER"
    )]
    pub(crate) log_level: String,

    /// Log as JSON, one object per line
    #[arg(
        long,
        env = "LOG_AS_JSON",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = false,
        default_missing_value = "true"
    )]
    pub(crate) log_as_json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(argument: &str) -> String {
        let command = WebhookOptions::augment_args(clap::Command::new("webhook"));
        let parsed = command.try_get_matches_from(["webhook", argument]);
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn a_refused_value_says_what_is_allowed() {
        for (argument, expected) in [
            ("--max-body=0", "a whole number from 1 to 1073741824"),
            ("--max-body=x", "a whole number from 1 to 1073741824"),
            ("--max-in-flight=0", "a whole number from 1 to 1000000"),
            ("--max-in-flight=18446744073709551615", "from 1 to 1000000"),
            ("--drain-seconds=-1", "a whole number from 0 to 86400"),
            ("--listen=1.2.3.4", "an IP address and a port"),
            ("--http-address=localhost:80", "an IP address and a port"),
            ("--namespace=A b", "lower-case letters"),
            ("--service=a.b", "lower-case letters"),
            ("--webhook-config=", "the name of an object"),
            ("--tls-secret=A", "the name of an object"),
            (
                "--log-level=a=b=c",
                "off, error, warn, info, debug or trace",
            ),
        ] {
            let problem = problem(argument);
            assert!(problem.contains(expected), "{argument}: {problem}");
        }
    }

    #[test]
    fn the_documentation_lists_every_option() {
        let documentation = include_str!("../../../docs/injection.md");
        let command = WebhookOptions::augment_args(clap::Command::new("webhook"));
        for argument in command.get_arguments() {
            let option = argument.get_long().unwrap();
            let variable = argument.get_env().unwrap().to_str().unwrap();
            let row = format!("| `--{option}` | `{variable}` |");
            assert!(documentation.contains(&row), "{row}");
        }
    }
}
