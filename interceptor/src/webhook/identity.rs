//! The server's certificate, which can be replaced while connections are served.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::parse_x509_certificate;

/// A certificate with its chain and its key.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    key: Arc<CertifiedKey>,
    /// The end of its validity.
    pub(super) not_after: SystemTime,
}

impl Certificate {
    /// Parses a PEM chain, the server's certificate first, and the PEM key of that certificate.
    pub(super) fn parse(chain: &[u8], key: &[u8]) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .context("the certificate is not valid PEM")?;
        ensure!(!chain.is_empty(), "the PEM file has no certificate");
        let not_after = not_after(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key).context("the key is not valid PEM")?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .context("the key does not belong to the certificate, or is of an unknown kind")?;
        Ok(Self {
            key: Arc::new(key),
            not_after,
        })
    }
}

/// The end of a certificate's validity.
fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime> {
    let (_, parsed) =
        parse_x509_certificate(certificate).context("the certificate is not valid X.509")?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The cryptography that kube uses too.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// The certificate in use. Copies share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity(Arc<RwLock<Option<Certificate>>>);

impl Identity {
    /// Uses `certificate` for new connections.
    pub(super) fn replace(&self, certificate: Certificate) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(certificate);
    }

    /// The certificate, if there is one yet.
    pub(super) fn current(&self) -> Option<Certificate> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().map(|certificate| certificate.key)
    }
}
