//! The exchange: a grant for an access token, and what a refusal means.

use std::time::Duration;

use postroom_core::schedule::HINT_LIMIT;
use postroom_core::secret::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::http::{Answer, HttpClient};
use crate::error::{Error, ErrorKind, Result, Stage};

/// What is given for an access token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Grant {
    /// The refresh token that the mailbox's owner consented to (RFC 6749 section 6).
    RefreshToken(SecretString),
    /// The client itself, where an administrator consented for it (RFC 6749 section 4.4).
    ClientCredentials,
}

/// A request for an access token.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever asks for a token")]
pub struct TokenRequest {
    /// The token endpoint of the provider, an https URL.
    pub endpoint: String,
    /// The client's id at the provider.
    pub client: String,
    /// The client's secret, where it has one.
    pub client_secret: Option<SecretString>,
    /// What the token is for, in the provider's words; none is what was consented to.
    pub scope: Option<String>,
    /// What is given for it.
    pub grant: Grant,
}

/// What a provider gave.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "made by the exchange, taken apart by the engine")]
pub struct Tokens {
    /// The access token.
    pub access: SecretString,
    /// For how long it is good, if the provider says so.
    pub expires_in: Option<Duration>,
    /// The refresh token that takes the place of the one that was given. It has to be kept before the access token is used: the former
    /// one may be void by now.
    pub refresh: Option<SecretString>,
}

/// RFC 6749 section 5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

/// RFC 6749 section 5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

/// Some providers say the number as a text.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(u64),
        Text(String),
    }
    Ok(Option::deserialize(from)?.and_then(|given| match given {
        Seconds::Number(seconds) => Some(seconds),
        Seconds::Text(text) => text.trim().parse().ok(),
    }))
}

/// Asks for an access token.
///
/// # Errors
/// Of [`Stage::Token`]: [`ErrorKind::SignInRefused`] where grant or client are refused, and a person has to act;
/// [`ErrorKind::Settings`] where the request is, or where it would be redirected; [`ErrorKind::SignInUnavailable`] where the endpoint can't
/// answer at the moment (408, 429, 5xx, an answer that is none of a token endpoint), with the time that it asked for, a day at most; those
/// of [`HttpClient::post`].
///
/// # Cancel safety
/// None: a provider that rotates refresh tokens may have given a new one to a future that was dropped.
pub async fn exchange(http: &dyn HttpClient, request: &TokenRequest) -> Result<Tokens> {
    let answer = http.post(&request.endpoint, &form(request)).await?;
    if answer.status == 200 {
        return granted(&answer);
    }
    Err(refused(&answer, request))
}

fn form(request: &TokenRequest) -> SecretString {
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(8 * 1024));
    match &request.grant {
        Grant::RefreshToken(token) => form
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", token.expose_secret()),
        Grant::ClientCredentials => form.append_pair("grant_type", "client_credentials"),
    };
    form.append_pair("client_id", &request.client);
    if let Some(secret) = &request.client_secret {
        form.append_pair("client_secret", secret.expose_secret());
    }
    if let Some(scope) = &request.scope {
        form.append_pair("scope", scope);
    }
    SecretString::from(form.finish())
}

fn failed(kind: ErrorKind, text: &str) -> Error {
    Error::new(kind, Stage::Token).with_reply(text)
}

fn granted(answer: &Answer) -> Result<Tokens> {
    let unfit = |text: &str| Err(failed(ErrorKind::SignInUnavailable, text));
    let Ok(granted) = serde_json::from_slice::<Granted>(&answer.body) else {
        return unfit("its answer has no access token");
    };
    // RFC 6749 section 7.1: a type that is not understood must not be used.
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return unfit("its token is no bearer token");
    }
    Ok(Tokens {
        access: granted.access_token.into(),
        expires_in: granted.expires_in.map(Duration::from_secs),
        refresh: granted.refresh_token.map(SecretString::from),
    })
}

