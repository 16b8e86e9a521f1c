//! Servers that say who they are and what they see of whoever connects.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
};

use socket2::{Socket, Type};

use super::{
    protocol::{Handle, Introduction, Level},
    sockets,
};

/// The listeners that are served, and the connections that have come in.
#[derive(Default)]
pub(super) struct Identity {
    listeners: Vec<(Handle, Socket)>,
    connections: Vec<Socket>,
}

impl Identity {
    /// Serves a listening socket, or one that takes datagrams, from now on.
    pub(super) fn add(&mut self, handle: Handle, listener: Socket) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listeners.push((handle, listener));
        Ok(())
    }

    /// Closes a listener. False if it is not served here. Connections through it go on.
    pub(super) fn remove(&mut self, handle: Handle) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|(other, _)| *other != handle);
        self.listeners.len() < before
    }

    /// What to wait for: listeners, then connections.
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
            if *ready && let Ok(connection) = attend(listener, name) {
                self.connections.extend(connection);
            }
        }
    }
}

/// Sends back what has come in. False when the connection is over.
fn echo(connection: &mut Socket) -> bool {
    let mut buffer = [0; 4096];
    match connection.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(length) => connection.write_all(&buffer[..length]).is_ok(),
    }
}

/// Tells who is there what is seen of it, and answers with the connection, if it is one. What was to
/// be seen is lost with a client that is gone; nobody is left to be told.
fn attend(listener: &Socket, name: &str) -> io::Result<Option<Socket>> {
    let port = listener.local_addr()?.as_socket().map_or(0, |at| at.port());
    let who = format!("{name}:{port}");
    if listener.r#type()? == Type::DGRAM {
        answer(listener, who)?;
        return Ok(None);
    }
    let (mut connection, _) = listener.accept()?;
    let line = introduce(who, &connection, sockets::peer_name(&connection))?;
    connection.write_all(line.as_bytes())?;
    Ok(Some(connection))
}

/// Answers a datagram.
fn answer(socket: &Socket, who: String) -> io::Result<()> {
    let (_, peer) = sockets::receive_from(socket)?;
    let line = introduce(who, socket, Ok(peer))?;
    socket.send_to(line.as_bytes(), &peer.into())?;
    Ok(())
}

fn introduce(who: String, socket: &Socket, peer: io::Result<SocketAddr>) -> io::Result<String> {
    let introduction = Introduction {
        who,
        peer: text(peer),
        local: text(sockets::local_name(socket)),
        original_v4: text(sockets::original_destination(socket, Level::Ip)),
        original_v6: text(sockets::original_destination(socket, Level::Ipv6)),
    };
    Ok(serde_json::to_string(&introduction)? + "\n")
}

fn text(answer: io::Result<impl ToString>) -> String {
    match answer {
        Ok(answer) => answer.to_string(),
        Err(error) => sockets::errno_name(&error),
    }
}
