//! Keeps the certificate, its publication and the readiness current.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::{
    certificates::Source,
    health::{Health, Part},
    identity::{Identity, provider},
    metrics::Metrics,
};

/// Interval at which certificate and `caBundle` are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The same after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the webhook's connection to itself.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the certificate, its publication and the readiness current.
pub(super) struct Maintenance {
    pub(super) source: Source,
    /// The name that the certificate must be valid for.
    pub(super) server_name: String,
    /// Where the webhook reaches itself.
    pub(super) address: SocketAddr,
    pub(super) identity: Identity,
    pub(super) metrics: Metrics,
    pub(super) health: Health,
}

impl Maintenance {
    #[expect(
        clippy::infinite_loop,
        reason = "the caller drops the future at SIGTERM"
    )]
    pub(super) async fn run(&self) {
        let mut last = None;
        loop {
            let checked = self.check().await;
            let problem = checked.err().map(|error| format!("{error:#}"));
            if let Some(problem) = problem.as_ref().filter(|_| problem != last) {
                warn!("not ready, retrying: {problem}");
            }
            self.health.set(Part::Certificate, problem.clone());
            let interval = match problem {
                None => CHECK_INTERVAL,
                Some(_) => RETRY_INTERVAL,
            };
            last = problem;
            sleep(interval).await;
        }
    }

    async fn check(&self) -> Result<()> {
        let bundle = self
            .source
            .refresh(&self.identity, SystemTime::now())
            .await?;
        let certificate = self
            .identity
            .current()
            .context("no certificate is loaded")?;
        let since = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
        let expiry = since.unwrap_or_default().as_secs();
        self.metrics
            .expires(i64::try_from(expiry).unwrap_or(i64::MAX));
        anyhow::ensure!(
            certificate.not_after > SystemTime::now(),
            "the certificate has expired"
        );
        let Some(bundle) = bundle else {
            return Ok(());
        };
        let tested = timeout(SELF_TEST_TIMEOUT, self.connect(&bundle)).await;
        tested
            .context("no response within its timeout")
            .and_then(|tested| tested)
            .context("the webhook cannot reach itself over TLS")
    }

    /// Connects as the API server does: with the CA that is published.
    async fn connect(&self, bundle: &str) -> Result<()> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.server_name.clone())?;
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        Ok(())
    }
}

/// `address`, or localhost if it is unspecified.
pub(super) fn loopback(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    address
}
