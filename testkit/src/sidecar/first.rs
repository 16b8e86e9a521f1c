//! An app that connects as soon as it runs, until a server responds.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::exchange::{MAX_REQUEST, ServerResponse};

/// The first source port. Each attempt has the next one. A proxy in the pod, whose ports are
/// ephemeral ones, has others: so a server can tell the app's connections from the proxy's.
pub const FIRST_SOURCE_PORT: u16 = 20_000;
/// The maximum number of attempts.
pub const ATTEMPTS: u16 = 200;
/// The pause after a refusal.
const PAUSE: Duration = Duration::from_millis(50);
/// Time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An attempt: the response, or the name of the errno. The app prints each as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its source port.
    pub source_port: u16,
    /// Its result.
    pub response: Result<ServerResponse, String>,
}

/// Runs the app.
pub(super) fn run(to: &str) -> Result<()> {
    let to = to.parse()?;
    for number in 0..ATTEMPTS {
        let source_port = FIRST_SOURCE_PORT + number;
        let response = request(source_port, to).map_err(|error| name(&error));
        let is_served = response.is_ok();
        let attempt = Attempt {
            source_port,
            response,
        };
        println!("{}", serde_json::to_string(&attempt)?);
        if is_served {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    bail!("no response in {ATTEMPTS} attempts")
}

fn request(source_port: u16, to: SocketAddr) -> io::Result<ServerResponse> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = SocketAddr::from((Ipv4Addr::UNSPECIFIED, source_port));
    socket.bind(&source.into())?;
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
    (&socket).write_all(request.as_bytes())?;
    let lines = BufReader::new((&socket).take(MAX_REQUEST)).lines();
    let body = lines.last().unwrap_or_else(|| Ok(String::new()))?;
    serde_json::from_str(&body).map_err(io::Error::from)
}

fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}

impl Attempt {
    /// Parses a line of the app's output.
    pub fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| line.to_owned())
    }
}
