//! Mail out and mail in by the binary alone.

use std::time::{Duration, SystemTime};

use postroom_testkit::Refusal;
use serde_json::Value;

use crate::desk::{Desk, PASSWORD, finished};

const SOON: Duration = Duration::from_secs(20);

fn send<'a>(contract: &'a str, subject: &'a str) -> Vec<&'a str> {
    vec![
        "send",
        "--contract",
        contract,
        "--to",
        "Ana <ana@elsewhere.example>",
        "--subject",
        subject,
        "--text",
        "hello",
    ]
}

#[tokio::test]
async fn each_contract_sends_by_its_own_outbox_once() {
    let desk = Desk::new().await;
    let (own, standard, step) = (
        desk.outbox("Own <own@acme.example>").await,
        desk.outbox("standard@acme.example").await,
        desk.outbox("step@acme.example").await,
    );
    desk.json(&["standard", &standard]).await.document();
    desk.json(&["contract", "link", "A", "--outbox", &own]).await.document();
    let template = "Subject: Ticket ${N}\n\nDear ${WHO}";
    let setup = ["step", "link", "TICKET", "opened", "--specific", &step, "--template", template];
    desk.json(&[&setup[..], &["--recipient", "desk@elsewhere.example"]].concat()).await.document();

    let sent = [
        desk.json(&send("A", "by own")).await.document(),
        desk.json(&send("B", "by standard")).await.document(),
        desk.json(&[
            "notify",
            "--contract",
            "B",
            "--step",
            "TICKET/opened",
            "--value",
            "N=7",
            "--value",
            "WHO=Ana",
        ])
        .await
        .document(),
    ];
    let first: Vec<_> =
        sent.iter().map(|sent| (sent["outbox"].clone(), sent["reasons"][0].clone())).collect();
    assert_eq!(
        first,
        [(own.into(), "contract".into()), (standard.into(), "standard".into()), (step.into(), "step".into())]
    );
    // The mails are queued, durably, and nothing has left.
    assert_eq!(desk.json(&["queue", "list", "--state", "queued"]).await.lines().len(), 3);
    assert_eq!(desk.server.accepted().len(), 0);

    let counts = desk.json(&["run", "--until-idle"]).await.document();
    assert_eq!(counts["accepted"], 3, "{counts}");
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 0);
    let accepted = desk.server.accepted();
    assert_eq!(accepted.len(), 3, "a mail was sent twice");
    for (sent, from) in sent.iter().zip(["own@acme.example", "standard@acme.example", "step@acme.example"]) {
        let message_id = sent["message_id"].as_str().expect("a Message-ID");
        let found = desk.server.find_accepted_by_message_id(message_id);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].mail_from, from);
        let shown = desk.json(&["queue", "show", sent["id"].as_str().expect("an id")]).await.document();
        assert_eq!(
            (&shown["state"], &shown["recipients"][0]["state"]),
            (&"accepted".into(), &"accepted".into())
        );
        assert!(shown["timeline"].as_array().is_some_and(|entries| entries.len() >= 2), "{shown}");
    }
    assert!(desk.server.find_accepted_by_subject("Ticket 7").is_some());
}

#[tokio::test]
async fn the_same_key_and_content_is_the_same_mail_and_other_content_is_refused() {
    let desk = Desk::new().await;
    let outbox = desk.outbox("a@acme.example").await;
    desk.json(&["standard", &outbox]).await.document();
    let keyed = |subject| [send("A", subject), vec!["--idempotency-key", "order-7"]].concat();
    let first = desk.json(&keyed("one")).await.document();
    let again = desk.json(&keyed("one")).await.document();
    assert_eq!((&first["id"], &again["existing"]), (&again["id"], &true.into()));
    let told = desk.json(&keyed("two")).await.refusal("idempotency-conflict");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("subject")), "{told}");
    assert_eq!(desk.json(&["queue", "list"]).await.lines().len(), 1);
}

