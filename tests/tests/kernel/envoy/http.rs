//! HTTP/1 through the built-in sidecar: what arrives is what was sent, except for what Envoy does not
//! permit to keep (docs/injection.md lists it).

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::sidecar::{Proxy, SceneClient};

use super::{
    Envoy, behind_both,
    exchange::{Message, exchange, same},
};

/// Envoy adds a date to responses without one.
const OK: &str = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi";

/// A request, and a response that has no effect on the test.
fn unchanged(request: &str) -> [Message<'_>; 2] {
    [same(request.as_bytes()), same(OK.as_bytes())]
}

fn changed<'a>(sent: &'a str, received: &'a str) -> Message<'a> {
    Message {
        sent: sent.as_bytes(),
        received: received.as_bytes(),
    }
}

/// An Envoy that adds nothing itself.
fn bare() -> Result<Proxy> {
    Ok(Proxy::Envoy(Envoy::new(1)?.without_reports()))
}

fn through_envoy(turns: &[[Message<'_>; 2]]) -> Result<()> {
    behind_both(|scene| {
        scene.start_proxy(&bare()?)?;
        for (number, turn) in turns.iter().enumerate() {
            exchange(scene, &[*turn]).with_context(|| format!("turn {number}"))?;
        }
        Ok(())
    })
}

#[test]
fn requests_arrive_as_they_were_sent() -> Result<()> {
    let many: Vec<_> = (0..300).map(|n| format!("H{n}: {n}\r\n")).collect();
    let many = many.concat();
    let large = "x".repeat(100_000);
    through_envoy(&[
        unchanged(
            "GET /a//b/../c?q=%2f&r HTTP/1.1\r\nHoSt: Shop.Example\r\nX-Mixed-CASE: v\r\n\r\n",
        ),
        unchanged("GET / HTTP/1.1\r\nHost: a\r\nX-Dup: 1\r\nX-Dup: 2\r\nunder_score: 1\r\n\r\n"),
        unchanged(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-Id: 7\r\n\r\n",
        ),
        unchanged("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"),
        unchanged("PROPFIND / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"),
        unchanged("BREW /pot HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        unchanged(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        unchanged(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: {large}\r\n\r\n"
        )),
    ])
}

#[test]
fn responses_arrive_as_they_were_sent() -> Result<()> {
    let request = same(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let large = "x".repeat(100_000);
    let responses = [
        "HTTP/1.1 503 Service Unavailable\r\nServer: mine\r\nDate: then\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: x\r\nX-Envoy-Upstream-Service-Time: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\nDate: x\r\nX-A: {large}\r\nContent-Length: 0\r\n\r\n"),
    ];
    let turns = responses.map(|response| {
        // Envoy has its own words for each status.
        let received = response.replace("103 Early Hints", "103 Unknown");
        (response, received)
    });
    let turns: Vec<_> = turns
        .iter()
        .map(|(sent, received)| [request, changed(sent, received)])
        .collect();
    through_envoy(&turns)
}

#[test]
fn trailers_of_http_1_pass() -> Result<()> {
    let chunks = "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
    );
    through_envoy(&[[same(request.as_bytes()), same(response.as_bytes())]])
}

#[test]
fn the_server_decides_whether_to_continue() -> Result<()> {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let turns = [
        [
            same(head.as_bytes()),
            same(b"HTTP/1.1 100 Continue\r\n\r\n"),
        ],
        [same(b"hi"), same(OK.as_bytes())],
    ];
    behind_both(|scene| {
        scene.start_proxy(&bare()?)?;
        exchange(scene, &turns)
    })
}

/// With what HTTP/1.1 requires: the proxy speaks it with the server.
#[test]
fn http_1_0_is_accepted() -> Result<()> {
    let request = changed(
        "GET /x HTTP/1.0\r\nX-A: b\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: localhost\r\nX-A: b\r\n\r\n",
    );
    let response = changed(
        "HTTP/1.0 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\nDate: x\r\nContent-Length: 2\r\nconnection: close\r\n\r\nhi",
    );
    through_envoy(&[[request, response]])
}

#[test]
fn upgraded_connections_pass_bytes() -> Result<()> {
    for protocol in ["websocket", "tcp", "SPDY/3.1"] {
        let upgrade = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade}X-Key: x\r\n\r\n");
        let response = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}Date: x\r\n\r\n");
        let turns = [
            [same(request.as_bytes()), same(response.as_bytes())],
            [same(b"\x81\x02up"), same(b"\x81\x04down")],
            [same(b"\0\r\n\r\n"), same(b"\xff")],
        ];
        behind_both(|scene| {
            scene.start_proxy(&bare()?)?;
            exchange(scene, &turns)
        })
        .context(protocol)?;
    }
    Ok(())
}

/// A captured HTTP proxy is one of the servers.
#[test]
fn a_tunnel_of_connect_passes_bytes() -> Result<()> {
    let turns = [
        [
            same(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"),
            same(b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\n"),
        ],
        [same(b"\x16\x03\x01"), same(b"\x16\x03\x03\0")],
    ];
    behind_both(|scene| {
        scene.start_proxy(&bare()?)?;
        exchange(scene, &turns)
    })
}

#[test]
fn outbound_requests_are_unchanged_too() -> Result<()> {
    behind_both(|scene| {
        let listener = scene
            .outside()
            .enter(|| Ok(std::net::TcpListener::bind("10.2.0.9:9000")?))?;
        scene.start_proxy(&bare()?)?;
        let request = "GET /x HTTP/1.1\r\nHOST: a\r\nX-Case: 1\r\n\r\n";
        std::thread::scope(|scope| {
            let server = scope.spawn(|| -> Result<()> {
                let mut server = super::exchange::accept(&listener)?;
                super::exchange::receive(&mut server, request.as_bytes())?;
                std::io::Write::write_all(&mut server, OK.as_bytes())?;
                Ok(())
            });
            let lines = scene.lines(SceneClient::App, "10.2.0.9:9000".parse()?, request, 3)?;
            let expected = ["HTTP/1.1 200 OK", "Date: now", "Content-Length: 2"];
            ensure!(lines == expected, "{lines:?}");
            server.join().unwrap()
        })
    })
}
