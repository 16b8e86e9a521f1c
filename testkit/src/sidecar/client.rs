//! Requests of a client, and its view of the connection.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::exchange::{PLAIN, ServerResponse};
use crate::actor::{
    Actor,
    protocol::{Family, Handle, Protocol, Reply, Request},
};

/// The maximum number of lines of a response's head.
const MAX_HEADERS: usize = 40;

/// A text, or the reason why there is none.
type TextOrError = Result<String, String>;

/// A client's view of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its local address.
    pub local: SocketAddr,
    /// Its peer address; none without a connection.
    pub peer: Option<SocketAddr>,
    /// The response, or the reason why there is none.
    pub response: Result<ServerResponse, String>,
}

/// `actor` connects to `to` and sends an HTTP request.
pub fn send_http(actor: &Actor, to: SocketAddr) -> Result<ClientView> {
    exchange(actor, to, http_request(to), http_response)
}

/// `actor` connects to `to` and sends a line that is not HTTP.
pub fn send_line(actor: &Actor, to: SocketAddr) -> Result<ClientView> {
    exchange(actor, to, format!("{PLAIN}\n"), line)
}

/// `actor` connects to `to`, sends `request` and reads lines of the response.
pub(super) fn read_lines(
    actor: &Actor,
    to: SocketAddr,
    request: &str,
    count: usize,
) -> Result<Vec<String>> {
    let (socket, connected) = connect(actor, to)?;
    ensure!(!matches!(connected, Reply::Error(_)), "{connected:?}");
    if !request.is_empty() {
        let data = request.to_owned();
        actor.call(&Request::Send { socket, data })?;
    }
    let read = |_| match actor.call(&Request::ReceiveLine { socket })? {
        Reply::Data(line) => Ok(line),
        other => bail!("{other:?}"),
    };
    let lines = (0..count).map(read).collect::<Result<_>>()?;
    actor.must(&Request::Close { socket })?;
    Ok(lines)
}

/// `actor` makes `count` connections to `to`, and then sends an HTTP request through each.
pub(super) fn send_http_at_once(
    actor: &Actor,
    to: SocketAddr,
    count: usize,
) -> Result<Vec<ClientView>> {
    let open: Vec<_> = (0..count)
        .map(|_| connect(actor, to))
        .collect::<Result<_>>()?;
    open.into_iter()
        .map(|connection| converse(actor, connection, http_request(to), http_response))
        .collect()
}

fn http_request(to: SocketAddr) -> String {
    format!("GET / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n")
}

fn exchange(
    actor: &Actor,
    to: SocketAddr,
    request: String,
    listen: impl Fn(&Actor, Handle) -> Result<TextOrError>,
) -> Result<ClientView> {
    converse(actor, connect(actor, to)?, request, listen)
}

/// A socket, and the result of connecting it.
fn connect(actor: &Actor, to: SocketAddr) -> Result<(Handle, Reply)> {
    let socket = actor.socket(Family::of(to), Protocol::Tcp)?;
    let address = to;
    let connected = actor.call(&Request::Connect { socket, address })?;
    Ok((socket, connected))
}

fn converse(
    actor: &Actor,
    (socket, connected): (Handle, Reply),
    request: String,
    listen: impl Fn(&Actor, Handle) -> Result<TextOrError>,
) -> Result<ClientView> {
    let response = if let Reply::Error(errno) = connected {
        Err(errno)
    } else {
        let data = request;
        // If the server has closed, the read fails as well.
        actor.call(&Request::Send { socket, data })?;
        listen(actor, socket)?
    };
    let view = ClientView {
        local: name(actor, &Request::LocalName { socket })?.context("no local name")?,
        peer: name(actor, &Request::PeerName { socket })?,
        response: match response {
            Ok(text) => Ok(serde_json::from_str(&text).context(text)?),
            Err(why) => Err(why),
        },
    };
    actor.must(&Request::Close { socket })?;
    Ok(view)
}

fn name(actor: &Actor, request: &Request) -> Result<Option<SocketAddr>> {
    Ok(match actor.call(request)? {
        Reply::Name(name) => Some(name),
        _ => None,
    })
}

/// The body of a response, or the reason why there is none.
fn http_response(actor: &Actor, socket: Handle) -> Result<TextOrError> {
    let status = match line(actor, socket)? {
        Ok(status) => status,
        Err(why) => return Ok(Err(why)),
    };
    for _ in 0..MAX_HEADERS {
        match line(actor, socket)? {
            Ok(_) => {}
            Err(_) if status.contains(" 200 ") => break,
            Err(_) => return Ok(Err(status)),
        }
    }
    line(actor, socket)
}

/// A line, or the reason why there is none. An empty line looks like the end of the stream.
fn line(actor: &Actor, socket: Handle) -> Result<TextOrError> {
    Ok(match actor.call(&Request::ReceiveLine { socket })? {
        Reply::Data(line) if line.is_empty() => Err("closed".to_owned()),
        Reply::Data(line) => Ok(line),
        Reply::Error(errno) => Err(errno),
        other => bail!("{other:?}"),
    })
}
