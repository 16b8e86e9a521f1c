//! Connections to the webhook.

use std::cell::RefCell;

use anyhow::{Context as _, Result, ensure};
use axum::{body::Bytes, http::StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use interceptor_testkit::https::{Connection, Protocol, Server};
use serde_json::Value;

const PATH: &str = "/inject?timeout=10s";
/// One response of so many is decoded.
const DECODED: usize = 100;

/// Sends reviews. HTTP/2 uses one connection; HTTP/1.1 opens one when none is idle.
pub(super) struct Sender<'a> {
    server: Server<'a>,
    protocol: Protocol,
    idle: RefCell<Vec<Connection>>,
}

impl<'a> Sender<'a> {
    /// With one connection.
    pub(super) async fn open(server: Server<'a>, protocol: Protocol) -> Result<Self> {
        let connection = server.open(protocol).await?;
        Ok(Self {
            server,
            protocol,
            idle: RefCell::new(vec![connection]),
        })
    }

    /// Sends a review, and checks that its pod is injected.
    pub(super) async fn send(&self, number: usize, body: Vec<u8>) -> Result<()> {
        let mut connection = match self.take() {
            Some(connection) => connection,
            None => self.server.open(self.protocol).await?,
        };
        let (status, body) = connection.post(PATH, "application/json", body).await?;
        if self.protocol == Protocol::Http1 {
            self.idle.borrow_mut().push(connection);
        }
        check(status, &body, number.is_multiple_of(DECODED))
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        match self.protocol {
            Protocol::Http1 => idle.pop(),
            Protocol::Http2 => idle.first()?.share(),
        }
    }
}

fn check(status: StatusCode, body: &Bytes, is_decoded: bool) -> Result<()> {
    let text = std::str::from_utf8(body)?;
    let is_injected = text.contains(r#""allowed":true"#) && text.contains(r#""patch":"#);
    ensure!(
        status == StatusCode::OK && is_injected,
        "status {status}: {text:.200}"
    );
    if !is_decoded {
        return Ok(());
    }
    let review: Value = serde_json::from_str(text)?;
    let patch = review["response"]["patch"].as_str().context("no patch")?;
    let patch = String::from_utf8(STANDARD.decode(patch)?)?;
    ensure!(patch.contains("istio-proxy"), "no proxy in {patch:.200}");
    Ok(())
}
