//! HTTP as far as a token endpoint needs it.

use std::time::Duration;

use async_trait::async_trait;
use postroom_core::secret::SecretString;
use zeroize::Zeroizing;

use crate::error::Result;

/// How long one request may take, from the look-up of the host to the last byte of the answer.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The greatest answer, in bytes.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// What an endpoint answered.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "made by adapters")]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// After how long it may be asked again (`Retry-After`, RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// The content, at most [`ANSWER_LIMIT`] bytes of it.
    pub body: Zeroizing<Vec<u8>>,
}

// Written out because the body may have tokens.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, retry_after, body } = self;
        f.debug_struct("Answer")
            .field("status", status)
            .field("retry_after", retry_after)
            .field("body", &format_args!("{} bytes", body.len()))
            .finish()
    }
}

/// Whoever can post a form.
///
/// An adapter follows no redirects, which would take secrets elsewhere, verifies certificates, takes at most [`DEADLINE`] and
/// [`ANSWER_LIMIT`], and logs neither the form nor the answer.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait HttpClient: Send + Sync + std::fmt::Debug {
    /// Posts a form (`application/x-www-form-urlencoded`) and asks for JSON.
    ///
    /// # Errors
    /// Where no answer came: of [`crate::Stage::Token`], with the kinds of a connection that fails. An answer of any status is none.
    ///
    /// # Cancel safety
    /// The endpoint may have performed a request whose future was dropped.
    async fn post(&self, url: &str, form: &SecretString) -> Result<Answer>;
}