#[tokio::test]
async fn a_received_mail_is_written_once_with_its_contract_and_reasons() {
    let desk = Desk::new().await;
    let inbox = desk.inbox().await;
    desk.json(&["contract", "inbox", "Aço S/A", &inbox]).await.document();
    let mail = "From: Rui <rui@client.example>\r\nTo: box@acme.example\r\nSubject: =?utf-8?q?Ol=C3=A1?=\r\n\
        Message-ID: <1@client.example>\r\n\r\nIt is broken.\r\n";
    desk.server.deliver("box@acme.example", mail);
    let run = ["run", "--until-idle", "--deliver-to", "out"];
    assert_eq!(desk.json(&run).await.document()["handled"], 1);

    let files = desk.files("out");
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(std::fs::read(files[0].with_extension("eml")).expect("read"), mail.as_bytes());
    let written: Value =
        serde_json::from_slice(&std::fs::read(files[0].with_extension("json")).expect("read")).expect("json");
    assert_eq!(written["contract"], "Aço S/A");
    assert_eq!(written["mailbox"], inbox.as_str());
    assert_eq!(written["reasons"], serde_json::json!(["box"]));
    assert_eq!((&written["subject"], &written["automatic"]), (&"Olá".into(), &false.into()));
    assert!(written["text"].as_str().is_some_and(|text| text.contains("broken")), "{written}");
    assert_eq!(written["envelope"]["message_id"], "<1@client.example>");

    let before = std::fs::metadata(&files[0]).expect("a file").modified().expect("a time");
    assert_eq!(desk.json(&run).await.document()["stored"], 0);
    // Handled again, it finds its pair and writes nothing.
    let id = desk.json(&["ledger", "list"]).await.lines()[0]["id"].as_str().expect("an id").to_owned();
    desk.json(&["ledger", "replay", &id]).await.document();
    assert_eq!(desk.json(&run).await.document()["handled"], 1);
    assert_eq!(desk.files("out"), files);
    assert_eq!(std::fs::metadata(&files[0]).expect("a file").modified().expect("a time"), before);
    assert_eq!(desk.call(&["ledger", "show", &id, "--raw"]).await.stdout, mail);
}

/// Over real IMAP. Would miss a mark that stands in the ledger and that nobody is shown.
#[tokio::test]
async fn old_mail_of_a_renumbered_folder_is_shown_as_historic() {
    let desk = Desk::new().await;
    let form = desk.inbox_form(&["mailbox", "add", "inbox"]);
    let only_new: Vec<&str> = form.iter().map(|word| if word == "all" { "new" } else { word }).collect();
    let inbox = desk.json_with(&only_new, PASSWORD).await.id();
    desk.json(&["contract", "inbox", "ACME", &inbox]).await.document();
    let run = ["run", "--until-idle", "--deliver-to", "out"];
    let years_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let mail =
        |subject: &str| format!("From: rui@client.example\r\nSubject: {subject}\r\n\r\nIt is broken.\r\n");
    desk.server.deliver_dated("box@acme.example", "INBOX", mail("old"), years_ago);
    desk.json(&run).await.document();
    desk.server.deliver("box@acme.example", mail("known"));
    desk.json(&run).await.document();
    desk.server.reset_uid_validity("box@acme.example", "INBOX");
    desk.server.deliver("box@acme.example", mail("new"));
    desk.json(&run).await.document();

    let written = desk.files("out").into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut historic = written
        .map(|path| serde_json::from_slice(&std::fs::read(path).expect("read")).expect("json"))
        .map(|written: Value| (written["subject"].to_string(), written["historic"].clone()))
        .collect::<Vec<_>>();
    historic.sort_by(|one, other| one.0.cmp(&other.0));
    let marked = [("known", false), ("new", false), ("old", true)];
    assert_eq!(historic, marked.map(|(subject, is_old)| (format!("\"{subject}\""), is_old.into())));
    let list = desk.call(&["ledger", "list"]).await.stdout;
    assert_eq!(list.lines().filter(|line| line.contains("handled, historic")).count(), 1, "{list}");
    let rows = desk.json(&["ledger", "list"]).await.lines();
    let old = rows.iter().find(|row| row["subject"] == "old").expect("it is in the ledger");
    assert_eq!(old["reasons"], serde_json::json!(["box", "historic"]));
}

