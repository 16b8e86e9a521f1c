//! Where the certificate comes from: a Secret with our own CA, or a directory.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};

use super::{
    authority,
    identity::{Certificate, Identity},
    registration::Registration,
    secret::SecretStore,
};

/// The source of the certificate.
pub(super) enum Source {
    /// A Secret, which the replicas of the webhook share and renew.
    Own(Box<OwnAuthority>),
    /// A directory, which another program writes.
    Directory(PathBuf),
}

/// The webhook's own CA, in a Secret.
pub(super) struct OwnAuthority {
    pub(super) store: SecretStore,
    pub(super) registration: Registration,
    /// The names in the certificate.
    pub(super) names: Vec<String>,
}

impl Source {
    /// Reads the certificate into `identity`, and renews what is due. Returns the CA's
    /// certificates, in PEM, if they are known.
    pub(super) async fn refresh(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Option<String>> {
        match self {
            Self::Own(own) => own.refresh(identity, now).await.map(Some),
            Self::Directory(directory) => {
                let read = |name: &str| read(&directory.join(name));
                let certificate = Certificate::parse(&read("tls.crt")?, &read("tls.key")?);
                let problem = || format!("--tls-dir {}", directory.display());
                identity.replace(certificate.with_context(problem)?);
                Ok(None)
            }
        }
    }
}

impl OwnAuthority {
    /// Renews what is due. Returns the CA's certificates, in PEM.
    ///
    /// A new CA is published before it signs: the present certificate stays in use until the API
    /// servers have had the time to read the new CA, whichever replica created it.
    async fn refresh(&self, identity: &Identity, now: SystemTime) -> Result<String> {
        let contents = self.store.with_ca(&self.names, now).await?;
        let read = contents.certificate();
        let usable = read.as_ref().ok().filter(|certificate| {
            certificate.not_after > now
                && authority::is_for(&contents.server.certificate, &self.names)
        });
        // One that was written over the Secret's by mistake is not served: the present one stays.
        if let Some(certificate) = usable {
            identity.replace(certificate.clone());
        }
        let has_changed = self.registration.apply(&contents.bundle).await?;
        if usable.is_some() && (has_changed || authority::is_new(&contents.bundle, now)) {
            return Ok(contents.bundle);
        }
        let contents = self.store.with_certificate(&self.names, now).await?;
        identity.replace(contents.certificate()?);
        if let Err(problem) = read {
            self.store.report_replacement(&problem).await;
        }
        Ok(contents.bundle)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("--tls-dir: cannot read {}", path.display()))
}
