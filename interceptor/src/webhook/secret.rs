//! The Secret with the webhook's CA and certificate. All replicas of the webhook read and renew it;
//! the first to write wins, and the others use what it wrote.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams, core::Status};
use tracing::warn;

use super::{
    authority::{self, KeyedCertificate},
    events::{self, Cause},
    identity::Certificate,
};
use crate::api_server::described;

const BUNDLE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How many times a write is attempted that another replica preceded.
const ATTEMPTS: usize = 5;

/// What the Secret contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// The certificates of all CAs that may have signed a certificate in use, the newest first.
    pub(super) bundle: String,
    /// The key of the first of them.
    pub(super) ca_key: String,
    /// The server's.
    pub(super) server: KeyedCertificate,
}

impl Contents {
    /// A CA and a certificate, both new.
    fn new(names: &[String], now: SystemTime) -> Result<Self> {
        let ca = authority::create_ca(now)?;
        Ok(Self {
            server: authority::issue(&ca, names, now)?,
            bundle: ca.certificate,
            ca_key: ca.key,
        })
    }

    /// The same with a new CA, if the CA is due or cannot sign. The server's certificate is not
    /// changed.
    fn with_ca(&self, now: SystemTime) -> Result<Option<Self>> {
        let is_due = authority::is_due(&self.bundle, now);
        if !is_due && authority::can_sign(&self.bundle, &self.ca_key) {
            return Ok(None);
        }
        let ca = authority::create_ca(now)?;
        Ok(Some(Self {
            bundle: ca.certificate + &authority::without_expired(&self.bundle, now),
            ca_key: ca.key,
            server: self.server.clone(),
        }))
    }

    /// The server's certificate and its key, if both can be read and belong together.
    pub(super) fn certificate(&self) -> Result<Certificate> {
        let server = &self.server;
        Certificate::parse(server.certificate.as_bytes(), server.key.as_bytes())
    }

    /// The same with a new server certificate, if the present one is due, is for other names, is
    /// signed by an earlier CA, or cannot be used.
    fn with_certificate(&self, names: &[String], now: SystemTime) -> Result<Option<Self>> {
        let certificate = &self.server.certificate;
        let is_current = !authority::is_due(certificate, now)
            && authority::is_for(certificate, names)
            && authority::is_signed_by(certificate, &self.bundle)
            && self.certificate().is_ok();
        if is_current {
            return Ok(None);
        }
        let ca = KeyedCertificate {
            certificate: authority::first(&self.bundle)?,
            key: self.ca_key.clone(),
        };
        Ok(Some(Self {
            server: authority::issue(&ca, names, now)?,
            ..self.clone()
        }))
    }

    /// Fails for a Secret that another program has created: it has no key of a CA. Of our own, what is
    /// missing or is no text is replaced, as what cannot be parsed.
    fn of(secret: &Secret) -> Result<Self> {
        let data = secret.data.as_ref();
        let value = |key: &str| data.and_then(|data| data.get(key));
        let text = |key: &str| {
            let value = value(key).map(|value| value.0.clone()).unwrap_or_default();
            String::from_utf8(value).unwrap_or_default()
        };
        ensure!(value(CA_KEY).is_some(), "the Secret has no key {CA_KEY}");
        Ok(Self {
            bundle: text(BUNDLE),
            ca_key: text(CA_KEY),
            server: KeyedCertificate {
                certificate: text(CERTIFICATE),
                key: text(KEY),
            },
        })
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let Self {
            bundle,
            ca_key,
            server,
        } = self;
        [
            (BUNDLE, bundle),
            (CA_KEY, ca_key),
            (CERTIFICATE, &server.certificate),
            (KEY, &server.key),
        ]
        .map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes())))
        .into()
    }
}

/// The Secret in the API server.
pub(super) struct SecretStore {
    client: Client,
    api: Api<Secret>,
    namespace: String,
    name: String,
}

impl SecretStore {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The contents, with a CA that is not due. Created if there are none.
    pub(super) async fn with_ca(&self, names: &[String], now: SystemTime) -> Result<Contents> {
        self.change(|found| match found {
            None => Contents::new(names, now).map(Some),
            Some(found) => found.with_ca(now),
        })
        .await
    }

