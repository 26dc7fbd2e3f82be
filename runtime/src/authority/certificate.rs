//! The broker's certificate, and an authority of our own that signs it.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// The authority is made once and given to every host: it lasts.
const CA_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clients of other makes take no certificate that lasts longer.
const SERVER_LASTS: Duration = Duration::from_secs(825 * 24 * 3600);
/// A host whose clock is a little behind believes in it, too.
const CLOCKS_DIFFER: Duration = Duration::from_secs(24 * 3600);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Certified {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Makes an authority.
pub(super) fn authority(name: &str) -> Result<Certified, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(name)?.self_signed(&key)?;
    Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// What an authority says of itself; the same every time, so that its key is enough to sign with.
fn authority_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = called(&format!("{name} certificate authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_LASTS);
    Ok(params)
}

/// Makes the certificate of the brokers on `hosts` (names or IP addresses), signed by the authority
/// `name` with the key `ca_key`. Brokers are each other's clients in a cluster and behind a leaf,
/// so it is good for both.
pub(super) fn of_broker(
    hosts: &[String],
    name: &str,
    ca_key: &str,
) -> Result<Certified, rcgen::Error> {
    let mut params = CertificateParams::new(hosts.to_vec())?;
    params.distinguished_name = called(hosts.first().map_or("nats-server", String::as_str));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid_for(&mut params, SERVER_LASTS);
    let issuer = Issuer::new(authority_params(name)?, KeyPair::from_pem(ca_key)?);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn valid_for(params: &mut CertificateParams, span: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + span).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_certified_for_names_and_addresses() {
        let ca = authority("test").unwrap();
        let hosts = ["broker.lab.example".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let broker = of_broker(&hosts, "test", &ca.key).unwrap();
        assert!(broker.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(broker.key.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(of_broker(&["not a host é".to_owned()], "test", &ca.key).is_err());
    }
}
