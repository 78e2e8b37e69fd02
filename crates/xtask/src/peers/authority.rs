//! A throw-away certificate authority for the real servers, their certificate, and an authority that signed nothing.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::place::{Place, allow};
use crate::outcome::Outcome;

pub(super) const TRUSTED: &str = "ca.pem";
pub(super) const STRANGER: &str = "other-ca.pem";
pub(super) const CERTIFICATE: &str = "server.pem";
pub(super) const KEY: &str = "server.key";

/// Write the four files.
pub(super) fn make(place: &Place) -> Outcome<()> {
    let (trusted, stranger, certificate, key) =
        pems().map_err(|error| format!("no certificates: {error}"))?;
    place.write(TRUSTED, &trusted)?;
    place.write(STRANGER, &stranger)?;
    place.write(CERTIFICATE, &certificate)?;
    allow(&place.write(KEY, &key)?, 0o600)
}

fn pems() -> Result<(String, String, String, String), rcgen::Error> {
    let trusted = authority("postroom tests, throw-away authority")?;
    let stranger = authority("postroom tests, an authority that signed nothing")?;
    let mut leaf =
        CertificateParams::new(["localhost", "127.0.0.1", super::place::STRICT].map(str::to_owned))?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &trusted)?.pem();
    Ok((trusted.pem(), stranger.pem(), certificate, key.serialize_pem()))
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
}
