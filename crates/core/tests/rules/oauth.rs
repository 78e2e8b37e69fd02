//! The rules on OAuth2 of a mailbox.

use postroom_core::mailbox::{
    InboxDraft, MailboxDraft, OAuthDraft, OutboxDraft, SecretPresence, SettingsDraft,
};
use postroom_core::secret::{SecretChange, SecretString};

use super::{Walk, inbox, outbox};

fn oauth(endpoint: &str, client: &str, scope: Option<&str>, grant: Option<&str>) -> OAuthDraft {
    OAuthDraft {
        token_endpoint: endpoint.into(),
        client: client.into(),
        scope: scope.map(Into::into),
        grant: grant.map(Into::into),
    }
}

pub(super) fn walk(walk: &mut Walk) {
    for (code, bad) in [
        ("oauth.token-endpoint", oauth("http://id.example/token", "app", None, None)),
        ("oauth.client", oauth("https://id.example/token", "", None, None)),
        ("oauth.scope", oauth("https://id.example/token", "app", Some("a\u{7}"), None)),
        ("oauth.grant", oauth("https://id.example/token", "app", None, Some("password"))),
    ] {
        let good = oauth("https://id.example/token", "app", Some("mail"), Some("client-credentials"));
        let inbox = |oauth: &OAuthDraft| {
            let (draft, form) = inbox();
            let form = InboxDraft { oauth: Some(oauth.clone()), ..form };
            MailboxDraft { settings: SettingsDraft::Inbox(form), ..draft }.check()
        };
        walk.check(code, inbox(&good), inbox(&bad));
        walk.outbox(code, |_, form| (form.auth, form.oauth) = ("oauth2".into(), Some(bad)));
    }
    walk.outbox("oauth.absent", |_, form| {
        form.oauth = Some(oauth("https://id.example/token", "app", None, None));
    });
    let set = |text: &str| SecretChange::Set(SecretString::from(text.to_owned()));
    let by_token = |endpoint: &str| {
        let (draft, form) = outbox();
        let oauth = Some(oauth(endpoint, "app", None, None));
        let form = OutboxDraft { auth: "oauth2".into(), oauth, ..form };
        MailboxDraft { settings: SettingsDraft::Outbox(form), ..draft }
    };
    let token = by_token("https://id.example/token");
    for bad in ["", "a\u{7}", "{}", "{\"client_secret\":\"s\"}", &"a".repeat(4097)] {
        let set = |text| token.check_with_secret(&set(text), None);
        walk.check("oauth.secret", set("{\"refresh_token\":\"r\"}"), set(bad));
    }
    let stored = token.check().expect("a good form");
    let moved = |endpoint| {
        let kept = Some((&stored, SecretPresence::Stored));
        by_token(endpoint).check_with_secret(&SecretChange::Keep, kept)
    };
    let evil = moved("https://evil.example/token");
    walk.check("mailbox.password-again", moved("https://id.example/token"), evil);
}

/// Would miss a warning that names what is safe, and one that is lost where two apply.
#[test]
fn what_travels_in_plain_text_is_warned_of() {
    let checked = |tls: &str, endpoint: &str, auth: &str| {
        let (draft, form) = outbox();
        let oauth = (auth == "oauth2").then(|| oauth(endpoint, "app", None, None));
        let user = (auth != "none").then(|| "u".into());
        let form = OutboxDraft { tls: tls.into(), auth: auth.into(), user, oauth, ..form };
        let settings = SettingsDraft::Outbox(form);
        MailboxDraft { settings, danger_plaintext: true, ..draft }.check().expect("a good form")
    };
    let (safe, bare) = ("https://id.example/token", "http://id.example/token");
    let token = "the access token and all mail travel in plain text";
    let asked = "the token endpoint is asked in plain text: the refresh token and the client secret travel unprotected";
    for (tls, endpoint, auth, warnings) in [
        ("starttls", safe, "oauth2", vec![]),
        ("starttls", bare, "oauth2", vec![asked]),
        ("none", safe, "oauth2", vec![token]),
        ("none", bare, "oauth2", vec![token, asked]),
        ("none", safe, "password", vec!["the password and all mail travel in plain text"]),
        ("none", safe, "none", vec!["all mail travels in plain text and without sign-in"]),
    ] {
        assert_eq!(checked(tls, endpoint, auth).warnings(), warnings, "{tls} {endpoint} {auth}");
    }
}
