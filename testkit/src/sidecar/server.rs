//! A server that reports its own name and each client's address.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::exchange::{MAX_REQUEST, ProxyReport, ServerResponse, is_http};
use crate::netns::Netns;

/// Time limit of a client's request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves `ports` on all addresses.
pub(super) fn run(name: &str, ports: &[&str]) -> Result<()> {
    let threads = ports
        .iter()
        .map(|port| {
            let listener = listen(port.parse()?).with_context(|| format!("port {port}"))?;
            let server = format!("{name}:{port}");
            Ok(thread::spawn(move || serve(&listener, &server, |_| {})))
        })
        .collect::<Result<Vec<_>>>()?;
    for thread in threads {
        drop(thread.join());
    }
    Ok(())
}

fn listen(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1024)?;
    Ok(socket)
}

/// A server in the test's own process that keeps the address of each client. Stops when dropped.
pub struct RecordingServer {
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    listener: Socket,
}

impl RecordingServer {
    /// Serves a port on all addresses of `netns`.
    pub fn start(netns: &Netns, name: &str, port: u16) -> Result<Self> {
        let listener = netns.enter(|| Ok(listen(port)?))?;
        let server = Self {
            clients: Arc::default(),
            listener: listener.try_clone()?,
        };
        let (clients, name) = (Arc::clone(&server.clients), format!("{name}:{port}"));
        let record = move |client| {
            let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients.push(client);
        };
        thread::spawn(move || serve(&listener, &name, record));
        Ok(server)
    }

    /// The addresses of all clients so far.
    #[must_use]
    pub fn clients(&self) -> Vec<SocketAddr> {
        let clients = self.clients.lock();
        clients.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for RecordingServer {
    fn drop(&mut self) {
        // Ends the thread's accept(2).
        let _closed = self.listener.shutdown(Shutdown::Both);
    }
}

fn serve(listener: &Socket, server: &str, record: impl Fn(SocketAddr)) {
    while let Ok((connection, client)) = listener.accept() {
        if let Some(client) = client.as_socket() {
            record(canonical(client));
        }
        let server = server.to_owned();
        // An error means that the client has closed.
        thread::spawn(move || response(&connection.into(), server));
    }
}

fn response(connection: &TcpStream, server: String) -> io::Result<()> {
    connection.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut lines = BufReader::new(connection.take(MAX_REQUEST));
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let is_http = is_http(&line);
    let report = if is_http {
        read_head(&mut lines)?
    } else {
        None
    };
    let peer = canonical(connection.peer_addr()?);
    let body = serde_json::to_string(&ServerResponse {
        server,
        peer,
        report,
    })? + "\n";
    let head = if is_http { head(&body) } else { String::new() };
    (&mut &*connection).write_all((head + &body).as_bytes())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Reads the rest of the request's head, and the headers of a proxy.
fn read_head(lines: &mut impl io::BufRead) -> io::Result<Option<ProxyReport>> {
    let mut report = ProxyReport::default();
    let mut is_proxied = false;
    for line in lines.lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        is_proxied |= report.take(&line);
    }
    Ok(is_proxied.then_some(report))
}

fn head(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    )
}
