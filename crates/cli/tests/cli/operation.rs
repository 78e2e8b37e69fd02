//! What an operator does about mail that was submitted.

use serde_json::{Value, json};

use crate::desk::Desk;

/// A desk whose standard outbox is `a@acme.example`.
async fn desk() -> Desk {
    let desk = Desk::new().await;
    let outbox = desk.outbox("Desk <a@acme.example>").await;
    desk.json(&["standard", &outbox]).await.document();
    desk
}

async fn send(desk: &Desk, subject: &str, more: &[&str]) -> String {
    let letter =
        ["send", "--contract", "A", "--to", "x@elsewhere.example", "--subject", subject, "--text", "x"];
    desk.json(&[&letter[..], more].concat()).await.id()
}

fn numbers(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["number"].as_str().expect("a number")).collect()
}

#[tokio::test]
async fn a_script_reads_each_event_once_by_keeping_the_last_number() {
    let desk = desk().await;
    let id = send(&desk, "one", &[]).await;
    desk.json(&["run", "--until-idle"]).await.document();
    let events = desk.json(&["events"]).await.lines();
    let told: Vec<_> = events.iter().map(|event| event["what"].as_str().expect("a word")).collect();
    assert_eq!(told, ["queued", "claim", "mark", "accept"]);
    for event in &events {
        let its = (&event["noun"], &event["id"], &event["contract"]);
        assert_eq!(its, (&"queue".into(), &id.as_str().into(), &"A".into()), "{event}");
    }
    let first = desk.json(&["events", "--limit", "2"]).await.lines();
    let rest = desk.json(&["events", "--after", numbers(&first)[1]]).await.lines();
    assert_eq!([numbers(&first), numbers(&rest)].concat(), numbers(&events));
    assert!(desk.call(&["events"]).await.stdout.contains(&format!("queue {id}")));
}

#[tokio::test]
async fn a_mail_goes_by_another_outbox_that_its_contract_or_standard_names() {
    let desk = desk().await;
    let other = desk.outbox("Other <b@acme.example>").await;
    desk.json(&["queue", "pause"]).await.document();
    let id = send(&desk, "moved", &[]).await;
    desk.json(&["queue", "reroute", &id, &other]).await.refusal("outbox-not-named");
    desk.json(&["contract", "link", "A", "--outbox", &other]).await.document();
    let moved = desk.json(&["--actor", "ana", "queue", "reroute", &id, &other]).await.document();
    assert_eq!((&moved["outbox"], &moved["state"]), (&json!(other), &json!("queued")), "{moved}");
    desk.json(&["queue", "resume"]).await.document();
    desk.json(&["run", "--until-idle"]).await.document();
    let mail = desk.server.find_accepted_by_subject("moved").expect("it arrived");
    assert_eq!(mail.mail_from, "b@acme.example");
    assert_eq!(mail.header("Reply-To").as_deref(), Some("\"Desk\" <a@acme.example>"));
    let shown = desk.json(&["queue", "show", &id]).await.document();
    let entry = shown["timeline"].as_array().expect("a timeline").iter().find(|one| one["what"] == "reroute");
    assert_eq!(entry.expect("it is told")["actor"], "ana");
    desk.json(&["queue", "reroute", &id, &other]).await.refusal("not-possible");
}

#[tokio::test]
async fn a_mail_waits_for_its_time_and_the_first_goes_first() {
    let desk = desk().await;
    desk.json(&["mailbox", "edit", "1", "--max-connections", "1"]).await.document();
    let late = send(&desk, "late", &["--not-before", "2999-01-01T00:00:00Z"]).await;
    for priority in ["low", "normal", "high"] {
        send(&desk, priority, &["--priority", priority]).await;
    }
    desk.json(&["run", "--until-idle"]).await.document();
    let subjects: Vec<_> = desk.server.accepted().iter().filter_map(|mail| mail.header("Subject")).collect();
    assert_eq!(subjects, ["high", "normal", "low"]);
    let shown = desk.json(&["queue", "show", &late]).await.document();
    let due = "2999-01-01T00:00:00";
    assert_eq!(shown["state"], "queued");
    assert!(shown["due_at"].as_str().is_some_and(|at| at.starts_with(due)), "{shown}");
    // The five days begin when it may first be sent.
    assert!(shown["expires_at"].as_str().is_some_and(|at| at.starts_with("2999-01-06")), "{shown}");
    let letter = ["send", "--contract", "A", "--to", "x@y.example", "--subject", "s", "--text", "t"];
    let early = [&letter[..], &["--not-before", "2999-01-01T00:00:00Z", "--expires", "9"]].concat();
    let told = desk.json(&early).await.refusal("invalid");
    assert_eq!(told["violations"][0]["rule"], "message.expiry");
}

#[tokio::test]
async fn what_a_person_holds_waits_until_the_person_lets_it_go() {
    let desk = desk().await;
    let id = send(&desk, "held", &[]).await;
    assert_eq!(desk.json(&["queue", "hold", &id]).await.document()["state"], "held");
    desk.json(&["run", "--until-idle"]).await.document();
    assert_eq!(desk.json(&["queue", "list", "--state", "held"]).await.lines().len(), 1);
    assert_eq!(desk.json(&["queue", "retry", &id]).await.document()["state"], "queued");
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 1);
    desk.json(&["queue", "hold", &id]).await.refusal("not-possible");
}

