//! A throw-away certificate authority and the certificates that a server presents, good and bad. No sockets.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, io, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, version},
};

/// What the server shows to a client that begins TLS. The server's name is `localhost`, its address `127.0.0.1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certificate {
    /// Signed by the server's own authority, for `localhost` and `127.0.0.1`, in date.
    #[default]
    Trusted,
    /// As `Trusted`, but its time is over.
    Expired,
    /// As `Trusted`, but for `elsewhere.example` only.
    WrongName,
    /// Signed by nobody but itself.
    SelfSigned,
}

/// An authority that exists for as long as a test; servers may share one.
///
/// ```
/// let authority = postroom_testkit::Authority::new();
/// assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
/// ```
#[derive(Clone)]
pub struct Authority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    pem: Arc<str>,
}

impl Authority {
    /// Makes a new key and a certificate for it.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "postroom-testkit throw-away authority");
        let key = KeyPair::generate().expect("ring makes ECDSA P-256 keys");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("the parameters are complete");
        Self { pem: issuer.pem().into(), issuer: Arc::new(issuer) }
    }

    /// The authority's certificate, which a client has to trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn acceptor(&self, shown: Certificate) -> io::Result<TlsAcceptor> {
        let names = match shown {
            Certificate::WrongName => vec!["elsewhere.example".to_owned()],
            _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.use_authority_key_identifier_extension = true;
        if shown == Certificate::Expired {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = match shown {
            Certificate::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        }
        .map_err(io::Error::other)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(io::Error::other)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("pem", &self.pem).finish_non_exhaustive()
    }
}
