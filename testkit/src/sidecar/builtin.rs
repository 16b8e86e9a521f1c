//! A small transparent proxy: what comes in it takes to where that was going to, and tells in
//! headers what it was told. If it is to be transparent, it takes what comes from outside to the app in
//! the client's own name.

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

/// Where it takes what comes from the pod.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where it takes what comes to the pod.
pub const INBOUND_PORT: u16 = 15006;

/// How long either side may take.
const IO_TIMEOUT: Duration = Duration::from_secs(20);

/// A listener's port and family: what all its connections have in common.
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

/// Proxies, for ever.
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
        // Whoever dials us by name would have us dial ourselves.
        if [OUTBOUND_PORT, INBOUND_PORT].contains(&original.port()) {
            return Ok(());
        }
        let report = ProxyReport {
            listener: self.port.to_string(),
            original: original.to_string(),
            client: client.peer_addr()?.to_string(),
        };
        // Whoever is not there is not there: the client sees its connection closed.
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
            // Another connection may come from the same port, to elsewhere.
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

/// Lets a socket have a name that is not the host's.
fn be_transparent(socket: &Socket, family: Family) -> io::Result<()> {
    let option = match family {
        Family::V4 => SocketOption::Transparent,
        Family::V6 => SocketOption::TransparentV6,
    };
    options::set(socket, &option)
}

/// By this source address the rules know what has been through the inbound listener.
const fn passthrough(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
    }
}

/// Both ways, until both sides have ended or fallen silent.
fn forward(client: &TcpStream, server: &TcpStream, report: &ProxyReport) -> Result<()> {
    let back = {
        let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || {
            // One side gone is how it ends.
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
    // As above.
    let _copied = io::copy(&mut lines, &mut upstream);
    let _closed = server.shutdown(Shutdown::Write);
    drop(back.join());
    Ok(())
}
