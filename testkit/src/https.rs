//! Requests over TLS and HTTP/2, as the API server sends them to webhooks.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Request, StatusCode, header::CONTENT_TYPE},
};
use hyper::client::conn::http2;
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

impl Server<'_> {
    /// Sends a POST request, and returns the status and the body of its response.
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Result<(StatusCode, Bytes)> {
        let stream = self.connect().await?;
        let request = Request::post(format!("https://{}{path}", self.name))
            .header(CONTENT_TYPE, content_type)
            .body(body.into())?;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await;
        let response = response.context("cannot send the request")?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MAX_RESPONSE).await;
        driver.abort();
        Ok((status, body?))
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.bundle) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(self.name.to_owned())?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.context("x509")
    }
}
