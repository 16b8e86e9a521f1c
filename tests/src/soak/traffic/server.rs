//! The accepting side: one thread, one `epoll`. As the small proxy, it reads the original destination of
//! every connection.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use interceptor_testkit::{
    actor::protocol::Family, original::original_destination, sidecar::ProxyReport,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use socket2::{Domain, Socket, Type};

use super::{
    exchange::{Head, MAX_CONTENT, canonical},
    protocol::{Line, ServePlan, Via},
    worker::print,
};

const BACKLOG: i32 = 4096;
/// More than a request.
const BUFFER: usize = 2 * MAX_CONTENT;
/// Time limit of a client's reading of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until it is killed.
pub(super) fn run(plan: &ServePlan) -> Result<()> {
    let mut server = Server {
        plan,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        listeners: HashMap::new(),
        connections: HashMap::new(),
    };
    for port in &plan.ports {
        for ip in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            server.listen((ip, *port).into())?;
        }
    }
    print(&Line::Ready)?;
    server.serve()
}

struct Server<'a> {
    plan: &'a ServePlan,
    epoll: Epoll,
    listeners: HashMap<u64, Listener>,
    connections: HashMap<u64, Connection>,
}

struct Listener {
    socket: Socket,
    port: u16,
    family: Family,
}

struct Connection {
    stream: TcpStream,
    /// The report of the small proxy, or why there is none.
    own: Option<ProxyReport>,
    input: Vec<u8>,
}

impl Server<'_> {
    fn listen(&mut self, address: SocketAddr) -> Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket
            .bind(&address.into())
            .with_context(|| address.to_string())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let key = self.watch(&socket)?;
        let (port, family) = (address.port(), Family::of(address));
        let listener = Listener {
            socket,
            port,
            family,
        };
        self.listeners.insert(key, listener);
        Ok(())
    }

    fn watch(&self, socket: &(impl AsFd + AsRawFd)) -> Result<u64> {
        let key = u64::try_from(socket.as_raw_fd())?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, key);
        self.epoll.add(socket.as_fd(), event)?;
        Ok(key)
    }

    fn serve(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                result => result?,
            };
            for event in &events[..count] {
                let key = event.data();
                if self.listeners.contains_key(&key) {
                    self.accept(key)?;
                } else if !self.read(key) {
                    self.connections.remove(&key);
                }
            }
        }
    }

    /// Accepts one connection. An error is the process's own, such as too many open files.
    fn accept(&mut self, key: u64) -> Result<()> {
        let Some(listener) = self.listeners.get(&key) else {
            return Ok(());
        };
        let socket = match listener.socket.accept() {
            Ok((socket, _)) => socket,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error).context("accept"),
        };
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let own = (self.plan.via == Via::Own).then(|| listener.report(&socket));
        let key = self.watch(&socket)?;
        let connection = Connection {
            stream: socket.into(),
            own,
            input: Vec::new(),
        };
        self.connections.insert(key, connection);
        Ok(())
    }

    /// Handles input. False if the connection is over.
    fn read(&mut self, key: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&key) else {
            return true;
        };
        let mut buffer = [0; BUFFER];
        match connection.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                connection.input.extend(&buffer[..length]);
                connection.respond(&self.plan.name).is_ok()
            }
            Err(error) => is_transient(&error),
        }
    }
}

impl Listener {
    /// What the proxy knows of a connection. Errors are in the report, where they are not as expected.
    fn report(&self, socket: &Socket) -> ProxyReport {
        let original = match original_destination(socket, self.family) {
            Ok(original) => canonical(original).to_string(),
            Err(errno) => format!("{errno:?}"),
        };
        let peer = socket.peer_addr().ok().and_then(|name| name.as_socket());
        ProxyReport {
            listener: self.port.to_string(),
            original,
            client: peer.map_or_else(String::new, |peer| canonical(peer).to_string()),
        }
    }
}

impl Connection {
    /// Responds to every complete request.
    fn respond(&mut self, server: &str) -> io::Result<()> {
        while let Some((head, end)) = Head::parse(&self.input) {
            let end_of_content = end + head.length()?;
            let Some(content) = self.input.get(end..end_of_content) else {
                return Ok(());
            };
            let report = self.own.clone().or_else(|| head.report());
            let response = head.response(content, server, report.as_ref());
            self.input.drain(..end_of_content);
            self.write(&response)?;
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if is_transient(&error) && Instant::now() < deadline => {
                    let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut fds, PollTimeout::from(100_u8))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the same call may succeed later, or for another connection.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    [ConnectionAborted, Interrupted, WouldBlock].contains(&error.kind())
}
