//! One connection from outside the pod through Envoy to a server in the pod, byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::sidecar::Scene;

/// Time limit of a side that waits in vain.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What one side sends, and what the other one must receive.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) sent: &'a [u8],
    pub(super) received: &'a [u8],
}

/// A message that is not changed.
pub(super) const fn same(bytes: &[u8]) -> Message<'_> {
    Message {
        sent: bytes,
        received: bytes,
    }
}

/// The server receives each request, then responds, in turn, on one connection.
pub(super) fn exchange(scene: &Scene, turns: &[[Message<'_>; 2]]) -> Result<()> {
    let listener = listen(scene)?;
    let mut client = connect(scene, &listener)?;
    thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            let mut server = accept(&listener)?;
            for [request, response] in turns {
                receive(&mut server, request.received).context("the server receives")?;
                server.write_all(response.sent)?;
            }
            Ok(())
        });
        for [request, response] in turns {
            client.write_all(request.sent)?;
            receive(&mut client, response.received).context("the client receives")?;
        }
        server.join().unwrap()
    })
}

/// A server in the pod, on a port that no other one had. Otherwise Envoy could send a request on a
/// connection that it keeps to an earlier server, and of which it has not read the end yet.
pub(super) fn listen(scene: &Scene) -> Result<TcpListener> {
    scene.pod().enter(|| Ok(TcpListener::bind("10.1.0.2:0")?))
}

/// A connection from outside to this server.
pub(super) fn connect(scene: &Scene, server: &TcpListener) -> Result<TcpStream> {
    let address = server.local_addr()?;
    let client = scene.outside().enter(|| Ok(TcpStream::connect(address)?))?;
    client.set_read_timeout(Some(TIMEOUT))?;
    Ok(client)
}

/// Accepts a connection, if one arrives in time.
pub(super) fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    let server = loop {
        match listener.accept() {
            Ok((server, _)) => break server,
            Err(error) if start.elapsed() > TIMEOUT => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    };
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(TIMEOUT))?;
    Ok(server)
}

/// Receives as many bytes as are expected, and compares them.
pub(super) fn receive(stream: &mut TcpStream, expected: &[u8]) -> Result<()> {
    let mut received = vec![0; expected.len()];
    let mut length = 0;
    while length < expected.len() {
        match stream.read(&mut received[length..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => length += read,
        }
    }
    ensure!(
        received[..length] == *expected,
        "{:?}\n{:?} is expected",
        shown(&received[..length]),
        shown(expected)
    );
    Ok(())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// The response of `address` to `request`, which closes the connection. Of an error, only the head is
/// read: Envoy closes such a connection a second later.
pub(super) fn respond(scene: &Scene, address: &str, request: &str) -> Result<String> {
    let client = scene.outside().enter(|| Ok(TcpStream::connect(address)?));
    let Ok(mut client) = client else {
        return Ok(String::new());
    };
    client.set_read_timeout(Some(TIMEOUT))?;
    client.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    let mut part = [0; 4096];
    // A reset ends the response too.
    while let Ok(read @ 1..) = client.read(&mut part) {
        response.extend_from_slice(&part[..read]);
        if response.starts_with(b"HTTP/1.1 4") && response.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}
