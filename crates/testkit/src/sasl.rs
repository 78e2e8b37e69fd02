//! Reading what a client sends to sign in: base64 and the PLAIN message (RFC 4616). No passwords are compared here.

use data_encoding::BASE64;

/// A login and a password as the client gave them.
pub(crate) struct Credentials {
    pub(crate) login: String,
    pub(crate) password: String,
}

/// Text in base64, as each answer of the LOGIN mechanism is.
pub(crate) fn text(base64: &[u8]) -> Option<String> {
    String::from_utf8(BASE64.decode(base64).ok()?).ok()
}

/// RFC 4616 section 2: `[authzid] NUL authcid NUL passwd`. Acting for another identity is not possible here.
pub(crate) fn plain(message: &[u8]) -> Option<Credentials> {
    let message = std::str::from_utf8(message).ok()?;
    let mut parts = message.split('\0');
    let (acting, login, password) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && (acting.is_empty() || acting == login);
    whole.then(|| Credentials { login: login.to_owned(), password: password.to_owned() })
}

/// PLAIN as SMTP and POP3 carry it: base64, where a lone `=` stands for an empty message (RFC 4954 section 4).
pub(crate) fn plain_in_base64(base64: &[u8]) -> Option<Credentials> {
    plain(&BASE64.decode(base64).ok()?)
}

/// A login and an access token as OAUTHBEARER (RFC 7628 section 3.1) or XOAUTH2 carries them.
pub(crate) fn bearer(mechanism: &str, message: &[u8]) -> Option<Credentials> {
    let mut parts = std::str::from_utf8(message).ok()?.split('\x01');
    let login = match (mechanism, parts.next()?) {
        ("XOAUTH2", user) => user.strip_prefix("user=")?.to_owned(),
        (_, header) => {
            let login = header.strip_prefix("n,a=")?.strip_suffix(',')?;
            login.replace("=2C", ",").replace("=3D", "=")
        }
    };
    let password = parts.find_map(|part| part.strip_prefix("auth=Bearer "))?.to_owned();
    Some(Credentials { login, password })
}

/// Why a token is refused, as a challenge that the client acknowledges before the refusal itself.
pub(crate) const TOKEN_REFUSED: &str = "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_message_has_exactly_three_parts() {
        let read = |message: &[u8]| plain(message).map(|found| (found.login, found.password));
        assert_eq!(read(b"\0ana\0secret"), Some(("ana".into(), "secret".into())));
        assert_eq!(read(b"ana\0ana\0"), Some(("ana".into(), String::new())));
        for wrong in [&b"ana\0secret"[..], b"\0ana\0a\0b", b"rui\0ana\0secret", b"", b"\0\xff\0x"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
