//! Sign-in by SASL: which mechanism, when credentials may travel, and what is sent. How a protocol carries it is the
//! session's part.

use data_encoding::BASE64;
use postroom_core::credentials::Credentials;
use postroom_core::secret::ExposeSecret;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::route::Route;

/// A SASL mechanism that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The obsolete LOGIN, which some servers still offer alone (draft-murchison-sasl-login).
    Login,
    /// RFC 7628.
    OAuthBearer,
    /// What Google and Microsoft had before it, and Microsoft has alone
    /// (<https://developers.google.com/workspace/gmail/imap/xoauth2-protocol>).
    XOAuth2,
}

impl Mechanism {
    /// Those for these credentials, the best first.
    const fn of(credentials: &Credentials) -> &'static [Self] {
        match credentials {
            Credentials::Bearer { .. } => &[Self::OAuthBearer, Self::XOAuth2],
            _ => &[Self::Plain, Self::Login],
        }
    }

    /// The best of those that the server offers, in any case.
    ///
    /// # Errors
    /// [`ErrorKind::NoSignInMethod`].
    pub(crate) fn choose<'a>(
        credentials: &Credentials,
        offered: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Self> {
        Self::of(credentials)
            .iter()
            .copied()
            .find(|one| offered.clone().any(|name| name.eq_ignore_ascii_case(one.name())))
            .ok_or_else(|| Error::new(ErrorKind::NoSignInMethod, Stage::SignIn))
    }

    /// Its registered name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
        }
    }

    /// Whether its first response can stand in the command itself (SASL-IR). LOGIN begins with a prompt of the server.
    pub(crate) const fn has_initial_response(self) -> bool {
        !matches!(self, Self::Login)
    }

    /// What is answered to a prompt behind the last response, if the mechanism foresees one: the server says why it refuses the token,
    /// and refuses once that is acknowledged (RFC 7628 section 3.2.3).
    pub(crate) const fn acknowledgement(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::Login => None,
            Self::OAuthBearer => Some("AQ=="),
            Self::XOAuth2 => Some(""),
        }
    }

    /// What is answered to the server's prompts, in their order, in base64. They are wiped when dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] for a character in user, password or token that the mechanism can't carry.
    pub(crate) fn responses(self, credentials: &Credentials) -> Result<Vec<Zeroizing<String>>> {
        let (user, secret) = (credentials.user(), credentials.secret().expose_secret());
        let settings = |text| Error::new(ErrorKind::Settings, Stage::SignIn).with_reply(text);
        match credentials {
            // RFC 4616 section 2.
            Credentials::Password { .. } if user.contains('\0') || secret.contains('\0') => {
                return Err(settings("user or password has a NUL"));
            }
            // RFC 7628 section 3.1, RFC 6750 section 2.1.
            Credentials::Bearer { .. }
                if user.contains(char::is_control) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                return Err(settings("user or access token has a character that can't be sent"));
            }
            Credentials::Password { .. } | Credentials::Bearer { .. } => {}
            _ => return Err(settings("no mechanism is known for this kind of credentials")),
        }
        let encoded = |parts: &[&str]| {
            let message = Zeroizing::new(parts.concat());
            Zeroizing::new(BASE64.encode(message.as_bytes()))
        };
        Ok(match self {
            Self::Plain => vec![encoded(&["\0", user, "\0", secret])],
            Self::Login => vec![encoded(&[user]), encoded(&[secret])],
            Self::OAuthBearer => {
                let user = user.replace('=', "=3D").replace(',', "=2C");
                vec![encoded(&["n,a=", &user, ",\x01auth=Bearer ", secret, "\x01\x01"])]
            }
            Self::XOAuth2 => vec![encoded(&["user=", user, "\x01auth=Bearer ", secret, "\x01\x01"])],
        })
    }
}

/// Whether the route's credentials may be sent: only inside TLS, unless its dangerous opt-in says otherwise.
///
/// # Errors
/// [`ErrorKind::PlaintextRefused`].
pub(crate) fn permit(route: &Route, is_encrypted: bool) -> Result<()> {
    if is_encrypted || route.danger_plaintext {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::PlaintextRefused, Stage::SignIn))
    }
}