fn refused(answer: &Answer, request: &TokenRequest) -> Error {
    let refused = serde_json::from_slice::<Refused>(&answer.body).ok();
    let words = match &refused {
        Some(Refused { error, error_description: Some(description) }) => format!("{error}: {description}"),
        Some(Refused { error, .. }) => error.clone(),
        None => String::new(),
    };
    let code = refused.as_ref().map(|refused| refused.error.as_str());
    let kind = match (answer.status, code) {
        (408 | 429 | 500.., _)
        | (_, Some("temporarily_unavailable" | "server_error" | "slow_down"))
        // Whatever stands before the endpoint says so while that is being moved or guarded.
        | (403 | 404, None) => ErrorKind::SignInUnavailable,
        (_, Some("invalid_grant" | "invalid_client" | "unauthorized_client" | "access_denied"))
        // OpenID Connect Core section 3.1.2.6: the mailbox's owner has to be there.
        | (_, Some("interaction_required" | "consent_required" | "login_required"))
        | (401, _) => ErrorKind::SignInRefused,
        // The request is wrong, something else than a token endpoint is there, or a redirect, which would take the secrets elsewhere.
        _ => ErrorKind::Settings,
    };
    let error = failed(kind, &redacted(&format!("{} {words}", answer.status), request));
    match answer.retry_after {
        Some(after) if kind == ErrorKind::SignInUnavailable => error.with_retry_after(after.min(HINT_LIMIT)),
        _ => error,
    }
}

