//! The webhook's own certificate authority: a CA and certificates that it signs.
//!
//! Nothing here does I/O; the caller supplies the time and stores the results.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    pem::Pem,
};

const DAY: Duration = Duration::from_hours(24);
/// Validity of a CA.
const CA_VALIDITY: Duration = DAY.saturating_mul(3650);
/// Validity of a server's certificate.
const SERVER_VALIDITY: Duration = DAY.saturating_mul(90);
/// The validity starts in the past: the clocks of a cluster differ.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// How long a CA is published before it signs: API servers read a changed `caBundle` within seconds.
const PUBLICATION: Duration = Duration::from_secs(10);

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyedCertificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A new CA.
pub(super) fn create_ca(now: SystemTime) -> Result<KeyedCertificate> {
    let mut params = params("interceptor-webhook-ca", now, CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("cannot generate the CA's key")?;
    let certificate = params.self_signed(&key).context("cannot sign the CA")?;
    Ok(KeyedCertificate {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

/// A new server certificate for `names`, signed by `ca`.
pub(super) fn issue(
    ca: &KeyedCertificate,
    names: &[String],
    now: SystemTime,
) -> Result<KeyedCertificate> {
    let ca_key = KeyPair::from_pem(&ca.key).context("the CA's key is not valid PEM")?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, ca_key)
        .context("the CA's certificate is not valid PEM")?;
    let mut params = params("interceptor-webhook", now, SERVER_VALIDITY);
    params.subject_alt_names = names
        .iter()
        .map(|name| Ok(rcgen::SanType::DnsName(name.clone().try_into()?)))
        .collect::<Result<_>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context("cannot generate the server's key")?;
    let certificate = params
        .signed_by(&key, &issuer)
        .context("cannot sign the server's certificate")?;
    Ok(KeyedCertificate {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn params(name: &str, now: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
    params
}

/// Whether two thirds of the validity of the first certificate in `pem` have passed, or it cannot
/// be read.
pub(super) fn is_due(pem: &str, now: SystemTime) -> bool {
    with_first(pem, |certificate| {
        let (start, end) = validity(certificate);
        seconds(now) >= start + (end - start) / 3 * 2
    })
    .unwrap_or(true)
}

/// Whether `key` is that of the first CA in `bundle`, so that it can sign.
pub(super) fn can_sign(bundle: &str, key: &str) -> bool {
    let Ok(key) = KeyPair::from_pem(key) else {
        return false;
    };
    let is_its = |ca: &X509Certificate<'_>| ca.public_key().raw == key.subject_public_key_info();
    with_first(bundle, is_its).unwrap_or(false)
}

/// Whether the first CA in `bundle` was created so recently that API servers may not trust it yet.
pub(super) fn is_new(bundle: &str, now: SystemTime) -> bool {
    let start = with_first(bundle, |ca| validity(ca).0);
    start.is_some_and(|start| seconds(now - CLOCK_SKEW - PUBLICATION) < start)
}

/// Whether the first certificate in `pem` is for these names.
pub(super) fn is_for(pem: &str, names: &[String]) -> bool {
    with_first(pem, |certificate| {
        let Ok(Some(extension)) = certificate.subject_alternative_name() else {
            return false;
        };
        let found = &extension.value.general_names;
        let is_named = |name: &String| found.contains(&GeneralName::DNSName(name));
        found.len() == names.len() && names.iter().all(is_named)
    })
    .unwrap_or(false)
}

/// Whether the first CA in `bundle` has signed the first certificate in `pem`, by the key
/// identifiers in both.
pub(super) fn is_signed_by(pem: &str, bundle: &str) -> bool {
    let signer = with_first(pem, |certificate| {
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            })
    });
    let ca = with_first(bundle, |certificate| {
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    });
    matches!((signer.flatten(), ca.flatten()), (Some(signer), Some(ca)) if signer == ca)
}

/// The first certificate of `bundle`, in PEM.
pub(super) fn first(bundle: &str) -> Result<String> {
    let end = bundle
        .find(PEM_END)
        .context("no certificate in the bundle")?;
    Ok(bundle[..end + PEM_END.len()].to_owned() + "\n")
}

/// The certificates of `bundle` that have not expired.
pub(super) fn without_expired(bundle: &str, now: SystemTime) -> String {
    let certificates = bundle.split_inclusive(PEM_END);
    certificates
        .filter(|pem| {
            with_first(pem, |certificate| validity(certificate).1 > seconds(now)).unwrap_or(false)
        })
        .map(|pem| pem.trim_start().to_owned() + "\n")
        .collect()
}

const PEM_END: &str = "-----END CERTIFICATE-----";

/// The result of `read` for the first certificate in `pem`, if it can be parsed.
fn with_first<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    pem.parse_x509().ok().map(|certificate| read(&certificate))
}

/// Start and end, in seconds since 1970.
fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    )
}

/// Since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::identity::Certificate;

    #[test]
    fn a_certificate_is_due_after_two_thirds_of_its_validity() {
        let now = SystemTime::now();
        let ca = create_ca(now).unwrap();
        let server = issue(&ca, &["a.b.svc".to_owned()], now).unwrap();
        assert!(!is_due(&server.certificate, now));
        assert!(!is_due(&server.certificate, now + 59 * DAY));
        assert!(is_due(&server.certificate, now + 61 * DAY));
        assert!(!is_due(&ca.certificate, now + 2400 * DAY));
        assert!(is_due(&ca.certificate, now + 2500 * DAY));
        assert!(is_due("", now));
        assert!(is_due(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            now
        ));
    }

    #[test]
    fn a_ca_is_new_for_ten_seconds() {
        let now = SystemTime::now();
        let ca = create_ca(now).unwrap().certificate;
        assert!(is_new(&ca, now));
        assert!(is_new(&ca, now + Duration::from_secs(8)));
        assert!(!is_new(&ca, now + Duration::from_secs(12)));
        assert!(!is_new("", now));
    }

    #[test]
    fn only_a_cas_own_key_can_sign() {
        let now = SystemTime::now();
        let [ca, other] = [create_ca(now).unwrap(), create_ca(now).unwrap()];
        assert!(can_sign(&ca.certificate, &ca.key));
        let bundle = other.certificate + &ca.certificate;
        for (bundle, key) in [
            (&bundle, &*ca.key),
            (&ca.certificate, "x"),
            (&ca.key, &ca.key),
        ] {
            assert!(!can_sign(bundle, key), "{bundle} {key}");
        }
    }

    #[test]
    fn a_key_must_belong_to_its_certificate() {
        let now = SystemTime::now();
        let ca = create_ca(now).unwrap();
        let names = ["a.b.svc".to_owned()];
        let [one, other] = [
            issue(&ca, &names, now).unwrap(),
            issue(&ca, &names, now).unwrap(),
        ];
        let parse = |certificate: &str, key: &str| {
            Certificate::parse(certificate.as_bytes(), key.as_bytes())
        };
        let parsed = parse(&one.certificate, &one.key).unwrap();
        let validity = parsed.not_after.duration_since(now).unwrap();
        assert!(validity > 89 * DAY && validity <= 90 * DAY, "{validity:?}");
        parse(&one.certificate, &other.key).unwrap_err();
        parse("", &one.key).unwrap_err();
        parse(&one.certificate, "").unwrap_err();
    }
}
