//! That no secret comes out of the binary, and that nothing but the sealed form of it is in the file.

use crate::desk::{Desk, PASSWORD, finished};

/// Would miss a password in an encoding of its own; the two that protocols use are looked for.
#[tokio::test]
async fn no_password_is_in_any_output_or_file() {
    let desk = Desk::new().await;
    let (inbox, outbox) = (desk.inbox().await, desk.outbox("a@acme.example").await);
    desk.json(&["standard", &outbox]).await.document();
    desk.json(&["contract", "inbox", "ACME", &inbox]).await.document();
    desk.server.deliver("box@acme.example", "Subject: x\r\n\r\nx\r\n");
    let commands: [&[&str]; 13] = [
        &["mailbox", "show", &inbox],
        &["mailbox", "list"],
        &["mailbox", "probe", &inbox],
        &["mailbox", "probe", &inbox, "--server", "localhost", "--user", "other", "--password-stdin"],
        &["mailbox", "edit", &inbox, "--server", "127.0.0.2", "--password-stdin"],
        &["mailbox", "edit", &inbox, "--port", "0", "--password-stdin"],
        &["mailbox", "edit", &inbox, "--server", "localhost", "--password-stdin"],
        &["run", "--until-idle", "--verbose", "--deliver-to", "out"],
        &["health"],
        &["ledger", "list"],
        &["audit"],
        &["export"],
        &["contract", "show", "ACME"],
    ];
    let mut outputs = String::new();
    for command in commands {
        for form in [vec![], vec!["--json"]] {
            let mut call = desk.command(&[form.as_slice(), command].concat());
            call.env("POSTROOM_LOG", "trace");
            let said = finished(call, PASSWORD).await;
            outputs.push_str(&said.stdout);
            outputs.push_str(&said.stderr);
        }
    }
    // The logs were on: an output without them would prove nothing.
    assert!(outputs.contains("TRACE") || outputs.contains("DEBUG"), "no log at all");
    let key = desk.key().split_once(':').expect("id:base64").1;
    // RFC 4616: the sign-in as base64 of NUL user NUL password.
    let plain = "Y2FuYXJ5LVBhNTV3b3Jk";
    for (name, needle) in [("password", PASSWORD), ("base64", plain), ("key", key)] {
        assert!(!outputs.contains(needle), "the {name} is in an output");
        for path in desk.files("").iter().chain(&desk.files("out")).filter(|path| path.is_file()) {
            let bytes = std::fs::read(path).expect("a file");
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "the {name} is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_password_in_the_url_of_the_database_is_never_echoed() {
    let desk = Desk::new().await;
    for (url, code) in [
        ("postgres://ana:canary-Url@127.0.0.1:1/x", 3),
        ("postgres://ana:canary-Url@db.invalid:5432/x", 3),
        ("postgres://ana:canary-Url@[x", 3),
        ("canary-Url", 2),
        ("mysql://ana:canary-Url@127.0.0.1:1/x", 3),
        ("mysql://ana:canary-Url@[x", 3),
        ("oracle://canary-Url", 2),
        ("ftp://x:canary-Url@y", 2),
    ] {
        for arguments in
            [&["--database", url, "mailbox", "list"][..], &["--json", "--database", url, "migrate"]]
        {
            let said = desk.call(arguments).await;
            assert_eq!(said.code, Some(code), "{said:?}");
            assert!(!said.stderr.contains("canary-Url"), "{said:?}");
        }
        let mut command = desk.command(&["--help"]);
        command.env("POSTROOM_DATABASE", url);
        let said = finished(command, "").await;
        assert!(!said.stdout.contains("canary-Url"), "{said:?}");
    }
}

#[tokio::test]
async fn a_key_file_is_taken_and_one_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new().await;
    let id = desk.inbox().await;
    let file = desk.file("keys", &format!("{}\n", desk.key()));
    let probe = async |mode: u32| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("permissions");
        let mut command = desk.command(&["--key-file", &file, "mailbox", "probe", &id]);
        command.env_remove("POSTROOM_KEY");
        finished(command, "").await
    };
    let (open, closed) = (probe(0o644).await, probe(0o600).await);
    assert_eq!((open.code, closed.code), (Some(0), Some(0)), "{open:?} {closed:?}");
    assert!(open.stderr.contains("chmod 600") && !closed.stderr.contains("chmod"), "{open:?} {closed:?}");
    // Another key opens nothing, and says so instead of sending an empty password.
    let other = desk.call(&["key", "generate"]).await.stdout;
    let mut command = desk.command(&["mailbox", "probe", &id]);
    command.env("POSTROOM_KEY", other.trim());
    let said = finished(command, "").await;
    assert!(said.code == Some(1) && said.stderr.contains("error [sealing]"), "{said:?}");
}
