//! Requests over TLS, as the API server sends them to webhooks: HTTP/2 on one connection, or HTTP/1.1
//! with one request at a time.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{
    body::{Body, Bytes, to_bytes},
    http::{
        Request, StatusCode,
        header::{CONTENT_TYPE, HOST},
    },
};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const MAX_RESPONSE: usize = 3 << 20;

/// Where to send requests, and what to trust.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// The address.
    pub address: SocketAddr,
    /// The name that its certificate must have.
    pub name: &'a str,
    /// The CAs that may have signed it, in PEM.
    pub bundle: &'a [u8],
}

/// The version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time.
    Http1,
    /// Any number of requests at a time.
    Http2,
}

impl Protocol {
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

impl Server<'_> {
    /// Sends a POST request on a connection of its own, and returns the status and the body of its
    /// response.
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Result<(StatusCode, Bytes)> {
        let mut connection = self.open(Protocol::Http2).await?;
        connection.post(path, content_type, body).await
    }

    /// Opens a connection for requests.
    pub async fn open(&self, protocol: Protocol) -> Result<Connection> {
        let io = TokioIo::new(self.connect(protocol).await?);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::handshake(io).await?;
                tokio::spawn(driver);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(driver);
                Sender::Http2(sender)
            }
        };
        Ok(Connection {
            sender,
            host: self.name.to_owned(),
        })
    }

    /// Opens a connection, and sends nothing.
    pub async fn connect(&self, protocol: Protocol) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.bundle) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.to_owned())?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.context("x509")
    }
}

/// An open connection. It is closed when it is dropped, with all that share it.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    host: String,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// The same connection, for a concurrent request. With HTTP/1.1 there is none.
    #[must_use]
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                host: self.host.clone(),
            }),
        }
    }

    /// Sends a POST request, and returns the status and the body of its response.
    pub async fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::post(self.target(path)).header(CONTENT_TYPE, content_type);
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let request = request.header(HOST, &self.host);
                sender.send_request(request.body(body.into())?).await
            }
            Sender::Http2(sender) => sender.send_request(request.body(body.into())?).await,
        };
        let response = response.context("cannot send the request")?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MAX_RESPONSE).await?;
        Ok((status, body))
    }

    fn target(&self, path: &str) -> String {
        match self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => format!("https://{}{path}", self.host),
        }
    }
}
