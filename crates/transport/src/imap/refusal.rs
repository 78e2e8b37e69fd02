//! What a refusal means: the response codes of RFC 3501 section 7.1 and RFC 5530, by stage.

use crate::error::{ErrorKind, Stage};

/// The kind of error that a NO, BAD or BYE is.
pub(super) fn kind(stage: Stage, code: Option<&[u8]>, text: &str) -> ErrorKind {
    let signing_in = stage <= Stage::SignIn;
    match code.unwrap_or_default().to_ascii_uppercase().as_slice() {
        b"UNAVAILABLE" | b"SERVERBUG" if signing_in => ErrorKind::SignInUnavailable,
        // A server says this of the one mail that it can't read, again and again: the next mail must not wait for it.
        b"SERVERBUG" if stage == Stage::Fetch => ErrorKind::Refused,
        b"UNAVAILABLE" | b"SERVERBUG" | b"EXPUNGEISSUED" => ErrorKind::Deferred,
        b"LIMIT" | b"THROTTLED" => ErrorKind::Throttled,
        b"INUSE" => ErrorKind::InUse,
        b"AUTHENTICATIONFAILED" | b"AUTHORIZATIONFAILED" | b"EXPIRED" if signing_in => {
            ErrorKind::SignInRefused
        }
        // It held, and holds no more: a token has expired, or the password was changed.
        b"AUTHENTICATIONFAILED" | b"AUTHORIZATIONFAILED" | b"EXPIRED" => ErrorKind::Reauthorise,
        b"NONEXISTENT" | b"TRYCREATE" if !signing_in => ErrorKind::FolderMissing,
        // Large providers limit sessions without a code; a right password must not suspend its mailbox for that.
        b"" | b"ALERT" if speaks_of_a_limit(text) => ErrorKind::Throttled,
        _ if stage == Stage::SignIn => ErrorKind::SignInRefused,
        _ => ErrorKind::Refused,
    }
}

fn speaks_of_a_limit(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("too many") && ["connection", "session", "login"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_sign_in_and_a_server_that_cannot_sign_in_are_told_apart() {
        for (stage, code, text, want) in [
            (Stage::SignIn, "AUTHENTICATIONFAILED", "", ErrorKind::SignInRefused),
            (Stage::SignIn, "authorizationfailed", "", ErrorKind::SignInRefused),
            (Stage::SignIn, "EXPIRED", "", ErrorKind::SignInRefused),
            (Stage::SignIn, "", "Invalid credentials", ErrorKind::SignInRefused),
            (Stage::Folder, "AUTHENTICATIONFAILED", "", ErrorKind::Reauthorise),
            (Stage::List, "EXPIRED", "", ErrorKind::Reauthorise),
            (Stage::Fetch, "AuthorizationFailed", "", ErrorKind::Reauthorise),
            (Stage::SignIn, "UNAVAILABLE", "", ErrorKind::SignInUnavailable),
            (Stage::Greeting, "unavailable", "", ErrorKind::SignInUnavailable),
            (Stage::SignIn, "LIMIT", "", ErrorKind::Throttled),
            (Stage::SignIn, "INUSE", "", ErrorKind::InUse),
            (Stage::SignIn, "ALERT", "Too many simultaneous connections. (Failure)", ErrorKind::Throttled),
            (Stage::SignIn, "AUTHENTICATIONFAILED", "too many logins", ErrorKind::SignInRefused),
            (Stage::Folder, "NONEXISTENT", "", ErrorKind::FolderMissing),
            (Stage::Folder, "UNAVAILABLE", "", ErrorKind::Deferred),
            (Stage::Fetch, "SERVERBUG", "", ErrorKind::Refused),
            (Stage::List, "SERVERBUG", "", ErrorKind::Deferred),
            (Stage::Settle, "TRYCREATE", "", ErrorKind::FolderMissing),
            (Stage::Settle, "OVERQUOTA", "", ErrorKind::Refused),
            (Stage::List, "", "no", ErrorKind::Refused),
        ] {
            let code = Some(code.as_bytes()).filter(|code| !code.is_empty());
            assert_eq!(kind(stage, code, text), want, "{stage} {code:?} {text}");
        }
    }
}
