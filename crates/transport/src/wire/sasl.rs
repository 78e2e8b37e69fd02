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
}

impl Mechanism {
    /// The best of those that the server offers, in any case.
    ///
    /// # Errors
    /// [`ErrorKind::NoSignInMethod`].
    pub(crate) fn choose<'a>(offered: impl Iterator<Item = &'a str> + Clone) -> Result<Self> {
        [Self::Plain, Self::Login]
            .into_iter()
            .find(|one| offered.clone().any(|name| name.eq_ignore_ascii_case(one.name())))
            .ok_or_else(|| Error::new(ErrorKind::NoSignInMethod, Stage::SignIn))
    }

    /// Its registered name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Whether its first response can stand in the command itself (SASL-IR). LOGIN begins with a prompt of the server.
    pub(crate) const fn has_initial_response(self) -> bool {
        matches!(self, Self::Plain)
    }

    /// What is answered to the server's prompts, in their order, in base64. They are wiped when dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] for a NUL in user or password, which PLAIN can't carry (RFC 4616 section 2).
    pub(crate) fn responses(self, credentials: &Credentials) -> Result<Vec<Zeroizing<String>>> {
        let (user, password) = user_and_password(credentials)?;
        let encoded = |bytes: &[u8]| Zeroizing::new(BASE64.encode(bytes));
        Ok(match self {
            Self::Plain => {
                let message = Zeroizing::new([b"\0", user.as_bytes(), b"\0", password.as_bytes()].concat());
                vec![encoded(&message)]
            }
            Self::Login => vec![encoded(user.as_bytes()), encoded(password.as_bytes())],
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

/// A server's text without the credentials, should it repeat them as they are or as SASL sends them.
pub(crate) fn redacted(text: &str, credentials: &Credentials) -> String {
    let Credentials::Password { password, .. } = credentials else { return String::new() };
    let mut forms = vec![Zeroizing::new(password.expose_secret().to_owned())];
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        forms.extend(mechanism.responses(credentials).unwrap_or_default().pop());
    }
    // The longer forms first: a short password may occur in its own base64.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms
        .iter()
        .filter(|form| !form.is_empty())
        .fold(text.to_owned(), |text, form| text.replace(form.as_str(), "[redacted]"))
}

fn user_and_password(credentials: &Credentials) -> Result<(&str, &str)> {
    let settings = || Error::new(ErrorKind::Settings, Stage::SignIn);
    match credentials {
        Credentials::Password { user, password } => {
            let password = password.expose_secret();
            if user.contains('\0') || password.contains('\0') {
                return Err(settings().with_reply("user or password has a NUL"));
            }
            Ok((user, password))
        }
        _ => Err(settings().with_reply("this kind of credentials is not for SASL PLAIN or LOGIN")),
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
        let choose =
            |offered: &[&str]| Mechanism::choose(offered.iter().copied()).map_err(|error| error.kind());
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

    #[test]
    fn a_server_that_repeats_the_password_is_not_quoted() {
        let text = "no: secret, c2VjcmV0, AGFuYQBzZWNyZXQ=";
        let cut = redacted(text, &credentials("secret"));
        assert_eq!(cut, "no: [redacted], [redacted], [redacted]");
        assert_eq!(redacted("all is well", &credentials("")), "all is well");
    }
}
