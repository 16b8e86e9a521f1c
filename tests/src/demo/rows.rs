//! The connections of the demo.

use interceptor_testkit::sidecar::SceneClient;

/// The addresses and ports of each side.
pub(crate) const LEGEND: &str = "\
pod:    10.1.0.2, fd00:1::2   an app on 8080 and 15020 (excluded), the proxy on 15001 and 15006
client: 10.1.0.1, fd00:1::1   outside the pod
remote: 10.2.0.9, fd00:2::9   a server on 80";

/// A connection to make.
pub(crate) struct Row {
    pub(crate) client: SceneClient,
    pub(crate) to: &'static str,
    pub(crate) proxy_is_up: bool,
}

const fn row(client: SceneClient, to: &'static str) -> Row {
    Row {
        client,
        to,
        proxy_is_up: true,
    }
}

const fn without_proxy(client: SceneClient, to: &'static str) -> Row {
    Row {
        client,
        to,
        proxy_is_up: false,
    }
}

/// All connections. Those without a proxy come last.
pub(crate) const ROWS: [Row; 18] = [
    row(SceneClient::App, "10.2.0.9:80"),
    row(SceneClient::App, "[fd00:2::9]:80"),
    row(SceneClient::App, "[::ffff:10.2.0.9]:80"),
    row(SceneClient::App, "10.1.0.2:8080"),
    row(SceneClient::App, "[fd00:1::2]:8080"),
    row(SceneClient::App, "127.0.0.1:8080"),
    row(SceneClient::App, "[::1]:8080"),
    row(SceneClient::Root, "10.2.0.9:80"),
    row(SceneClient::Proxy, "10.2.0.9:80"),
    row(SceneClient::Proxy, "[fd00:2::9]:80"),
    row(SceneClient::Proxy, "10.1.0.2:8080"),
    row(SceneClient::Client, "10.1.0.2:8080"),
    row(SceneClient::Client, "[fd00:1::2]:8080"),
    row(SceneClient::Client, "10.1.0.2:15020"),
    without_proxy(SceneClient::App, "10.2.0.9:80"),
    without_proxy(SceneClient::App, "[fd00:2::9]:80"),
    without_proxy(SceneClient::Client, "10.1.0.2:8080"),
    without_proxy(SceneClient::Client, "[fd00:1::2]:8080"),
];
