//! The registry by the binary: listings, changes, probes, audit, export and import.

use serde_json::{Value, json};

use crate::desk::{Desk, PASSWORD};

#[tokio::test]
async fn a_listing_is_filtered_sorted_and_paged_by_key() {
    let desk = Desk::new().await;
    for sender in ["a@acme.example", "b@acme.example", "c@acme.example"] {
        desk.outbox(sender).await;
    }
    let inbox = desk.inbox().await;
    desk.json(&["contract", "inbox", "ACME", &inbox]).await.document();
    let ids = async |arguments: &[&str]| -> Vec<String> {
        let lines = desk.json(&[&["mailbox", "list"], arguments].concat()).await.lines();
        lines.iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&[]).await.len(), 4);
    assert_eq!(ids(&["--kind", "outbox"]).await.len(), 3);
    assert_eq!(ids(&["--server", "LOCAL"]).await, std::slice::from_ref(&inbox));
    assert_eq!(ids(&["--contract", "ACME"]).await, std::slice::from_ref(&inbox));
    let all = ids(&["--sort", "server", "--desc"]).await;
    let mut paged = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut arguments = vec!["mailbox", "list", "--sort", "server", "--desc", "--limit", "3"];
        arguments.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
        let page = desk.json(&arguments).await.lines();
        paged.extend(page.iter().map(|line| line["id"].as_str().expect("an id").to_owned()));
        let Some(last) = page.last() else { break };
        cursor = last["cursor"].as_str().map(ToOwned::to_owned);
    }
    assert_eq!(paged, all);
    let table = desk.call(&["mailbox", "list"]).await.stdout;
    let header: Vec<_> = table.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["ID", "Server", "Kind", "Description", "Status", "Health"]);
}

#[tokio::test]
async fn a_probe_tells_each_stage_and_names_the_one_that_fails() {
    let desk = Desk::new().await;
    let id = desk.inbox().await;
    let told = desk.json(&["mailbox", "probe", &id]).await.document();
    assert_eq!(told["passed"], true);
    let stages: Vec<_> =
        told["stages"].as_array().expect("a list").iter().map(|s| s["stage"].clone()).collect();
    for stage in ["tcp", "tls", "sign-in", "folder"] {
        assert!(stages.contains(&stage.into()), "{stage}: {told}");
    }
    // Unsaved settings go the same way, and nothing of them is kept.
    let form = desk.inbox_form(&["--json", "mailbox", "probe", "inbox"]);
    let form: Vec<&str> = form.iter().map(String::as_str).collect();
    assert_eq!(desk.call_with(&form, PASSWORD).await.document()["passed"], true);
    let said = desk.call_with(&form, "another password").await;
    assert_eq!(said.code, Some(3), "{said:?}");
    let told: Value = serde_json::from_str(&said.stdout).expect("the report");
    let last = told["stages"].as_array().and_then(|stages| stages.last()).expect("a stage");
    assert_eq!((&last["stage"], &last["passed"]), (&"sign-in".into(), &false.into()));
    assert!(last["remedy"].as_str().is_some_and(|remedy| remedy.contains("password")), "{told}");
    assert!(said.stderr.contains("probe-failed"), "{said:?}");
    assert_eq!(desk.json(&["mailbox", "list"]).await.lines().len(), 1);
    // A change of a saved box is tried without being saved.
    let said = desk.json(&["mailbox", "probe", &id, "--folder", "Nowhere"]).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stdout.contains("\"folder\"") && said.stderr.contains("no such folder"), "{said:?}");
}

#[tokio::test]
async fn settings_that_are_allowed_and_not_good_are_warned_of() {
    let desk = Desk::new().await;
    let said = desk
        .call(&[
            "mailbox",
            "add",
            "outbox",
            "--description",
            "relay",
            "--server",
            "127.0.0.1",
            "--tls",
            "none",
            "--auth",
            "none",
            "--sender",
            "a@acme.example",
        ])
        .await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("plain text"), "{said:?}");
}