/// The credentials of a sign-in that is under way, as they are and as SASL sends them: a server may repeat what it refuses.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    pub(crate) fn of(credentials: &Credentials) -> Self {
        let mut forms = vec![Zeroizing::new(credentials.secret().expose_secret().to_owned())];
        for mechanism in Mechanism::of(credentials) {
            forms.extend(mechanism.responses(credentials).unwrap_or_default().pop());
        }
        forms.retain(|form| !form.is_empty());
        // The longer forms first: a short password may occur in its own base64.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self(forms)
    }

    /// A server's text without them. It has to be the whole text: of a token that is cut off the beginning would stay.
    pub(crate) fn redacted(&self, text: String) -> String {
        self.0.iter().fold(text, |text, form| match text.contains(form.as_str()) {
            true => text.replace(form.as_str(), "[redacted]"),
            false => text,
        })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(password: &str) -> Credentials {
        Credentials::password("ana", password.into())
    }

    #[test]
    fn plain_is_chosen_before_login_in_any_case() {
        let choose = |offered: &[&str]| {
            Mechanism::choose(&credentials("secret"), offered.iter().copied()).map_err(|error| error.kind())
        };
        assert_eq!(choose(&["LOGIN", "plain"]), Ok(Mechanism::Plain));
        assert_eq!(choose(&["XOAUTH2", "Login"]), Ok(Mechanism::Login));
        assert_eq!(choose(&["CRAM-MD5"]), Err(ErrorKind::NoSignInMethod));
    }

    #[test]
    fn responses_are_those_of_the_rfc() {
        let responses = |mechanism: Mechanism, password| -> Vec<String> {
            let responses = mechanism.responses(&credentials(password)).expect("responses");
            responses.iter().map(|response| response.to_string()).collect()
        };
        assert_eq!(responses(Mechanism::Plain, "tanstaaftanstaaf"), ["AGFuYQB0YW5zdGFhZnRhbnN0YWFm"]);
        assert_eq!(responses(Mechanism::Login, "secret"), ["YW5h", "c2VjcmV0"]);
        let error = Mechanism::Plain.responses(&credentials("a\0b")).expect_err("a NUL");
        assert_eq!(error.kind(), ErrorKind::Settings);
    }

    fn bearer(user: &str, token: &str) -> Credentials {
        Credentials::bearer(user, token.into())
    }

    #[test]
    fn a_token_is_for_its_own_mechanisms_alone() {
        let choose = |offered: &[&str]| {
            Mechanism::choose(&bearer("ana", "t"), offered.iter().copied()).map_err(|error| error.kind())
        };
        assert_eq!(choose(&["PLAIN", "XOAUTH2", "OAuthBearer"]), Ok(Mechanism::OAuthBearer));
        assert_eq!(choose(&["PLAIN", "XOAUTH2"]), Ok(Mechanism::XOAuth2));
        assert_eq!(choose(&["PLAIN", "LOGIN"]), Err(ErrorKind::NoSignInMethod));
    }

    /// The first is that of Google's page; the second RFC 7628 section 4.1 without host and port, which are optional.
    #[test]
    fn responses_with_a_token_are_those_that_are_documented() {
        let token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg";
        let response = |mechanism: Mechanism, user: &str| {
            let responses = mechanism.responses(&bearer(user, token)).expect("responses");
            let bytes = BASE64.decode(responses[0].as_bytes()).expect("base64");
            String::from_utf8(bytes).expect("text")
        };
        let xoauth2 = response(Mechanism::XOAuth2, "someuser@example.com");
        assert_eq!(xoauth2, format!("user=someuser@example.com\x01auth=Bearer {token}\x01\x01"));
        let oauthbearer = response(Mechanism::OAuthBearer, "a=b,c@example.com");
        assert_eq!(oauthbearer, format!("n,a=a=3Db=2Cc@example.com,\x01auth=Bearer {token}\x01\x01"));
        for (user, token) in [("a\x01b", "t"), ("ana", "t t"), ("ana", "t\r\n"), ("ana", "\u{e9}")] {
            let error = Mechanism::XOAuth2.responses(&bearer(user, token)).expect_err("a character");
            assert_eq!(error.kind(), ErrorKind::Settings);
        }
    }

    #[test]
    fn a_server_that_repeats_the_password_is_not_quoted() {
        let text = "no: secret, c2VjcmV0, AGFuYQBzZWNyZXQ=";
        let secrets = Secrets::of(&credentials("secret"));
        assert_eq!(secrets.redacted(text.to_owned()), "no: [redacted], [redacted], [redacted]");
        assert_eq!(format!("{secrets:?}"), "Secrets");
        let none = Secrets::of(&credentials("")).redacted("all is well".to_owned());
        assert_eq!(none, "all is well");
    }
}
