//! What an IMAP client learns before it is signed in, and signing in: CAPABILITY, LOGIN, AUTHENTICATE.

use crate::{
    imap::reply::Verdict,
    sasl::{self, Credentials},
    session::Connection,
};
use imap_codec::imap_types::auth::AuthMechanism;
use std::io;

/// The capabilities, for CAPABILITY, the greeting and the answers that change them.
pub(crate) fn capabilities(connection: &Connection) -> String {
    let mut names = vec!["IMAP4rev1"];
    let extensions = ["LITERAL+", "SASL-IR", "ID", "NAMESPACE", "IDLE", "UIDPLUS", "MOVE", "UNSELECT"];
    names.extend(extensions.into_iter().filter(|name| connection.offers(name)));
    if connection.login.is_none() {
        if connection.offers_tls() {
            names.push("STARTTLS");
        }
        if connection.may_sign_in() {
            names.extend(["AUTH=PLAIN", "AUTH=LOGIN"].into_iter().filter(|name| connection.offers(name)));
            let tokens = ["AUTH=OAUTHBEARER", "AUTH=XOAUTH2"];
            names.extend(tokens.into_iter().filter(|name| connection.offers_tokens(name)));
        }
        if !connection.may_sign_in() || !connection.offers("LOGIN") {
            names.push("LOGINDISABLED");
        }
    }
    names.join(" ")
}

/// Compares the password.
pub(crate) fn sign_in(connection: &mut Connection, given: &Credentials) -> Verdict {
    match connection.sign_in(given) {
        true => Verdict::ok(format!("[CAPABILITY {}] signed in", capabilities(connection))),
        false => Verdict::no("[AUTHENTICATIONFAILED] wrong login or password"),
    }
}

/// The LOGIN command (RFC 3501 section 6.2.3).
pub(crate) fn login(connection: &mut Connection, login: &[u8], password: &[u8]) -> Verdict {
    if !connection.may_sign_in() || !connection.offers("LOGIN") {
        return Verdict::no("[PRIVACYREQUIRED] LOGIN is disabled");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    sign_in(connection, &Credentials { login: text(login), password: text(password) })
}

/// AUTHENTICATE PLAIN or LOGIN, with an initial response where SASL-IR is offered (RFC 4959).
pub(crate) async fn authenticate(
    connection: &mut Connection,
    mechanism: &AuthMechanism<'_>,
    initial: Option<&[u8]>,
) -> io::Result<Verdict> {
    let name = mechanism.to_string();
    if ["OAUTHBEARER", "XOAUTH2"].contains(&name.as_str()) {
        return by_token(connection, &name, initial).await;
    }
    let offered = match mechanism {
        AuthMechanism::Plain => connection.offers("AUTH=PLAIN"),
        AuthMechanism::Login => connection.offers("AUTH=LOGIN"),
        _ => false,
    };
    if !offered {
        return Ok(Verdict::no("[CANNOT] mechanism not offered"));
    }
    if !connection.may_sign_in() {
        return Ok(Verdict::no("[PRIVACYREQUIRED] begin TLS first"));
    }
    if initial.is_some() && !connection.offers("SASL-IR") {
        return Ok(Verdict::bad("SASL-IR is not offered"));
    }
    let given = match (mechanism, initial) {
        (AuthMechanism::Plain, Some(message)) => sasl::plain(message),
        (AuthMechanism::Plain, None) => sasl::plain_in_base64(&answer(connection, "").await?),
        (_, initial) => {
            // The challenges are "Username:" and "Password:" in base64.
            let login = match initial {
                Some(login) => String::from_utf8(login.to_vec()).ok(),
                None => sasl::text(&answer(connection, "VXNlcm5hbWU6").await?),
            };
            match login {
                None => None,
                Some(login) => sasl::text(&answer(connection, "UGFzc3dvcmQ6").await?)
                    .map(|password| Credentials { login, password }),
            }
        }
    };
    Ok(match given {
        Some(given) => sign_in(connection, &given),
        None => Verdict::bad("cancelled, or not in base64"),
    })
}

/// AUTHENTICATE OAUTHBEARER (RFC 7628) or XOAUTH2.
async fn by_token(connection: &mut Connection, name: &str, initial: Option<&[u8]>) -> io::Result<Verdict> {
    if !connection.offers_tokens(&format!("AUTH={name}")) {
        return Ok(Verdict::no("[CANNOT] mechanism not offered"));
    }
    if !connection.may_sign_in() {
        return Ok(Verdict::no("[PRIVACYREQUIRED] begin TLS first"));
    }
    let message = match initial {
        Some(message) => message.to_vec(),
        None => sasl::text(&answer(connection, "").await?).unwrap_or_default().into_bytes(),
    };
    let Some(given) = sasl::bearer(name, &message) else {
        return Ok(Verdict::bad("not a message of the mechanism"));
    };
    if connection.sign_in_by_token(&given) {
        return Ok(Verdict::ok(format!("[CAPABILITY {}] signed in", capabilities(connection))));
    }
    let acknowledged = answer(connection, sasl::TOKEN_REFUSED).await?;
    let wanted: &[u8] = if name == "XOAUTH2" { b"" } else { b"AQ==" };
    Ok(match acknowledged == wanted {
        true => Verdict::no("[AUTHENTICATIONFAILED] the token is not valid"),
        false => Verdict::bad("the refusal was not acknowledged"),
    })
}

async fn answer(connection: &mut Connection, challenge: &str) -> io::Result<Vec<u8>> {
    connection.wire.write(format!("+ {challenge}\r\n").as_bytes()).await?;
    connection.wire.read_line().await
}
