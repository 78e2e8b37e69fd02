//! Mailboxes that sign in by OAuth2, by the binary.

use postroom_testkit::{MailServer, TokenEndpoint};

use crate::desk::{Desk, finished};

const LOGIN: &str = "box@acme.example";

/// A desk at a server that wants a sign-in, and a provider that takes back each refresh token that was given.
async fn desk_and_provider() -> (Desk, TokenEndpoint) {
    let builder = MailServer::builder().account(LOGIN, "secret").require_sign_in().danger_plaintext_auth();
    let desk = Desk::over(builder.start().await.expect("a mail server")).await;
    let provider = TokenEndpoint::start(&desk.server).await.expect("a token endpoint");
    provider.rotate();
    (desk, provider)
}

/// Registers them, tries them out, sends and fetches by tokens; each call is a process of its own.
#[tokio::test]
async fn mail_goes_out_and_in_by_tokens_that_each_process_finds() {
    let (desk, provider) = desk_and_provider().await;
    let (url, smtp, imap) =
        (provider.url(), desk.server.smtp_port().to_string(), desk.server.imap_port().to_string());
    let of_both = ["--server", "127.0.0.1", "--user", LOGIN, "--password-stdin", "--danger-plaintext"];
    let tokens = ["--oauth", &url, "--oauth-client", "app", "--oauth-scope", "mail"];
    let outbox = ["mailbox", "add", "outbox", "--description", "out", "--port", &smtp, "--tls", "none"];
    let outbox = [&outbox[..], &["--auth", "oauth2", "--sender", LOGIN], &of_both, &tokens].concat();
    let secret = format!(r#"{{"refresh_token":"{}","client_secret":"s3cret"}}"#, provider.grant(LOGIN));
    let outbox = desk.json_with(&outbox, &secret).await.id();
    let inbox = ["mailbox", "add", "inbox", "--description", "in", "--port", &imap, "--provider", "imap"];
    let inbox = [&inbox[..], &["--baseline", "all"], &of_both, &tokens].concat();
    // A grant of its own: the provider takes back each refresh token that was given.
    let inbox = desk.json_with(&inbox, &provider.grant("box@acme.example")).await.id();
    for mailbox in [&outbox, &inbox] {
        let told = desk.json(&["mailbox", "probe", mailbox]).await.document();
        assert_eq!((&told["passed"], &told["stages"][0]["stage"]), (&true.into(), &"token".into()), "{told}");
        let shown = desk.json(&["mailbox", "show", mailbox]).await.stdout;
        assert!(
            shown.contains(&url) && !shown.contains("refresh-box") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
    let asked = provider.requests();
    desk.json(&["standard", &outbox]).await.document();
    desk.json(&["contract", "inbox", "ACME", &inbox]).await.document();
    desk.json(&["send", "--contract", "ACME", "--to", LOGIN, "--subject", "S", "--text", "T"])
        .await
        .document();
    let ran = desk.call(&["run", "--until-idle", "--deliver-to", "in"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = desk.call(&["run", "--until-idle", "--deliver-to", "in"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!((desk.server.accepted_count(), desk.files("in").len()), (1, 2));
    assert_eq!(provider.requests(), asked, "the tokens are those of the probes");
    // Back to a password: the token endpoint goes.
    let edit = ["mailbox", "edit", &inbox, "--unset", "oauth", "--password-stdin"];
    let edited = desk.json_with(&edit, "secret").await.document();
    assert_eq!(edited.get("oauth"), None, "{edited}");
    assert_eq!(desk.json(&["mailbox", "probe", &inbox]).await.document()["passed"], true);
    let edit = ["mailbox", "edit", &outbox, "--auth", "password", "--password-stdin"];
    assert_eq!(desk.json_with(&edit, "secret").await.document().get("oauth"), None);
}

#[tokio::test]
async fn a_form_of_oauth2_that_is_wrong_names_field_and_remedy() {
    let desk = Desk::new().await;
    let form = [
        "mailbox",
        "add",
        "outbox",
        "--server",
        "mail.acme.example",
        "--tls",
        "starttls",
        "--auth",
        "oauth2",
    ];
    let form = [&form[..], &["--description", "out", "--sender", LOGIN, "--user", LOGIN, "--password-stdin"]]
        .concat();
    let bad = [&form[..], &["--oauth", "http://id.example/token", "--oauth-grant", "password"]].concat();
    let told = desk.json_with(&bad, "refresh").await.refusal("invalid");
    let violations = told["violations"].as_array().expect("a list").iter();
    let fields: Vec<&str> = violations.filter_map(|one| one["field"].as_str()).collect();
    assert_eq!(fields, ["oauth.token_endpoint", "oauth.client", "oauth.grant"], "{told}");
    let good = [&form[..], &["--oauth", "https://id.example/token", "--oauth-client", "app"]].concat();
    let told = desk.json_with(&good, r#"{"client_secret":"s3cret"}"#).await.refusal("invalid");
    assert_eq!(told["violations"][0]["rule"], "oauth.secret", "{told}");
    assert!(!told.to_string().contains("s3cret"));
    // Tokens without the word for them: what is named is where they come from.
    let form: Vec<&str> = good.iter().map(|word| if *word == "oauth2" { "password" } else { word }).collect();
    let told = desk.json_with(&form, "secret").await.refusal("invalid");
    assert_eq!(told["violations"][0]["rule"], "oauth.absent", "{told}");
}

/// Would miss a token in an encoding of its own; base64 is looked for at each of its three alignments.
#[tokio::test]
async fn no_token_is_in_any_output_or_file() {
    let (desk, provider) = desk_and_provider().await;
    let (url, smtp, imap) =
        (provider.url(), desk.server.smtp_port().to_string(), desk.server.imap_port().to_string());
    let secret =
        format!(r#"{{"refresh_token":"{}","client_secret":"canary-s3cret"}}"#, provider.grant(LOGIN));
    let of_both = ["--server", "127.0.0.1", "--user", LOGIN, "--password-stdin", "--danger-plaintext"];
    let tokens = ["--oauth", &url, "--oauth-client", "app"];
    let outbox = ["mailbox", "add", "outbox", "--description", "out", "--port", &smtp, "--tls", "none"];
    let outbox = [&outbox[..], &["--auth", "oauth2", "--sender", LOGIN], &of_both, &tokens].concat();
    let inbox = ["mailbox", "add", "inbox", "--description", "in", "--port", &imap, "--provider", "imap"];
    let inbox = [&inbox[..], &["--baseline", "all"], &of_both, &tokens].concat();
    let commands: [&[&str]; 9] = [
        &outbox,
        &["mailbox", "probe", "1"],
        &["standard", "1"],
        &["send", "--contract", "ACME", "--to", LOGIN, "--subject", "S", "--text", "T"],
        &inbox,
        &["run", "--until-idle", "--verbose", "--deliver-to", "out"],
        &["health"],
        &["export"],
        &["audit"],
    ];
    let mut outputs = String::new();
    let mut call = async |command: &[&str]| {
        let mut call = desk.command(command);
        call.env("POSTROOM_LOG", "trace");
        let said = finished(call, &secret).await;
        outputs.push_str(&said.stdout);
        outputs.push_str(&said.stderr);
    };
    for command in commands {
        call(command).await;
    }
    // And where tokens are refused, by the server and by the provider.
    desk.server.expire_tokens(LOGIN);
    call(&["mailbox", "probe", "1"]).await;
    provider.revoke(LOGIN);
    call(&["mailbox", "probe", "1"]).await;
    call(&["mailbox", "probe", "2"]).await;
    assert_eq!(desk.server.accepted_count(), 1, "{outputs}");
    assert!(outputs.contains("TRACE") && outputs.contains("token"), "no log at all");
    let base64 = ["YWNjZXNzLWJveEBhY21l", "FjY2Vzcy1ib3hAYWNtZ", "hY2Nlc3MtYm94QGFjbW"];
    for needle in ["access-box", "refresh-box", "canary-s3cret"].into_iter().chain(base64) {
        assert!(!outputs.contains(needle), "{needle} is in an output");
        for path in desk.files("").iter().chain(&desk.files("out")).filter(|path| path.is_file()) {
            let bytes = std::fs::read(path).expect("a file");
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} is in {}", path.display());
        }
    }
}