#[tokio::test]
async fn after_a_restore_the_unfinished_is_in_doubt_and_a_person_settles_it() {
    let desk = desk().await;
    let [lost, sent] = [send(&desk, "one", &[]).await, send(&desk, "two", &[]).await];
    let recovered =
        desk.json(&["--actor", "ana", "recover", "--since", "2999-01-01T00:00:00Z"]).await.document();
    assert_eq!(recovered, json!({ "doubted": 2, "busy": 0, "taken": [] }));
    let inbox = desk.inbox().await;
    for (after, stays) in [("leave", true), ("seen", true), ("delete:5", false), ("move:Archive", false)] {
        desk.json(&["mailbox", "edit", &inbox, "--after", after]).await.document();
        let told = desk.json(&["recover", "--since", "2999-01-01T00:00:00Z"]).await.document();
        let taken = json!({ "mailbox": inbox, "server": "localhost", "after": after });
        assert_eq!(told["taken"], if stays { json!([]) } else { json!([taken]) });
    }
    let told = desk.call(&["recover", "--since", "2999-01-01T00:00:00Z"]).await.stdout;
    assert!(told.contains(&format!("inbox {inbox} at localhost has move:Archive")), "{told}");
    desk.json(&["run", "--until-idle"]).await.document();
    assert_eq!(desk.server.accepted().len(), 0);
    let shown = desk.json(&["queue", "show", &sent]).await.document();
    let last = shown["timeline"].as_array().and_then(|all| all.last()).expect("a timeline");
    assert_eq!((&last["what"], &last["actor"]), (&"doubt".into(), &"ana".into()));
    assert_eq!(desk.json(&["queue", "settle", &sent, "accepted"]).await.document()["state"], "accepted");
    desk.json(&["queue", "retry", &lost]).await.document();
    desk.json(&["run", "--until-idle"]).await.document();
    assert!(desk.server.accepted().len() == 1 && desk.server.find_accepted_by_subject("one").is_some());
    assert_eq!(desk.call(&["recover", "--since", "yesterday"]).await.code, Some(1));
}

#[tokio::test]
async fn nothing_is_pruned_before_its_time() {
    let desk = desk().await;
    let id = send(&desk, "kept", &[]).await;
    desk.json(&["run", "--until-idle"]).await.document();
    let pruned = desk.json(&["queue", "prune"]).await.document();
    assert_eq!(pruned, json!({ "bodies": 0, "mails": 0, "events": 0 }));
    assert_eq!(desk.json(&["queue", "show", &id]).await.document()["state"], "accepted");

    let inbox = desk.inbox().await;
    desk.json(&["contract", "inbox", "A", &inbox]).await.document();
    desk.json(&["contract", "set", "A", "--retain", "raw=1", "--retain", "timelines=1"]).await.document();
    desk.server.deliver("box@acme.example", "From: ana@client.example\r\nSubject: kept\r\n\r\nkept\r\n");
    desk.json(&["run", "--until-idle", "--deliver-to", "out"]).await.document();
    let pruned = desk.json(&["ledger", "prune"]).await.document();
    assert_eq!(pruned, json!({ "bodies": 0, "mails": 0 }));
    let kept = desk.json(&["ledger", "list", "--state", "handled"]).await.lines();
    assert_eq!((kept.len(), &kept[0]["subject"]), (1, &json!("kept")), "{kept:?}");
    let id = kept[0]["id"].as_str().expect("an id");
    assert!(desk.call(&["ledger", "show", id, "--raw"]).await.stdout.contains("Subject: kept"));
}

/// What a client's data protection officer asks for: nothing of the mail is left, and nothing happens twice.
#[tokio::test]
async fn a_forgotten_contract_leaves_keys_and_what_waits() {
    let desk = desk().await;
    let inbox = desk.inbox().await;
    desk.json(&["contract", "inbox", "A", &inbox]).await.document();
    let keyed = ["--idempotency-key", "order-7", "--record", "T-7"];
    let id = send(&desk, "canary", &keyed).await;
    desk.server
        .deliver("box@acme.example", "From: canary@client.example\r\nSubject: canary\r\n\r\ncanary\r\n");
    let run = ["run", "--until-idle", "--deliver-to", "out"];
    desk.json(&run).await.document();
    desk.json(&["suppression", "add", "A", "bea@client.example"]).await.document();
    desk.json(&["queue", "pause", "--contract", "A"]).await.document();
    let held = send(&desk, "waits", &[]).await;

    let forgotten = desk.json(&["--actor", "ana", "contract", "forget", "A"]).await.document();
    let left = json!({ "queued": 1, "received": 0 });
    assert_eq!(forgotten, json!({ "sent": 1, "received": 1, "suppressions": 1, "waiting": left }));
    let queue = desk.json(&["queue", "list"]).await.stdout;
    let ledger = desk.json(&["ledger", "list"]).await.stdout;
    for listing in [&queue, &ledger, &desk.json(&["events"]).await.stdout] {
        assert!(!listing.contains("canary") && !listing.contains("T-7"), "{listing}");
    }
    let audit = desk.json(&["audit"]).await.lines();
    let entry = audit.iter().find(|entry| entry["action"] == "forget").expect("it is audited");
    assert_eq!((&entry["actor"], &entry["subject"]), (&json!("ana"), &json!("contract/A")), "{entry}");
    // Its links are there, a repetition sends nothing, and the server's mail is known.
    assert_eq!(desk.json(&["contract", "show", "A"]).await.document()["inboxes"], json!([inbox]));
    assert_eq!(send(&desk, "canary", &keyed).await, id);
    assert_eq!(desk.json(&run).await.document()["stored"], 0);
    // What waited is said in words, and goes once it is finished.
    let words = desk.call(&["contract", "forget", "A"]).await.stdout;
    assert!(words.contains("0 sent and 0 received") && words.contains("1 in the queue"), "{words}");
    desk.json(&["queue", "cancel", &held]).await.document();
    assert_eq!(desk.json(&["contract", "forget", "A"]).await.document()["sent"], 1);
}
