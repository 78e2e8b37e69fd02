//! Automatic mail and suppressed addresses, as an operator sees them.

use crate::desk::Desk;

async fn desk() -> Desk {
    let desk = Desk::new().await;
    let outbox = desk.outbox("Desk <a@acme.example>").await;
    desk.json(&["standard", &outbox]).await.document();
    desk
}

const LETTER: [&str; 9] =
    ["send", "--contract", "A", "--to", "ana@client.example", "--subject", "s", "--text", "t"];

#[tokio::test]
async fn an_operator_stops_allows_and_frees_an_address() {
    let desk = desk().await;
    let added = desk
        .json(&["suppression", "add", "A", "Ana@client.example", "--because", "left", "--days", "30"])
        .await
        .document();
    assert_eq!((&added["address"], &added["cause"]), (&"ana@client.example".into(), &"operator".into()));
    let told = desk.json(&LETTER).await.refusal("suppressed");
    let message = told["message"].as_str().unwrap_or_default();
    assert!(message.contains("ana@client.example (operator: left)"), "{message}");
    desk.json(&[&LETTER[..], &["--on-suppressed", "send"]].concat()).await.document();
    let listed = desk.json(&["suppression", "list", "--contract", "A"]).await.lines();
    assert_eq!((listed.len(), listed[0]["expires_at"].is_string()), (1, true), "{listed:?}");
    desk.json(&["suppression", "allow", "A", "ana@client.example"]).await.document();
    desk.json(&LETTER).await.document();
    desk.json(&["suppression", "remove", "A", "ana@client.example"]).await.document();
    desk.json(&["suppression", "remove", "A", "ana@client.example"]).await.refusal("not-found");
    assert!(desk.json(&["suppression", "list"]).await.lines().is_empty());
    let audit = desk.json(&["audit"]).await.lines();
    let of = |entry: &&serde_json::Value| entry["subject"] == "suppression/A/ana@client.example";
    assert_eq!(audit.iter().filter(of).count(), 3, "{audit:?}");
}

#[tokio::test]
async fn the_third_automatic_mail_within_an_hour_is_refused_with_the_time_of_the_next() {
    let desk = desk().await;
    let letter = [&LETTER[..], &["--automatic", "notice"]].concat();
    for _ in 0..2 {
        desk.json(&letter).await.document();
    }
    let told = desk.json(&letter).await.refusal("budget");
    let message = told["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("had 2 automatic mails within one hour") && message.contains("fits at "),
        "{message}"
    );
    desk.json(&LETTER).await.document();
}
