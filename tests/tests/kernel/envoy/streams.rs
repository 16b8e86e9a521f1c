//! Bytes that the proxy does not parse: HTTP/2, protocols in which the server speaks first, and large
//! bodies.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::sidecar::SceneClient;

use super::{
    behind_both, envoy,
    exchange::{accept, connect, exchange, listen, receive, same},
};

/// The client's preface of HTTP/2, and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// 32 MiB, more than any buffer on the path.
const LARGE: usize = 32 << 20;

/// HTTP/2 without TLS (h2c), as gRPC uses it: headers, data, and trailers that end the stream.
#[test]
fn http_2_and_grpc_trailers_pass_unchanged() -> Result<()> {
    // HEADERS with END_HEADERS, DATA with END_STREAM; then HEADERS, DATA and trailers.
    let request = [
        PREFACE,
        b"\0\0\x04\x01\x04\0\0\0\x01\x83\x86\x84\x41",
        b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0",
    ]
    .concat();
    let response = [
        &b"\0\0\0\x04\0\0\0\0\0"[..],
        b"\0\0\x01\x01\x04\0\0\0\x01\x88",
        b"\0\0\x05\0\0\0\0\0\x01\0\0\0\0\0",
        b"\0\0\x0e\x01\x05\0\0\0\x01\0\x0bgrpc-status\x010",
    ]
    .concat();
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        exchange(scene, &[[same(&request), same(&response)]])
    })
}

/// As `MySQL` and SMTP servers do. The proxy connects to the server when the inspection of the client's
/// first bytes ends, after 0.2 s.
#[test]
fn a_server_may_speak_first() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        exchange(
            scene,
            &[
                [same(b""), same(b"5.7.0-mysql\0")],
                [same(b"login"), same(b"\0ok")],
            ],
        )?;
        let listener = scene
            .outside()
            .enter(|| Ok(TcpListener::bind("10.2.0.9:3306")?))?;
        thread::scope(|scope| {
            let server = scope.spawn(|| Ok(accept(&listener)?.write_all(b"220 ready\r\n")?));
            let lines = scene.lines(SceneClient::App, "10.2.0.9:3306".parse()?, "", 1)?;
            ensure!(lines == ["220 ready"], "{lines:?}");
            server.join().unwrap()
        })
    })
}

#[test]
fn a_closed_direction_leaves_the_other_open() -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        let listener = listen(scene)?;
        let mut client = connect(scene, &listener)?;
        client.write_all(b"\0question")?;
        let mut server = accept(&listener)?;
        // Envoy closes a connection whose client closes its direction before it is inspected.
        client.shutdown(Shutdown::Write)?;
        let mut question = Vec::new();
        server.read_to_end(&mut question)?;
        ensure!(question == b"\0question");
        server.write_all(b"answer")?;
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer)?;
        ensure!(answer == b"answer");
        Ok(())
    })
}

#[test]
fn large_bodies_pass_in_both_directions() -> Result<()> {
    let body = pattern();
    let head = |start: &str| format!("{start}Content-Length: {LARGE}\r\n\r\n");
    let request_head = head("POST / HTTP/1.1\r\nHost: a\r\n");
    let response_head = head("HTTP/1.1 200 OK\r\nDate: x\r\n");
    behind_both(|scene| {
        scene.start_proxy(&envoy(1)?)?;
        let listener = listen(scene)?;
        let mut client = connect(scene, &listener)?;
        thread::scope(|scope| {
            let server = scope.spawn(|| -> Result<()> {
                let mut server = accept(&listener)?;
                skip_head(&mut server)?;
                receive(&mut server, &body).context("request")?;
                server.write_all(response_head.as_bytes())?;
                Ok(server.write_all(&body)?)
            });
            client.write_all(request_head.as_bytes())?;
            client.write_all(&body)?;
            receive(&mut client, response_head.as_bytes())?;
            receive(&mut client, &body).context("response")?;
            server.join().unwrap()
        })
    })
}

/// Bytes that repeat only after a prime number.
fn pattern() -> Vec<u8> {
    (0..=250).cycle().take(LARGE).collect()
}

/// Reads the head of a request, which this Envoy extends.
fn skip_head(stream: &mut impl std::io::Read) -> Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}
