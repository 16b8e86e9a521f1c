//! Asking a server who it is, and what is seen of that on the client's side.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use super::exchange::{PLAIN, ServerResponse};
use crate::actor::{
    Actor,
    protocol::{Family, Handle, Protocol, Reply, Request},
};

/// A response has no more lines before its body.
const MAX_HEADERS: usize = 40;

/// A text, or why there is none.
type TextOrError = Result<String, String>;

/// What a client sees of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its own name.
    pub local: SocketAddr,
    /// The server's name; none if there is no connection.
    pub peer: Option<SocketAddr>,
    /// The answer, or why there is none.
    pub response: Result<ServerResponse, String>,
}

/// `actor` connects to `to` and sends a request of HTTP.
pub(super) fn send_http(actor: &Actor, to: SocketAddr) -> Result<ClientView> {
    exchange(actor, to, http_request(to), http_response)
}

/// `actor` connects to `to` and sends a line that is not HTTP.
pub(super) fn send_line(actor: &Actor, to: SocketAddr) -> Result<ClientView> {
    exchange(actor, to, format!("{PLAIN}\n"), line)
}

/// `actor` makes `count` connections to `to`, and then sends a request of HTTP through each.
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

/// A socket, and what became of connecting it.
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
        // Whoever has closed meanwhile will not answer either.
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

/// The body of a response, or why there is none.
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

/// A line, or why there is none. An empty line cannot be told from the end.
fn line(actor: &Actor, socket: Handle) -> Result<TextOrError> {
    Ok(match actor.call(&Request::ReceiveLine { socket })? {
        Reply::Data(line) if line.is_empty() => Err("closed".to_owned()),
        Reply::Data(line) => Ok(line),
        Reply::Error(errno) => Err(errno),
        other => bail!("{other:?}"),
    })
}
