//! What is refused, with which exit code and which words.

use crate::desk::{Desk, PASSWORD};

#[tokio::test]
async fn the_exit_code_says_whether_a_rule_the_usage_or_the_storage_is_the_reason() {
    let desk = Desk::new().await;
    let check = async |arguments: &[&str], want: i32| {
        let said = desk.call(arguments).await;
        assert_eq!(said.code, Some(want), "{arguments:?}: {said:?}");
        assert!(want == 0 || (said.stdout.is_empty() && !said.stderr.is_empty()), "{arguments:?}: {said:?}");
    };
    check(&["rules"], 0).await;
    check(&["--help"], 0).await;
    check(&["mailbox", "show", "999"], 1).await;
    check(&["mailbox", "show", "seven"], 1).await;
    check(&["explain", "--contract", "ACME"], 1).await;
    check(&["mailbox", "paint"], 2).await;
    check(&["mailbox", "add", "inbox"], 2).await;
    check(&["--database", "oracle://db/x", "mailbox", "list"], 2).await;
    check(&["--database", "mysql://127.0.0.1:1/x", "mailbox", "list"], 3).await;
    check(&["--database", "postgres://127.0.0.1:1/x", "mailbox", "list"], 3).await;
    check(&["--database", "sqlite:///no/such/folder/x.db", "migrate"], 3).await;
    check(&["--database", "sqlite:///no/such/folder/x.db", "mailbox", "list"], 3).await;
}

#[tokio::test]
async fn a_file_without_tables_is_not_used_and_the_remedy_is_named() {
    let desk = Desk::new().await;
    let said = desk.call(&["--database", "sqlite://other.db", "mailbox", "list"]).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("postroom migrate"), "{said:?}");
    assert!(!desk.path("other.db").exists(), "a file was made by a listing");
}

#[tokio::test]
async fn every_violation_of_a_form_is_reported_at_once() {
    let desk = Desk::new().await;
    let bad = [
        "mailbox",
        "add",
        "inbox",
        "--description",
        "",
        "--server",
        "http://x",
        "--port",
        "70000",
        "--user",
        "",
        "--provider",
        "smtp",
        "--folder",
        "",
        "--after",
        "burn",
        "--baseline",
        "old",
        "--per-round",
        "0",
    ];
    let told = desk.json(&bad).await.refusal("invalid");
    let mut rules: Vec<_> = told["violations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v["rule"].as_str().expect("a code"))
        .collect();
    rules.sort_unstable();
    assert_eq!(
        rules,
        [
            "inbox.after",
            "inbox.baseline",
            "inbox.folder",
            "inbox.per-round",
            "inbox.provider",
            "mailbox.description",
            "mailbox.password-required",
            "mailbox.port",
            "mailbox.server",
            "mailbox.user",
        ]
    );
    for violation in told["violations"].as_array().expect("a list") {
        assert!(violation["field"].is_string() && violation["message"].is_string(), "{violation}");
    }
    let said = desk.call(&bad).await;
    assert!(said.stderr.contains("[mailbox.port]") && said.stderr.contains("1 to 65535"), "{said:?}");
}

#[tokio::test]
async fn all_that_is_wrong_with_a_mail_is_reported_at_once() {
    let desk = Desk::new().await;
    let bad = [
        "send",
        "--contract",
        "ACME",
        "--to",
        "nobody",
        "--cc",
        "a@b@c",
        "--subject",
        "two\nlines",
        "--text",
        "x",
    ];
    let told = desk.json(&bad).await.refusal("invalid");
    let fields: Vec<_> =
        told["violations"].as_array().expect("a list").iter().map(|v| v["field"].clone()).collect();
    assert_eq!(fields, ["to[0]", "cc[0]", "subject"]);
}

#[tokio::test]
async fn a_password_that_can_not_be_sealed_is_refused_with_the_remedy() {
    let desk = Desk::new().await;
    let form = desk.inbox_form(&["mailbox", "add", "inbox"]);
    let mut command = desk.command(&form.iter().map(String::as_str).collect::<Vec<_>>());
    command.env_remove("POSTROOM_KEY");
    let said = crate::desk::finished(command, PASSWORD).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("--key-file") && said.stderr.contains("key generate"), "{said:?}");
    assert_eq!(desk.json(&["mailbox", "list"]).await.lines(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn a_box_in_use_is_not_deleted_and_what_uses_it_is_named() {
    let desk = Desk::new().await;
    let (first, second) = (desk.outbox("a@acme.example").await, desk.outbox("b@acme.example").await);
    desk.json(&["contract", "link", "ACME", "--outbox", &first]).await.document();
    let told = desk.json(&["mailbox", "delete", &first]).await.refusal("in-use");
    assert_eq!(told["uses"]["contracts"][0], "ACME");
    desk.json(&["mailbox", "delete", &first, "--replace-with", &second]).await.document();
    let explained = desk.json(&["explain", "--contract", "ACME"]).await.document();
    assert_eq!((&explained["outbox"], &explained["reasons"][0]), (&second.into(), &"contract".into()));
}

#[tokio::test]
async fn a_stale_edit_is_a_conflict() {
    let desk = Desk::new().await;
    let id = desk.outbox("a@acme.example").await;
    desk.json(&["mailbox", "edit", &id, "--revision", "1", "--description", "one"]).await.document();
    desk.json(&["mailbox", "edit", &id, "--revision", "1", "--description", "two"]).await.refusal("conflict");
    assert_eq!(desk.json(&["mailbox", "show", &id]).await.document()["description"], "one");
}

#[tokio::test]
async fn a_kept_password_goes_to_no_other_server() {
    let desk = Desk::new().await;
    let id = desk.inbox().await;
    for command in ["edit", "probe"] {
        let told = desk.json(&["mailbox", command, &id, "--server", "127.0.0.1"]).await.refusal("invalid");
        assert_eq!(told["violations"][0]["rule"], "mailbox.password-again", "{command}");
    }
    let said = desk
        .json_with(&["mailbox", "edit", &id, "--server", "127.0.0.1", "--password-stdin"], PASSWORD)
        .await;
    assert_eq!(said.document()["server"], "127.0.0.1");
}
