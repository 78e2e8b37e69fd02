//! TLS for every protocol: whom to trust, the handshake, and what its failure means. STARTTLS itself is negotiated by the
//! sessions; the rule on bytes that arrive before the handshake stands in `stream`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_core::endpoint::{Authority, Host};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, ErrorKind, Result, Stage};

/// How many configurations are kept: one for each authority in use, and the platform's.
const KEPT: usize = 64;

/// After this time the platform's authorities are read again, so that a renewed store is seen without a restart.
const AGE: Duration = Duration::from_secs(3600);

/// The TLS configurations of one transport, made when first needed. The provider is passed in; nothing is installed
/// process-wide.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    authority: Option<Authority>,
    made: Instant,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// The configuration that trusts the platform's authorities and `authority` besides.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] when the authority can't be read, or when there is nobody to trust at all.
    pub(crate) fn config(&self, authority: Option<&Authority>) -> Result<Arc<ClientConfig>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.made.elapsed() < AGE);
        if let Some(one) = kept.iter().find(|one| one.authority.as_ref() == authority) {
            return Ok(Arc::clone(&one.config));
        }
        let config = Arc::new(configure(authority)?);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(Kept { authority: authority.cloned(), made: Instant::now(), config: Arc::clone(&config) });
        Ok(config)
    }
}

fn configure(authority: Option<&Authority>) -> Result<ClientConfig> {
    let unusable = || Error::new(ErrorKind::Settings, Stage::Prepare);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own: Vec<CertificateDer<'static>> = match authority {
        Some(authority) => CertificateDer::pem_slice_iter(authority.pem().as_bytes())
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| unusable().with_reply("the authority is no readable PEM").with_source(error))?,
        None => Vec::new(),
    };
    // It fails when it finds no authority at all: a container without a root store works with an own authority only.
    let verifier = Verifier::new_with_extra_roots(own, Arc::clone(&provider))
        .map_err(|error| unusable().with_reply("no usable certificate authority").with_source(error))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable().with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Makes TLS of a connection. The caller bounds the time.
///
/// # Errors
/// [`ErrorKind::CertificateRefused`] when the certificate is not trusted for `host`, [`ErrorKind::TlsFailed`] otherwise.
pub(crate) async fn handshake(
    config: Arc<ClientConfig>,
    host: &Host,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.as_str().to_owned())
        .map_err(|error| Error::new(ErrorKind::Settings, Stage::Tls).with_source(error))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(refusal)
}

/// What was agreed on, for the report of a probe.
pub(crate) fn summary(tls: &TlsStream<TcpStream>) -> String {
    let (_, session) = tls.get_ref();
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let suite =
        session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
    format!("{version}, {suite}, certificate trusted")
}

fn refusal(error: io::Error) -> Error {
    let kind = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            ErrorKind::CertificateRefused
        }
        _ => ErrorKind::TlsFailed,
    };
    Error::new(kind, Stage::Tls).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_made_once_for_each_authority_and_their_number_is_bounded() {
        let trust = Trust::default();
        let authority = || Authority::parse(postroom_testkit::Authority::new().pem()).expect("an authority");
        let own = authority();
        let first = trust.config(Some(&own)).expect("a configuration");
        assert!(Arc::ptr_eq(&first, &trust.config(Some(&own)).expect("a configuration")));
        assert!(!Arc::ptr_eq(&first, &trust.config(Some(&authority())).expect("a configuration")));
        for _ in 0..KEPT {
            trust.config(Some(&authority())).expect("a configuration");
        }
        assert_eq!(trust.kept.lock().expect("no panic").len(), KEPT);
    }
}
