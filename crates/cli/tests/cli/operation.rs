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
