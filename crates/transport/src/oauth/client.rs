//! The adapter on reqwest: one request for each connection, nothing followed, nothing kept.

use std::time::Duration;

use async_trait::async_trait;
use postroom_core::secret::{ExposeSecret, SecretString};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use zeroize::Zeroizing;

use super::http::{ANSWER_LIMIT, Answer, DEADLINE, HttpClient};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::wire::tls::Trust;

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// An [`HttpClient`] that trusts the platform's certificate authorities.
#[derive(Debug, Clone)]
pub struct ReqwestClient {
    client: reqwest::Client,
}

impl ReqwestClient {
    /// A client.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] where the platform has no certificate authority.
    pub fn new() -> Result<Self> {
        let tls = Trust::default().config(None)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(DEADLINE)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("postroom/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::new(ErrorKind::Settings, Stage::Prepare).with_source(error))?;
        Ok(Self { client })
    }
}

/// What it means that no answer came. The URL is not repeated: it is the box's own.
fn failed(error: reqwest::Error) -> Error {
    let kind = match () {
        () if error.is_builder() => ErrorKind::Settings,
        () if error.is_timeout() => ErrorKind::TimedOut,
        () if error.is_connect() => ErrorKind::Unreachable,
        () => ErrorKind::Disconnected,
    };
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    Error::new(kind, Stage::Token).with_reply(&words)
}

#[async_trait]
impl HttpClient for ReqwestClient {
    async fn post(&self, url: &str, form: &SecretString) -> Result<Answer> {
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.expose_secret().to_owned());
        let mut response = request.send().await.map_err(failed)?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > ANSWER_LIMIT {
                let error = Error::new(ErrorKind::SignInUnavailable, Stage::Token);
                return Err(error.with_reply(&format!("its answer has more than {ANSWER_LIMIT} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, retry_after, body })
    }
}
