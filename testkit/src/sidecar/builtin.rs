//! A small transparent proxy: forwards each connection to its original destination, and reports the
//! connection in HTTP headers. If transparent, it connects to the app from the client's address.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::exchange::{MAX_REQUEST, ProxyReport, is_http};
use crate::{
    actor::{
        process::options,
        protocol::{Family, SocketOption},
    },
    original::original_destination,
    settings::{Mode, Settings},
};

/// The port of outbound connections.
pub const OUTBOUND_PORT: u16 = 15001;
/// The port of inbound connections.
pub const INBOUND_PORT: u16 = 15006;

/// Time limit of either side.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

/// A listener's port, family and mode.
#[derive(Clone, Copy)]
struct Side {
    port: u16,
    family: Family,
    is_transparent: bool,
}

/// Its command line.
pub(super) fn arguments(mode: Mode) -> Vec<String> {
    let words: &[&str] = match mode {
        Mode::Redirect => &["proxy"],
        Mode::Tproxy => &["proxy", "transparent"],
    };
    words.iter().copied().map(str::to_owned).collect()
}

/// Runs the proxy.
pub(super) fn run(mode: Mode) -> Result<()> {
    let mut threads = Vec::new();
    for port in [OUTBOUND_PORT, INBOUND_PORT] {
        for family in [Family::V4, Family::V6] {
            let side = Side {
                port,
                family,
                is_transparent: mode == Mode::Tproxy && port == INBOUND_PORT,
            };
            let listener = side.listen().with_context(|| format!("port {port}"))?;
            threads.push(thread::spawn(move || side.serve(&listener)));
        }
    }
    for thread in threads {
        drop(thread.join());
    }
    Ok(())
}

impl Side {
    fn listen(self) -> io::Result<Socket> {
        let wildcard = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let address = SocketAddr::new(wildcard, self.port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        if self.is_transparent {
            be_transparent(&socket, self.family)?;
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket)
    }

    fn serve(self, listener: &Socket) {
        while let Ok((connection, _)) = listener.accept() {
            thread::spawn(move || {
                if let Err(error) = self.relay(&connection.into()) {
                    eprintln!("proxy on {}: {error:#}", self.port);
                }
            });
        }
    }

    fn relay(self, client: &TcpStream) -> Result<()> {
        client.set_read_timeout(Some(IO_TIMEOUT))?;
        let original =
            original_destination(client, self.family).context("no original destination")?;
        // A client that dials the proxy directly would have the proxy dial itself.
        if [OUTBOUND_PORT, INBOUND_PORT].contains(&original.port()) {
            return Ok(());
        }
        let report = ProxyReport {
            listener: self.port.to_string(),
            original: original.to_string(),
            client: client.peer_addr()?.to_string(),
        };
        // The server is unreachable: the client's connection is closed.
        let Ok(server) = self.dial(original, client.peer_addr()?.ip()) else {
            return Ok(());
        };
        forward(client, &server, &report)
    }

    fn dial(self, to: SocketAddr, client: IpAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if self.is_transparent {
            be_transparent(&socket, self.family)?;
            let mark = SocketOption::Mark(Settings::default().tproxy_mark);
            options::set(&socket, &mark)?;
            // Another connection may use the same port, to another destination.
            options::set(&socket, &SocketOption::BindAddressNoPort)?;
            socket.bind(&SocketAddr::new(client, 0).into())?;
        } else if self.port == INBOUND_PORT {
            socket.bind(&SocketAddr::new(passthrough(to), 0).into())?;
        }
        socket.connect_timeout(&to.into(), IO_TIMEOUT)?;
        socket.set_read_timeout(Some(IO_TIMEOUT))?;
        Ok(socket.into())
    }
}

/// Permits a socket to bind an address that is not the host's.
fn be_transparent(socket: &Socket, family: Family) -> io::Result<()> {
    let option = match family {
        Family::V4 => SocketOption::Transparent,
        Family::V6 => SocketOption::TransparentV6,
    };
    options::set(socket, &option)
}

/// The rules pass connections from this source address, which come from the inbound listener.
const fn passthrough(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
    }
}

/// Forwards both directions, until both sides have closed or timed out.
fn forward(client: &TcpStream, server: &TcpStream, report: &ProxyReport) -> Result<()> {
    let back = {
        let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || {
            // An error means that one side has closed.
            let _copied = io::copy(&mut from, &mut to);
            let _closed = to.shutdown(Shutdown::Write);
        })
    };
    let mut upstream = server;
    let mut lines = BufReader::new(client);
    let mut first = String::new();
    lines.by_ref().take(MAX_REQUEST).read_line(&mut first)?;
    upstream.write_all(first.as_bytes())?;
    if is_http(&first) {
        upstream.write_all(report.headers().as_bytes())?;
    }
    // The same.
    let _copied = io::copy(&mut lines, &mut upstream);
    let _closed = server.shutdown(Shutdown::Write);
    drop(back.join());
    Ok(())
}