/// A provider's text without the secrets, should it repeat them as they are or as the form has them.
fn redacted(text: &str, request: &TokenRequest) -> String {
    let refresh = match &request.grant {
        Grant::RefreshToken(token) => Some(token),
        Grant::ClientCredentials => None,
    };
    let secrets = [refresh, request.client_secret.as_ref()].into_iter().flatten();
    secrets.map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()).fold(
        text.to_owned(),
        |text, secret| {
            let sent = Zeroizing::new(form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>());
            text.replace(secret, "[redacted]").replace(sent.as_str(), "[redacted]")
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use postroom_core::failure::Failure;

    use super::*;

    #[derive(Debug)]
    struct Scripted {
        status: u16,
        retry_after: Option<Duration>,
        body: &'static str,
        asked: Mutex<String>,
    }

    #[async_trait]
    impl HttpClient for Scripted {
        async fn post(&self, url: &str, form: &SecretString) -> Result<Answer> {
            *self.asked.lock().expect("no panic") = format!("{url}?{}", form.expose_secret());
            let body = Zeroizing::new(self.body.as_bytes().to_vec());
            Ok(Answer { status: self.status, retry_after: self.retry_after, body })
        }
    }

    fn request(grant: Grant) -> TokenRequest {
        TokenRequest {
            endpoint: "https://id.example/token".to_owned(),
            client: "app 1".to_owned(),
            client_secret: Some("s&cret".into()),
            scope: Some("https://mail.example/.default".to_owned()),
            grant,
        }
    }

    async fn asked(grant: Grant, status: u16, body: &'static str) -> (String, Result<Tokens>) {
        let retry_after = Some(Duration::from_secs(7));
        let http = Scripted { status, retry_after, body, asked: Mutex::default() };
        let tokens = exchange(&http, &request(grant)).await;
        (http.asked.into_inner().expect("no panic"), tokens)
    }

    #[tokio::test]
    async fn the_form_is_that_of_the_rfc_and_the_answer_is_read() {
        let body =
            r#"{"access_token":"a1","token_type":"Bearer","expires_in":"3599","refresh_token":"r2","x":[1]}"#;
        let (asked, tokens) = asked(Grant::RefreshToken("r+1".into()), 200, body).await;
        assert_eq!(
            asked,
            "https://id.example/token?grant_type=refresh_token&refresh_token=r%2B1&client_id=app+1\
             &client_secret=s%26cret&scope=https%3A%2F%2Fmail.example%2F.default"
        );
        let tokens = tokens.expect("tokens");
        assert_eq!(tokens.access.expose_secret(), "a1");
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(3599)));
        assert_eq!(tokens.refresh.expect("rotated").expose_secret(), "r2");
        let body = r#"{"access_token":"a1","token_type":"bearer","expires_in":3600}"#;
        let (asked, tokens) = self::asked(Grant::ClientCredentials, 200, body).await;
        assert!(asked.starts_with("https://id.example/token?grant_type=client_credentials&client_id="));
        assert_eq!(tokens.expect("tokens").expires_in, Some(Duration::from_secs(3600)));
    }

    /// Would miss the words of a provider that names its refusals otherwise than the RFC: they ask a person, and are shown.
    #[tokio::test]
    async fn a_refusal_asks_a_person_and_an_outage_does_not() {
        let wait = Failure::RetryAfter(Some(Duration::from_secs(7)));
        for (status, body, kind, failure) in [
            (400, r#"{"error":"invalid_grant"}"#, ErrorKind::SignInRefused, Failure::Suspend),
            (401, r#"{"error":"invalid_client"}"#, ErrorKind::SignInRefused, Failure::Suspend),
            (401, "no", ErrorKind::SignInRefused, Failure::Suspend),
            (400, r#"{"error":"invalid_scope"}"#, ErrorKind::Settings, Failure::Suspend),
            (400, r#"{"error":"interaction_required"}"#, ErrorKind::SignInRefused, Failure::Suspend),
            (400, r#"{"error":"consent_required"}"#, ErrorKind::SignInRefused, Failure::Suspend),
            (400, r#"{"error":"login_required"}"#, ErrorKind::SignInRefused, Failure::Suspend),
            (403, r#"{"error":"access_denied"}"#, ErrorKind::SignInRefused, Failure::Suspend),
            (403, r#"{"error":"forbidden"}"#, ErrorKind::Settings, Failure::Suspend),
            (404, r#"{"error":"not_found"}"#, ErrorKind::Settings, Failure::Suspend),
            (405, "<html>", ErrorKind::Settings, Failure::Suspend),
            (307, "", ErrorKind::Settings, Failure::Suspend),
            (403, "<html>", ErrorKind::SignInUnavailable, wait),
            (404, "<html>", ErrorKind::SignInUnavailable, wait),
            (408, "", ErrorKind::SignInUnavailable, wait),
            (302, "", ErrorKind::Settings, Failure::Suspend),
            (429, r#"{"error":"invalid_grant"}"#, ErrorKind::SignInUnavailable, wait),
            (503, "<html>", ErrorKind::SignInUnavailable, wait),
            (400, r#"{"error":"temporarily_unavailable"}"#, ErrorKind::SignInUnavailable, wait),
        ] {
            let error = asked(Grant::ClientCredentials, status, body).await.1.expect_err("refused");
            let got = (error.kind(), error.stage(), error.failure());
            assert_eq!(got, (kind, Stage::Token, failure), "{status} {body}");
            if kind == ErrorKind::SignInRefused {
                assert!(error.remedy().contains("consent"), "{status} {body}: {}", error.remedy());
            }
        }
        for body in ["", "{}", r#"{"access_token":"a","token_type":"mac"}"#, r#"{"access_token":7}"#] {
            let error = asked(Grant::ClientCredentials, 200, body).await.1.expect_err("no token");
            assert_eq!(error.kind(), ErrorKind::SignInUnavailable, "{body}");
        }
    }

    #[tokio::test]
    async fn a_provider_that_repeats_a_secret_is_not_quoted() {
        let body = r#"{"error":"invalid_grant","error_description":"token r/1 of s&cret\u0007 expired"}"#;
        let error = asked(Grant::RefreshToken("r/1".into()), 400, body).await.1.expect_err("refused");
        assert_eq!(error.reply(), Some("400 invalid_grant: token [redacted] of [redacted]  expired"));
        let body =
            r#"{"error":"invalid_grant","error_description":"refresh_token=r%2F1&client_secret=s%26cret"}"#;
        let error = asked(Grant::RefreshToken("r/1".into()), 400, body).await.1.expect_err("refused");
        let want = "400 invalid_grant: refresh_token=[redacted]&client_secret=[redacted]";
        assert_eq!(error.reply(), Some(want));
    }

    #[tokio::test]
    async fn who_asks_for_more_than_a_day_gets_a_day() {
        let retry_after = Some(Duration::MAX);
        let http = Scripted { status: 503, retry_after, body: "", asked: Mutex::default() };
        let error = exchange(&http, &request(Grant::ClientCredentials)).await.expect_err("no token");
        assert_eq!(error.failure(), Failure::RetryAfter(Some(HINT_LIMIT)));
    }
}
