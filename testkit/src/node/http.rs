//! HTTP requests from a network namespace.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// The response to a GET request from the network namespace at `netns`: status and body.
pub(super) fn get(
    netns: &Path,
    server: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<(u16, String)> {
    let request = || -> Result<String> {
        let stream = TcpStream::connect_timeout(&server, limit)?;
        stream.set_read_timeout(Some(limit))?;
        exchange(stream, &server.to_string(), path)
    };
    parse(&Netns::enter_at(netns, request)?)
}

/// The same from a server that listens at `socket`.
pub(super) fn get_at(socket: &Path, path: &str, limit: Duration) -> Result<(u16, String)> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    parse(&exchange(stream, "interceptor", path)?)
}

fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

fn parse(response: &str) -> Result<(u16, String)> {
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("not an HTTP response")?;
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}
