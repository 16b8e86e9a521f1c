//! The messages between client, proxies and servers: a line, HTTP or not, and, from a proxy that
//! parses HTTP, headers with the properties of the connection.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A line that is not HTTP. No proxy can extend it.
pub(super) const PLAIN: &str = "hello";

/// The header with the port of the proxy's listener.
pub(super) const LISTENER: &str = "x-proxy-listener";
/// The header with the original destination.
pub(super) const ORIGINAL: &str = "x-proxy-original-destination";
/// The header with the client's address.
pub(super) const CLIENT: &str = "x-proxy-client";

/// The maximum length of a request.
pub(super) const MAX_REQUEST: u64 = 16 * 1024;

/// A proxy's report of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyReport {
    /// Its listener's port.
    pub listener: String,
    /// The original destination.
    pub original: String,
    /// The client's address.
    pub client: String,
}

/// A server's response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerResponse {
    /// The server's name and port.
    pub server: String,
    /// The client's address, as the server observes it.
    pub peer: SocketAddr,
    /// The report of the last proxy.
    pub report: Option<ProxyReport>,
}

impl ProxyReport {
    /// As HTTP headers.
    #[must_use]
    pub fn headers(&self) -> String {
        [
            (LISTENER, &self.listener),
            (ORIGINAL, &self.original),
            (CLIENT, &self.client),
        ]
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat()
    }

    /// Parses a header, if it is one of these.
    pub fn take(&mut self, header: &str) -> bool {
        let Some((name, value)) = header.split_once(':') else {
            return false;
        };
        let member = match name.to_ascii_lowercase().as_str() {
            LISTENER => &mut self.listener,
            ORIGINAL => &mut self.original,
            CLIENT => &mut self.client,
            _ => return false,
        };
        value.trim().clone_into(member);
        true
    }
}

/// Whether the first line of a request is HTTP.
pub(super) fn is_http(line: &str) -> bool {
    line.trim_end().ends_with("HTTP/1.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed() {
        let report = ProxyReport {
            listener: "15001".to_owned(),
            original: "[fd00:2::9]:80".to_owned(),
            client: "[fd00:1::2]:40000".to_owned(),
        };
        let mut parsed = ProxyReport::default();
        assert!(report.headers().lines().all(|line| parsed.take(line)));
        assert_eq!(parsed, report);
        assert!(!parsed.take("host: example"));
    }

    #[test]
    fn http_is_recognized() {
        assert!(is_http("GET / HTTP/1.1\r\n"));
        assert!(!is_http("hello\n"));
    }
}
