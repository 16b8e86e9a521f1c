//! Servers that report their own name and each client's addresses.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd},
};

use socket2::{Socket, Type};

use super::{
    datagrams,
    protocol::{Handle, IdentityReply, Introduction, Level},
    sockets,
};

/// The served listeners, UDP sockets among them, and the accepted connections.
#[derive(Default)]
pub(super) struct Identity {
    listeners: Vec<(Handle, Socket)>,
    connections: Vec<Socket>,
}

impl Identity {
    /// Serves a listening or a UDP socket from now on.
    pub(super) fn add(&mut self, handle: Handle, listener: Socket) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listeners.push((handle, listener));
        Ok(())
    }

    /// Closes a listener. False if it is not served here. Its connections stay open.
    pub(super) fn remove(&mut self, handle: Handle) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|(other, _)| *other != handle);
        self.listeners.len() < before
    }

    /// The sockets to poll: listeners, then connections.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(|(_, listener)| listener.as_fd());
        listeners.chain(self.connections.iter().map(Socket::as_fd))
    }

    /// Serves what is ready, in the order of [`Identity::fds`].
    pub(super) fn serve(&mut self, ready: &[bool], name: &str) {
        let (listeners, connections) = ready.split_at(self.listeners.len());
        let mut open = connections.iter();
        self.connections
            .retain_mut(|connection| !open.next().is_some_and(|ready| *ready) || echo(connection));
        for ((_, listener), ready) in self.listeners.iter().zip(listeners) {
            if *ready && let Ok(Some(connection)) = serve_one(listener, name) {
                self.connections.push(connection);
            }
        }
    }
}

/// Echoes the received bytes. False when the connection is closed.
fn echo(connection: &mut Socket) -> bool {
    let mut buffer = [0; 4096];
    match connection.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(length) => connection.write_all(&buffer[..length]).is_ok(),
    }
}

/// Serves a client of a socket. Returns the connection, if it is one.
fn serve_one(listener: &Socket, name: &str) -> io::Result<Option<Socket>> {
    if listener.r#type()? == Type::DGRAM {
        return reply(listener, name).map(|()| None);
    }
    introduce(listener, name).map(Some)
}

/// Replies to a datagram.
fn reply(socket: &Socket, name: &str) -> io::Result<()> {
    let query = datagrams::receive(socket, false)?;
    let reply = IdentityReply {
        server: server_name(socket, name)?,
        local: text(sockets::local_name(socket)),
        peer: query.sender.to_string(),
        query: query.data,
    };
    let reply = serde_json::to_string(&reply)?;
    socket
        .send_to(reply.as_bytes(), &query.sender.into())
        .map(drop)
}

/// Accepts a connection and reports its addresses to the client. If the client has closed, this
/// fails, and no process needs the report.
fn introduce(listener: &Socket, name: &str) -> io::Result<Socket> {
    let (mut connection, _) = listener.accept()?;
    let introduction = Introduction {
        server: server_name(listener, name)?,
        peer: text(sockets::peer_name(&connection)),
        local: text(sockets::local_name(&connection)),
        original_v4: text(sockets::original_destination(&connection, Level::Ip)),
        original_v6: text(sockets::original_destination(&connection, Level::Ipv6)),
    };
    let line = serde_json::to_string(&introduction)? + "\n";
    connection.write_all(line.as_bytes())?;
    Ok(connection)
}

fn server_name(socket: &Socket, name: &str) -> io::Result<String> {
    Ok(format!("{name}:{}", sockets::local_name(socket)?.port()))
}

fn text(reply: io::Result<impl ToString>) -> String {
    match reply {
        Ok(reply) => reply.to_string(),
        Err(error) => sockets::errno_name(&error),
    }
}
