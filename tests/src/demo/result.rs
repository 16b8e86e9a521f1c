//! The result of a connection, without the values that differ in every run.

use std::net::{IpAddr, SocketAddr};

use interceptor_testkit::sidecar::{ClientView, ServerResponse};

/// The result of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionResult {
    /// The proxy's report.
    pub(crate) report: Option<ShownReport>,
    /// The server and the client's address as it observes it; or the reason why there is no
    /// response.
    pub(crate) response: Result<(String, IpAddr), String>,
    /// The local address at the client.
    local: IpAddr,
    /// The peer address at the client.
    peer: Option<SocketAddr>,
}

/// The proxy's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownReport {
    pub(crate) listener: String,
    pub(crate) original: String,
    /// An address; with its port only if that is not the client's own.
    pub(crate) client: String,
}

impl ConnectionResult {
    pub(crate) fn new(view: ClientView) -> Self {
        let report = view
            .response
            .as_ref()
            .ok()
            .and_then(|response| response.report.clone());
        Self {
            report: report.map(|report| ShownReport {
                listener: report.listener,
                original: report.original,
                client: shortened(report.client, view.local.port()),
            }),
            response: view
                .response
                .map(|ServerResponse { server, peer, .. }| (server, peer.ip())),
            local: view.local.ip(),
            peer: view.peer,
        }
    }

    /// The differences between two results, as text.
    pub(crate) fn difference(&self, other: &Self) -> String {
        [
            (
                "proxy's report",
                format!("{:?}", self.report),
                format!("{:?}", other.report),
            ),
            (
                "response",
                format!("{:?}", self.response),
                format!("{:?}", other.response),
            ),
            (
                "getsockname",
                self.local.to_string(),
                other.local.to_string(),
            ),
            (
                "getpeername",
                format!("{:?}", self.peer),
                format!("{:?}", other.peer),
            ),
        ]
        .into_iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(what, ours, theirs)| format!("{what}: {ours}, behind iptables {theirs}"))
        .collect::<Vec<_>>()
        .join("; ")
    }
}

/// `address` without its port, if that is the client's own.
fn shortened(address: String, port: u16) -> String {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() == port => address.ip().to_string(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clients_own_port_is_left_out() {
        let short = |text: &str| shortened(text.to_owned(), 40000);
        assert_eq!(short("10.1.0.2:40000"), "10.1.0.2");
        assert_eq!(short("10.1.0.2:40001"), "10.1.0.2:40001");
        assert_eq!(short("[fd00::1]:40000"), "fd00::1");
        assert_eq!(short("nonsense"), "nonsense");
    }
}
