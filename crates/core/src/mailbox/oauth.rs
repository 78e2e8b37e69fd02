//! OAuth2 of a mailbox (RFC 6749): where access tokens are asked for, by which client, and what is given for them. The secret itself is
//! kept sealed, apart from the settings.

use serde::{Deserialize, Serialize};

use crate::endpoint::Host;
use crate::rules;
use crate::secret::{ExposeSecret, SecretString};
use crate::text::words;
use crate::violation::{Findings, Invalid, shown};

words! {
    /// What is given for an access token.
    Grant, rules::OAUTH_GRANT;
    /// The refresh token that the mailbox's owner consented to (RFC 6749 section 6).
    RefreshToken = "refresh-token",
    /// The client itself, where an administrator consented for it (RFC 6749 section 4.4).
    ClientCredentials = "client-credentials",
}

/// How access tokens for a mailbox are asked for; made from an [`OAuthDraft`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OAuth {
    token_endpoint: String,
    client: String,
    scope: Option<String>,
    grant: Grant,
}

impl OAuth {
    /// The URL of the provider's token endpoint.
    #[must_use]
    pub fn token_endpoint(&self) -> &str {
        &self.token_endpoint
    }

    /// Whether what is given travels in plain text.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.token_endpoint.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    /// The client's id at the provider.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// What the token is for, in the provider's words; none is what was consented to.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// What is given for it.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.grant
    }
}

/// The form of [`OAuth`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a form that hosts fill by literal with `..Default::default()`"
)]
pub struct OAuthDraft {
    /// An https URL.
    pub token_endpoint: String,
    /// The client's id at the provider.
    pub client: String,
    /// Empty for what was consented to.
    pub scope: Option<String>,
    /// `refresh-token` (default), `client-credentials`.
    pub grant: Option<String>,
}

impl OAuthDraft {
    pub(super) fn check(&self, danger_plaintext: bool, findings: &mut Findings) -> Option<OAuth> {
        let endpoint =
            findings.take("oauth.token_endpoint", endpoint(&self.token_endpoint, danger_plaintext));
        findings.refuse_if(!is_word(&self.client, 500), "oauth.client", &rules::OAUTH_CLIENT);
        let scope = self.scope.clone().filter(|scope| !scope.trim().is_empty());
        let is_scope = scope.as_deref().is_none_or(|scope| is_word(scope, 2000));
        findings.refuse_if(!is_scope, "oauth.scope", &rules::OAUTH_SCOPE);
        let grant = Grant::parse(self.grant.as_deref().unwrap_or("refresh-token"));
        let grant = findings.take("oauth.grant", grant);
        Some(OAuth { token_endpoint: endpoint?, client: self.client.clone(), scope, grant: grant? })
    }
}

impl From<&OAuth> for OAuthDraft {
    fn from(from: &OAuth) -> Self {
        Self {
            token_endpoint: from.token_endpoint.clone(),
            client: from.client.clone(),
            scope: from.scope.clone(),
            grant: Some(from.grant.to_string()),
        }
    }
}

/// 1 to so many printable ASCII characters.
fn is_word(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn endpoint(text: &str, danger_plaintext: bool) -> Result<String, Invalid> {
    let text = text.trim();
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Some(rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") && danger_plaintext => Some(rest),
        _ => None,
    };
    let names_a_host = |rest: &str| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Host::parse(host).is_ok() && port.is_none_or(|port| port.parse::<u16>().is_ok())
    };
    let is_url =
        text.len() <= 2000 && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['@', '#']);
    match rest.is_some_and(names_a_host) && is_url {
        true => Ok(text.to_owned()),
        false => Err(Invalid::new(&rules::OAUTH_ENDPOINT).with("value", shown(text))),
    }
}

/// What a mailbox gives for access tokens, open.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OAuthSecret {
    /// With [`Grant::RefreshToken`].
    pub refresh_token: Option<SecretString>,
    /// Where the client has one; with [`Grant::ClientCredentials`] always.
    pub client_secret: Option<SecretString>,
}

/// The JSON of it; what else a provider's answer has is left out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Both {
    refresh_token: Option<String>,
    client_secret: Option<String>,
}

impl OAuthSecret {
    /// Reads the text that was set as the secret of a mailbox: JSON with `refresh_token`, `client_secret` or both, or the one that the
    /// grant can't do without as it is.
    ///
    /// # Errors
    /// [`rules::OAUTH_SECRET`].
    pub fn parse(text: &SecretString, grant: Grant) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::OAUTH_SECRET);
        let text = text.expose_secret().trim();
        let both = match grant {
            _ if text.starts_with('{') => serde_json::from_str(text).map_err(|_| invalid())?,
            Grant::RefreshToken => Both { refresh_token: Some(text.to_owned()), client_secret: None },
            Grant::ClientCredentials => Both { refresh_token: None, client_secret: Some(text.to_owned()) },
        };
        let needed = match grant {
            Grant::RefreshToken => &both.refresh_token,
            Grant::ClientCredentials => &both.client_secret,
        };
        let given = || [&both.refresh_token, &both.client_secret].into_iter().flatten();
        if needed.is_none() || text.len() > 4096 || !given().all(|text| is_word(text, 4096)) {
            return Err(invalid());
        }
        Ok(Self {
            refresh_token: both.refresh_token.filter(|_| grant == Grant::RefreshToken).map(Into::into),
            client_secret: both.client_secret.map(Into::into),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_https_url() {
        for good in [
            "https://id.example/token",
            "HTTPS://id.example:8443/a?b=c",
            "https://[::1]:1/",
            "https://id.example",
        ] {
            assert_eq!(endpoint(good, false).as_deref(), Ok(good));
        }
        assert!(endpoint("http://127.0.0.1:9/token", true).is_ok());
        for bad in [
            "http://id.example/token",
            "id.example/token",
            "https://",
            "https://a@id.example/token",
            "https://id.example:x/",
            "https://id.example/a b",
            "https://id.example/#a",
            "ftp://id.example/",
        ] {
            assert!(endpoint(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_one_word_or_both_as_json() {
        let parse = |text: &str, grant| {
            let secret = OAuthSecret::parse(&text.into(), grant).ok()?;
            let open = |secret: Option<SecretString>| secret.map(|secret| secret.expose_secret().to_owned());
            Some((open(secret.refresh_token), open(secret.client_secret)))
        };
        let (refresh, client) = (Some("r1".to_owned()), Some("s1".to_owned()));
        assert_eq!(parse("r1\n", Grant::RefreshToken), Some((refresh.clone(), None)));
        assert_eq!(parse("s1", Grant::ClientCredentials), Some((None, client.clone())));
        let both = r#"{"refresh_token":"r1","client_secret":"s1","access_token":"x"}"#;
        assert_eq!(parse(both, Grant::RefreshToken), Some((refresh, client.clone())));
        assert_eq!(parse(both, Grant::ClientCredentials), Some((None, client)));
        for bad in ["", "{", r#"{"client_secret":"s1"}"#, r#"{"refresh_token":""}"#, "r\u{7}1", "r\u{e9}"] {
            assert_eq!(parse(bad, Grant::RefreshToken), None, "{bad}");
        }
    }
}
