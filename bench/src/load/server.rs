//! The accepting side: the proxy, with one thread and one `epoll`. As a proxy does, it reads the
//! original destination of every connection.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use interceptor_testkit::{actor::protocol::Family, original::original_destination};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::{
    protocol::{LoadReply, LoadRequest, ServeMode},
    send_reply, stay, used,
};

const BACKLOG: i32 = 4096;
const STDIN: u64 = 0;
const BUFFER: usize = 1 << 16;
const HTTP: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Serves `ports` on all addresses, and handles requests from stdin until that is closed.
pub(super) fn run(ports: &[u16]) -> Result<()> {
    let mut server = Server::new()?;
    for port in ports {
        server
            .listen(*port)
            .with_context(|| format!("port {port}"))?;
    }
    send_reply(&LoadReply::Done)?;
    while server.turn()? {}
    Ok(())
}

struct Server {
    epoll: Epoll,
    /// The sockets by their descriptors' numbers.
    ends: Vec<Option<End>>,
    buffer: Vec<u8>,
}

enum End {
    Listener { socket: Socket, port: u16 },
    Connection(Connection),
}

struct Connection {
    socket: Socket,
    port: u16,
    original: Option<SocketAddr>,
    serve_mode: Option<ServeMode>,
}

impl Server {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(
            io::stdin().as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, STDIN),
        )?;
        Ok(Self {
            epoll,
            ends: Vec::new(),
            buffer: vec![0; BUFFER],
        })
    }

    fn listen(&mut self, port: u16) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        self.add(End::Listener { socket, port })
    }

    fn add(&mut self, end: End) -> io::Result<()> {
        let number = end.socket().as_raw_fd().unsigned_abs() as usize;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(end.socket(), event)?;
        if self.ends.len() <= number {
            self.ends.resize_with(number + 1, || None);
        }
        self.ends[number] = Some(end);
        Ok(())
    }

    /// Waits for events and handles them. False at the end of stdin.
    fn turn(&mut self) -> Result<bool> {
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => return Ok(true),
            count => count?,
        };
        for event in &events[..count] {
            if event.data() == STDIN {
                if !handle_request()? {
                    return Ok(false);
                }
            } else {
                self.serve(usize::try_from(event.data())?);
            }
        }
        Ok(true)
    }

    fn serve(&mut self, number: usize) {
        let is_over = match self.ends.get_mut(number).and_then(Option::as_mut) {
            Some(End::Listener { .. }) => return self.accept(number),
            // An error means that the client has closed.
            Some(End::Connection(connection)) => {
                !connection.serve(&mut self.buffer).unwrap_or(false)
            }
            None => false,
        };
        if is_over {
            self.ends[number] = None;
        }
    }

    fn accept(&mut self, number: usize) {
        while let Some(Some(End::Listener { socket, port })) = self.ends.get(number)
            && let Ok((socket, _)) = socket.accept()
        {
            let connection = Connection {
                original: original_destination(&socket, Family::V4).ok(),
                socket,
                port: *port,
                serve_mode: None,
            };
            // A connection that cannot be added to the epoll is closed.
            let _watched = self.add(End::Connection(connection));
        }
    }
}

impl End {
    const fn socket(&self) -> &Socket {
        match self {
            Self::Listener { socket, .. } => socket,
            Self::Connection(connection) => &connection.socket,
        }
    }
}

impl Connection {
    /// Handles received data. False when the connection is closed.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let length = self.socket.read(buffer)?;
        let mut data = &buffer[..length];
        let serve_mode = match (self.serve_mode, data.split_first()) {
            (_, None) => return Ok(false),
            (Some(serve_mode), _) => serve_mode,
            (None, Some((first, rest))) => {
                let serve_mode = ServeMode::from_byte(*first).ok_or(io::ErrorKind::InvalidData)?;
                self.serve_mode = Some(serve_mode);
                data = rest;
                serve_mode
            }
        };
        match serve_mode {
            ServeMode::Identify => self.introduce()?,
            ServeMode::Echo => self.socket.write_all(data)?,
            ServeMode::Http if data.ends_with(b"\r\n\r\n") => self.socket.write_all(HTTP)?,
            ServeMode::Discard | ServeMode::Http => {}
        }
        Ok(true)
    }

    fn introduce(&mut self) -> io::Result<()> {
        let original = self
            .original
            .map_or_else(|| "-".to_owned(), |original| original.to_string());
        writeln!(self.socket, "{} {original}", self.port)
    }
}

/// Reads a request and replies to it. False at the end.
fn handle_request() -> Result<bool> {
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Ok(false);
    }
    send_reply(&match serde_json::from_str(&line)? {
        LoadRequest::Usage => used()?,
        LoadRequest::Stay(cpu) => stay(cpu)?,
        other => LoadReply::Failed(format!("a server cannot: {other:?}")),
    })?;
    Ok(true)
}
