//! One exchange: an HTTP request and its response. Both have content that the connection's number
//! determines. The response names the server, and has the proxy's report.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use interceptor_testkit::sidecar::ProxyReport;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The request's header with its [`Exchange`].
const EXCHANGE: &str = "x-soak-exchange";
/// The response's header with the server's name.
const SERVER: &str = "x-soak-server";
/// The response's header with what is wrong with the request's content.
const REFUSED: &str = "x-soak-refused";

/// The maximum length of a message's head.
const MAX_HEAD: u64 = 16 * 1024;

/// The maximum length of content.
pub(super) const MAX_CONTENT: usize = 4096;

/// Who responded, and what the proxy knows of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The server's name.
    pub(crate) server: String,
    /// The proxy's report; `None` if there was no proxy.
    pub(crate) report: Option<ProxyReport>,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.report {
            None => write!(formatter, "{} without a proxy", self.server),
            Some(report) => write!(
                formatter,
                "{} by the proxy's port {}, original destination {}, client {}",
                self.server, report.listener, report.original, report.client
            ),
        }
    }
}

/// An exchange: the number of its connection, its number there, and the length of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) connection: u64,
    pub(super) number: u64,
    pub(super) length: usize,
}

/// The direction of content.
#[derive(Clone, Copy)]
enum Direction {
    ToServer = 1,
    ToClient = 2,
}

impl Exchange {
    fn content(self, direction: Direction) -> Vec<u8> {
        let stream = self.number * 2 + direction as u64;
        Random::new(self.connection, stream).bytes(self.length)
    }

    /// The request.
    pub(super) fn request(self) -> Vec<u8> {
        let Self {
            connection,
            number,
            length,
        } = self;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: soak\r\n{EXCHANGE}: {connection} {number} {length}\r\n\
             content-length: {length}\r\n\r\n"
        );
        [head.into_bytes(), self.content(Direction::ToServer)].concat()
    }

    /// Parses the header's value.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut next = || words.next()?.parse().ok();
        let (connection, number, length) = (next()?, next()?, next()?);
        let length = usize::try_from(length).ok()?;
        (length <= MAX_CONTENT).then_some(Self {
            connection,
            number,
            length,
        })
    }

    /// Makes the exchange on a connection. The error is of the content, or of the connection.
    pub(super) fn make(self, stream: &TcpStream) -> io::Result<Identity> {
        (&mut &*stream).write_all(&self.request())?;
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader)?;
        if let Some(refused) = head.value(REFUSED) {
            return Err(wrong(refused));
        }
        let mut content = vec![0; head.length()?];
        reader.read_exact(&mut content)?;
        if content != self.content(Direction::ToClient) || !reader.buffer().is_empty() {
            return Err(wrong("other content than that of this exchange"));
        }
        Ok(head.identity())
    }
}

/// An error of the content. Errors of connections have other kinds.
fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The head of a message: its lines after the first.
pub(super) struct Head(Vec<String>);

impl Head {
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut lines = Vec::new();
        let mut reader = reader.take(MAX_HEAD);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => return Ok(Self(lines)),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// Parses a head that ends with an empty line. Returns its length too; `None` if it is incomplete.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        const END: &[u8] = b"\r\n\r\n";
        let end = bytes.windows(END.len()).position(|window| window == END)? + END.len();
        let head = Self::read(&mut bytes.get(..end)?).ok()?;
        Some((head, end))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The length of the content.
    pub(super) fn length(&self) -> io::Result<usize> {
        let length = self.value("content-length").unwrap_or_default().parse();
        length
            .ok()
            .filter(|length| *length <= MAX_CONTENT)
            .ok_or_else(|| wrong(&format!("a message without a valid length: {:?}", self.0)))
    }

    /// The proxy's report, if there is one.
    pub(super) fn report(&self) -> Option<ProxyReport> {
        let mut report = ProxyReport::default();
        let taken = self.0.iter().filter(|line| report.take(line)).count();
        (taken > 0).then_some(report)
    }

    fn identity(&self) -> Identity {
        Identity {
            server: self.value(SERVER).unwrap_or("no server").to_owned(),
            report: self.report(),
        }
    }

    /// The response to this request with `content`.
    pub(super) fn response(
        &self,
        content: &[u8],
        server: &str,
        report: Option<&ProxyReport>,
    ) -> Vec<u8> {
        let exchange = self.value(EXCHANGE).and_then(Exchange::parse);
        let (extra, response) = match exchange {
            Some(exchange) if content == exchange.content(Direction::ToServer) => {
                (String::new(), exchange.content(Direction::ToClient))
            }
            _ => {
                let refused = format!("{REFUSED}: {server} received other content\r\n");
                (refused, Vec::new())
            }
        };
        let report = report.map(ProxyReport::headers).unwrap_or_default();
        let length = response.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\n{SERVER}: {server}\r\n{report}{extra}content-length: {length}\r\n\r\n"
        );
        [head.into_bytes(), response].concat()
    }
}

/// A name as text, IPv4 addresses as such.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Exchange = Exchange {
        connection: 7,
        number: 3,
        length: 10,
    };

    fn report() -> ProxyReport {
        ProxyReport {
            listener: "15001".to_owned(),
            original: "10.2.0.9:8000".to_owned(),
            client: "10.1.0.2:40000".to_owned(),
        }
    }

    /// The response to a request.
    fn responded(request: &[u8]) -> String {
        let (head, end) = Head::parse(request).expect("a head");
        let response = head.response(&request[end..], "remote", Some(&report()));
        String::from_utf8_lossy(&response).into_owned()
    }

    #[test]
    fn a_request_is_incomplete_without_its_empty_line() {
        let request = EXAMPLE.request();
        let (head, end) = Head::parse(&request).expect("a head");
        assert_eq!(head.length().expect("a length"), 10);
        assert_eq!(request.len(), end + 10);
        assert!(Head::parse(&request[..end - 1]).is_none());
    }

    #[test]
    fn other_content_is_refused() {
        let mut request = EXAMPLE.request();
        assert!(!responded(&request).contains(REFUSED));
        *request.last_mut().expect("content") ^= 1;
        assert!(responded(&request).contains(REFUSED));
    }

    #[test]
    fn a_response_names_server_and_proxy() {
        let text = responded(&EXAMPLE.request());
        let (head, _) = Head::parse(text.as_bytes()).expect("a head");
        let identity = head.identity();
        assert_eq!(identity.server, "remote");
        assert_eq!(identity.report, Some(report()));
    }

    #[test]
    fn the_directions_have_different_content() {
        let [there, back] =
            [Direction::ToServer, Direction::ToClient].map(|direction| EXAMPLE.content(direction));
        assert_ne!(there, back);
        let next = Exchange {
            number: 4,
            ..EXAMPLE
        };
        assert_ne!(next.content(Direction::ToServer), back);
    }
}
