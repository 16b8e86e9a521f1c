//! Certificates of any age, which the webhook finds in its Secret or in files.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::super::SERVER_NAME;

const YEAR: Duration = Duration::from_hours(365 * 24);

/// A certificate and its private key, in PEM.
pub(super) struct KeyedCertificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

pub(super) type Authority = KeyedCertificate;

impl Authority {
    /// A CA that is valid for ten years from now.
    pub(super) fn new() -> Self {
        Self::from(SystemTime::now() - Duration::from_hours(1))
    }

    /// The same, but most of the ten years have passed.
    pub(super) fn of_eight_years_ago() -> Self {
        Self::from(SystemTime::now() - 8 * YEAR)
    }

    fn from(start: SystemTime) -> Self {
        let mut params = params("test-ca", start, 10 * YEAR);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A certificate for the webhook that is not due.
    pub(super) fn issue(&self) -> KeyedCertificate {
        let key = KeyPair::from_pem(&self.key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key).unwrap();
        let start = SystemTime::now() - Duration::from_hours(1);
        let mut params = params("test", start, YEAR / 4);
        params.subject_alt_names = [
            SERVER_NAME.to_owned(),
            format!("{SERVER_NAME}.cluster.local"),
        ]
        .map(|name| rcgen::SanType::DnsName(name.try_into().unwrap()))
        .into();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        KeyedCertificate {
            certificate: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn params(name: &str, start: SystemTime, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = start.into();
    params.not_after = (start + validity).into();
    params
}