    /// The contents, with a server certificate that is not due.
    pub(super) async fn with_certificate(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<Contents> {
        self.change(|found| match found {
            None => Contents::new(names, now).map(Some),
            Some(found) => found.with_certificate(names, now),
        })
        .await
    }

    /// Stores what `change` makes of the contents, if it makes anything of them.
    async fn change(
        &self,
        change: impl Fn(Option<&Contents>) -> Result<Option<Contents>>,
    ) -> Result<Contents> {
        let shown = format!("Secret {}/{}", self.namespace, self.name);
        for _ in 0..ATTEMPTS {
            let secret = self.api.get_opt(&self.name).await.map_err(described);
            let secret = secret.with_context(|| format!("cannot get the {shown}"))?;
            let found = secret.as_ref().map(Contents::of).transpose();
            let found = found.with_context(|| {
                format!("the {shown} is not one of this webhook: delete it, or set --tls-secret")
            })?;
            let Some(changed) = change(found.as_ref())? else {
                return found.context("a Secret that is not there needs no change");
            };
            match self.write(secret, &changed).await {
                Ok(()) => return Ok(changed),
                // Another replica was first.
                Err(kube::Error::Api(status)) if is_conflict(&status) => {}
                Err(error) => {
                    return Err(described(error).context(format!("cannot write the {shown}")));
                }
            }
        }
        bail!("the {shown} was changed concurrently {ATTEMPTS} times")
    }

    /// Reports in the log and by an Event that the server's certificate was replaced.
    pub(super) async fn report_replacement(&self, problem: &anyhow::Error) {
        let note = format!("the server's certificate was replaced: {problem:#}");
        warn!("Secret {}/{}: {note}", self.namespace, self.name);
        let secret = self.api.get_opt(&self.name).await.ok().flatten();
        let uid = secret.and_then(|secret| secret.metadata.uid);
        let about = events::object("Secret", &self.namespace, &self.name, uid.as_deref());
        events::warn(self.client.clone(), about, Cause::UnusableCertificate, note).await;
    }

    async fn write(&self, secret: Option<Secret>, contents: &Contents) -> kube::Result<()> {
        let parameters = PostParams::default();
        let data = Some(contents.data());
        if let Some(secret) = secret {
            // With the resourceVersion that was read.
            let secret = Secret { data, ..secret };
            self.api.replace(&self.name, &parameters, &secret).await?;
            return Ok(());
        }
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            ..ObjectMeta::default()
        };
        let secret = Secret {
            metadata,
            data,
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        self.api.create(&parameters, &secret).await?;
        Ok(())
    }
}

/// 409: the object exists already, or has another version than the one that was read.
fn is_conflict(status: &Status) -> bool {
    status.code == 409
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn names() -> Vec<String> {
        vec!["w.ns.svc".to_owned()]
    }

    #[test]
    fn a_certificate_is_renewed_by_the_same_ca() {
        let now = SystemTime::now();
        let contents = Contents::new(&names(), now).unwrap();
        assert_eq!(contents.with_certificate(&names(), now).unwrap(), None);
        let later = now + 61 * DAY;
        assert_eq!(contents.with_ca(later).unwrap(), None);
        let renewed = contents.with_certificate(&names(), later).unwrap().unwrap();
        assert_eq!(renewed.bundle, contents.bundle);
        assert_ne!(renewed.server, contents.server);
        assert_eq!(renewed.with_certificate(&names(), later).unwrap(), None);
    }

    #[test]
    fn an_unusable_secret_of_ours_is_replaced() {
        let now = SystemTime::now();
        let contents = Contents::new(&names(), now).unwrap();
        let other = Contents::new(&names(), now).unwrap();
        let damaged = |damage: fn(&mut Contents, &Contents)| {
            let mut damaged = contents.clone();
            damage(&mut damaged, &other);
            let with_ca = damaged.with_ca(now).unwrap().unwrap_or(damaged);
            let whole = with_ca.with_certificate(&names(), now).unwrap();
            let whole = whole.expect("another certificate");
            whole.certificate().unwrap();
            assert_eq!(whole.with_ca(now).unwrap(), None);
            assert_eq!(whole.with_certificate(&names(), now).unwrap(), None);
            whole
        };
        let kept: [fn(&mut Contents, &Contents); 3] = [
            |damaged, _| damaged.server.certificate = "x".to_owned(),
            |damaged, _| damaged.server.key.clear(),
            |damaged, other| damaged.server.key.clone_from(&other.server.key),
        ];
        for damage in kept {
            assert_eq!(damaged(damage).bundle, contents.bundle);
        }
        let renewed: [fn(&mut Contents, &Contents); 3] = [
            |damaged, _| damaged.bundle.clear(),
            |damaged, _| damaged.ca_key = "x".to_owned(),
            |damaged, other| damaged.ca_key.clone_from(&other.ca_key),
        ];
        for damage in renewed {
            assert_ne!(damaged(damage).bundle, contents.bundle);
        }
    }

    #[test]
    fn a_secret_of_another_program_is_kept() {
        let now = SystemTime::now();
        let mut data = Contents::new(&names(), now).unwrap().data();
        let secret = |data: &BTreeMap<String, ByteString>| Secret {
            data: Some(data.clone()),
            ..Secret::default()
        };
        data.insert(CERTIFICATE.to_owned(), ByteString(vec![0xff]));
        data.remove(BUNDLE);
        let contents = Contents::of(&secret(&data)).unwrap();
        assert_eq!((&*contents.bundle, &*contents.server.certificate), ("", ""));
        data.remove(CA_KEY);
        let error = Contents::of(&secret(&data)).unwrap_err();
        assert!(error.to_string().contains("no key ca.key"), "{error}");
    }

    #[test]
    fn other_names_need_another_certificate() {
        let now = SystemTime::now();
        let contents = Contents::new(&names(), now).unwrap();
        let other = vec!["other.ns.svc".to_owned()];
        assert!(contents.with_certificate(&other, now).unwrap().is_some());
    }

    #[test]
    fn a_new_ca_is_published_before_it_signs() {
        let now = SystemTime::now();
        let old = Contents::new(&names(), now).unwrap();
        let later = now + 2500 * DAY;
        let published = old.with_ca(later).unwrap().unwrap();
        // Both CAs are trusted, and the old certificate is in use.
        assert!(published.bundle.ends_with(&old.bundle));
        assert_ne!(published.bundle, old.bundle);
        assert_eq!(published.server, old.server);
        let renewed = published
            .with_certificate(&names(), later)
            .unwrap()
            .unwrap();
        assert!(authority::is_signed_by(
            &renewed.server.certificate,
            &published.bundle
        ));
        // The old CA is removed with the next one, when it has expired.
        let end = later + 3000 * DAY;
        let next = renewed.with_ca(end).unwrap().unwrap();
        assert!(!next.bundle.contains(&old.bundle));
    }
}