#[tokio::test]
async fn an_answer_comes_back_with_the_record_of_what_it_answers() {
    let desk = Desk::new().await;
    let (outbox, inbox) = (desk.outbox("box@acme.example").await, desk.inbox().await);
    desk.json(&["standard", &outbox]).await.document();
    desk.json(&["contract", "inbox", "ACME", &inbox]).await.document();
    let sent = desk.json(&[send("ACME", "Your ticket"), vec!["--record", "T-7"]].concat()).await.document();
    desk.json(&["run", "--until-idle", "--only", "send"]).await.document();
    let answer = format!(
        "From: ana@elsewhere.example\r\nTo: box@acme.example\r\nSubject: Re: Your ticket\r\nIn-Reply-To: {}\r\n\r\nThanks\r\n",
        sent["message_id"].as_str().expect("a Message-ID")
    );
    desk.server.deliver("box@acme.example", answer);
    desk.json(&["run", "--until-idle", "--only", "receive", "--deliver-to", "out"]).await.document();
    let json = desk
        .files("out")
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "json"))
        .expect("a pair");
    let written: Value = serde_json::from_slice(&std::fs::read(json).expect("read")).expect("json");
    assert_eq!(written["record"], "T-7", "{written}");
}

#[tokio::test]
async fn what_is_paused_waits_and_leaves_when_it_is_resumed() {
    let desk = Desk::new().await;
    let outbox = desk.outbox("a@acme.example").await;
    desk.json(&["standard", &outbox]).await.document();
    desk.json(&["queue", "pause", "--contract", "A"]).await.document();
    desk.json(&send("A", "held up")).await.document();
    desk.json(&send("B", "not held up")).await.document();
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 1);
    assert!(desk.server.find_accepted_by_subject("held up").is_none());
    desk.json(&["queue", "resume", "--contract", "A"]).await.document();
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 1);
    assert!(desk.server.find_accepted_by_subject("held up").is_some());
}

#[tokio::test]
async fn a_refused_recipient_shows_stage_cause_and_remedy_and_can_be_retried() {
    let desk = Desk::new().await;
    let outbox = desk.outbox("a@acme.example").await;
    desk.json(&["standard", &outbox]).await.document();
    desk.server.refuse(Refusal::recipient("ana@elsewhere.example", 550, "5.1.1 no such user").times(1));
    let id = desk.json(&send("A", "refused")).await.id();
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["refused"], 1);
    let told = desk.call(&["queue", "show", &id]).await.stdout;
    for word in ["refused", "rcpt-to", "550 5.1.1 no such user", "retry it"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    desk.json(&["queue", "cancel", &id]).await.refusal("not-possible");
    desk.json(&["queue", "retry", &id]).await.document();
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 1);
}

#[tokio::test]
async fn repeated_mails_are_distinct_and_nothing_is_drawn_where_nobody_watches() {
    let desk = Desk::new().await;
    let outbox = desk.outbox("a@acme.example").await;
    desk.json(&["standard", &outbox]).await.document();
    let said = desk.json(&[send("A", "many"), vec!["--repeat", "100"]].concat()).await;
    assert_eq!(said.stderr, "");
    let ids: std::collections::BTreeSet<String> =
        said.lines().iter().map(|sent| sent["message_id"].to_string()).collect();
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn a_signal_ends_a_worker_well() {
    let desk = Desk::new().await;
    let outbox = desk.outbox("a@acme.example").await;
    desk.json(&["standard", &outbox]).await.document();
    desk.json(&send("A", "before the end")).await.document();
    for signal in ["-TERM", "-INT"] {
        let mut command = desk.command(&["--json", "run"]);
        let child = command.spawn().expect("the binary starts");
        // Once a mail has arrived, the worker listens.
        if signal == "-INT" {
            desk.json(&send("A", "a second one")).await.document();
        }
        let subject = if signal == "-INT" { "a second one" } else { "before the end" };
        desk.server.expect_accepted_by_subject(subject, SOON).await;
        let process = child.id().expect("it runs").to_string();
        let mut kill = tokio::process::Command::new("kill");
        kill.args([signal, &process]).stdin(std::process::Stdio::piped());
        assert_eq!(finished(kill, "").await.code, Some(0));
        let output =
            tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").expect("a status");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let counts: Value = serde_json::from_slice(&output.stdout).expect("a document");
        assert_eq!(counts["accepted"], 1, "{counts}");
    }
    assert_eq!(desk.json(&["queue", "list", "--state", "accepted"]).await.lines().len(), 2);
}