#[tokio::test]
async fn an_edit_changes_what_it_names_and_the_audit_tells_who_did_it() {
    let desk = Desk::new().await;
    let id = desk.outbox("a@acme.example").await;
    let said = desk
        .json(&[
            "--actor",
            "ana",
            "mailbox",
            "edit",
            &id,
            "--per-minute",
            "30",
            "--return-path",
            "r@acme.example",
        ])
        .await;
    assert_eq!(
        (&said.document()["per_minute"], &said.document()["description"]),
        (&30.into(), &"out".into())
    );
    desk.json(&["mailbox", "edit", &id, "--unset", "return-path"]).await.document();
    desk.json(&["mailbox", "disable", &id]).await.document();
    let shown = desk.json(&["mailbox", "show", &id]).await.document();
    assert_eq!(
        (&shown["status"], &shown["return_path"], &shown["revision"]),
        (&"disabled".into(), &Value::Null, &"4".into())
    );
    let audit = desk.json(&["audit", "--mailbox", &id]).await.lines();
    let told: Vec<_> = audit.iter().map(|entry| entry["actor"].clone()).collect();
    assert_eq!(told, ["cli", "ana", "cli", "cli"]);
    assert_eq!(desk.json(&["audit", "--limit", "2"]).await.lines().len(), 2);
    let said = desk.call(&["mailbox", "edit", &id, "--folder", "INBOX"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[tokio::test]
async fn an_exported_registry_is_imported_without_its_passwords() {
    let desk = Desk::new().await;
    let (outbox, inbox) = (desk.outbox("a@acme.example").await, desk.inbox().await);
    desk.json(&["standard", &outbox]).await.document();
    desk.json(&["contract", "link", "ACME", "--outbox", &outbox]).await.document();
    desk.json(&["contract", "inbox", "ACME", &inbox]).await.document();
    desk.json(&["step", "link", "F", "S", "--specific", &outbox]).await.document();
    let exported = desk.call(&["export"]).await.stdout;
    assert!(!exported.contains(PASSWORD));
    let file = desk.file("registry.json", &exported);
    desk.json(&["import", &file]).await.refusal("conflict");

    let other = Desk::new().await;
    // The numbers are other ones where some are taken.
    other.outbox("x@acme.example").await;
    let imported = other.json(&["import", &file]).await.document();
    assert_eq!((&imported["contracts"], &imported["steps"]), (&1.into(), &1.into()));
    let new = imported["mailboxes"][0]["id"].as_str().expect("an id");
    let explained = other.json(&["explain", "--contract", "ACME"]).await.document();
    assert_eq!((explained["outbox"].as_str(), &explained["reasons"][0]), (Some(new), &"contract".into()));
    let drafts = other.json(&["mailbox", "list", "--status", "draft"]).await.lines();
    assert_eq!(drafts.len(), 1);
    let draft = drafts[0]["id"].as_str().expect("an id");
    assert_eq!(other.json(&["mailbox", "show", draft]).await.document()["password"], "none");
    other.json_with(&["mailbox", "edit", draft, "--password-stdin"], PASSWORD).await.document();
    let again = other.json(&["export"]).await.document();
    assert_eq!(again["contracts"][0]["inboxes"], json!([draft]));
}

#[tokio::test]
async fn the_rules_are_printed_as_the_table_that_they_are() {
    let desk = Desk::new().await;
    let rules = desk.json(&["rules"]).await.lines();
    assert!(rules.len() > 50);
    for rule in &rules {
        assert!(["code", "field", "limit", "remedy"].iter().all(|name| rule[name].is_string()), "{rule}");
    }
    assert!(desk.call(&["rules"]).await.stdout.contains("microsoft365"));
}

#[tokio::test]
async fn a_command_leaves_one_whole_file_behind() {
    let desk = Desk::new().await;
    let id = desk.outbox("a@acme.example").await;
    desk.json(&["run", "--until-idle"]).await.document();
    // A copy of the one file is the registry: no journal beside it holds a part.
    assert!(!desk.path("postroom.db-wal").exists(), "{:?}", desk.files(""));
    std::fs::copy(desk.path("postroom.db"), desk.path("copy.db")).expect("a copy");
    let copied = desk.json(&["--database", "sqlite://copy.db", "mailbox", "list"]).await.lines();
    assert_eq!(copied[0]["id"], id.as_str());
}
