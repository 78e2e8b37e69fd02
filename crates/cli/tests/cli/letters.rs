//! The forms that a mail can have on the command line, as they arrive.

use crate::desk::{Desk, PASSWORD};

const TO: [&str; 4] = ["send", "--contract", "A", "--to"];

async fn desk() -> Desk {
    let desk = Desk::new().await;
    let outbox = desk.outbox("Desk <a@acme.example>").await;
    desk.json(&["standard", &outbox]).await.document();
    desk
}

#[tokio::test]
async fn raw_bytes_are_sent_as_they_are_and_only_as_a_registered_sender() {
    let desk = desk().await;
    let raw = "From: a@acme.example\r\nSubject: raw\r\nMessage-ID: <raw@acme.example>\r\n\r\n.dots\r\n..and lines\r\n";
    let file = desk.file("raw.eml", raw);
    let sent = desk.json(&[&TO[..], &["x@elsewhere.example", "--eml", &file]].concat()).await.document();
    assert_eq!(sent["message_id"], "<raw@acme.example>");
    desk.json(&["run", "--until-idle"]).await.document();
    let accepted = desk.server.accepted();
    assert_eq!((accepted.len(), &accepted[0].bytes[..]), (1, raw.as_bytes()));
    let file = desk.file("foreign.eml", &raw.replace("a@acme.example", "boss@acme.example"));
    let told =
        desk.json(&[&TO[..], &["x@elsewhere.example", "--eml", &file]].concat()).await.refusal("invalid");
    assert_eq!(told["violations"][0]["rule"], "message.raw-from");
}

#[tokio::test]
async fn text_html_and_files_go_together_and_bcc_is_in_the_envelope_only() {
    let desk = desk().await;
    let (html, attached) = (desk.file("m.html", "<b>olá</b>"), desk.file("report.pdf", "not really"));
    let letter = [
        "x@elsewhere.example",
        "--cc",
        "y@elsewhere.example",
        "--bcc",
        "z@elsewhere.example",
        "--subject",
        "parts",
        "--text",
        "olá",
        "--html-file",
        &html,
        "--attach",
        &attached,
    ];
    desk.json(&[&TO[..], &letter].concat()).await.document();
    desk.json(&["run", "--until-idle"]).await.document();
    let mail = desk.server.find_accepted_by_subject("parts").expect("it arrived");
    assert_eq!(mail.recipients, ["x@elsewhere.example", "y@elsewhere.example", "z@elsewhere.example"]);
    let text = String::from_utf8(mail.bytes.to_vec()).expect("7-bit");
    assert!(text.is_ascii() && !text.contains("z@elsewhere.example"), "{text}");
    for part in ["text/plain", "text/html", "application/pdf", "report.pdf", "\"Desk\" <a@acme.example>"] {
        assert!(text.contains(part) || text.contains(&part.replace('"', "")), "{part}: {text}");
    }
}

#[tokio::test]
async fn an_answer_joins_the_thread_of_the_mail_that_it_answers() {
    let desk = desk().await;
    let inbox = desk.inbox().await;
    for contract in ["A", "B"] {
        desk.json(&["contract", "inbox", contract, &inbox]).await.document();
    }
    desk.server.deliver("box@acme.example", "Subject: help\r\nMessage-ID: <q@client.example>\r\n\r\nx\r\n");
    let run = ["run", "--until-idle", "--deliver-to", "out"];
    assert_eq!(desk.json(&run).await.document()["handled"], 0, "two contracts, and nothing tells them apart");
    let id = desk.json(&["ledger", "list", "--state", "triage"]).await.lines()[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(desk.call(&["ledger", "show", &id]).await.stdout.contains("undecided"));
    desk.json(&["ledger", "route", &id, "A"]).await.document();
    assert_eq!(desk.json(&run).await.document()["handled"], 1);
    let answer = |contract| {
        ["send", "--contract", contract, "--to", "q@client.example", "--subject", "Re: help", "--text", "x"]
    };
    let threaded = ["--in-reply-to", &id];
    desk.json(&[&answer("A")[..], &threaded].concat()).await.document();
    // Another contract's mail can't be answered: to B it is not there.
    desk.json(&[&answer("B")[..], &threaded].concat()).await.refusal("not-found");
    desk.json(&["run", "--until-idle"]).await.document();
    let mail = desk.server.find_accepted_by_subject("Re: help").expect("it arrived");
    assert_eq!(mail.header("In-Reply-To").as_deref(), Some("<q@client.example>"));
}

#[tokio::test]
async fn a_mail_that_waits_too_long_expires_and_is_not_sent() {
    let desk = desk().await;
    desk.json(&["queue", "pause"]).await.document();
    let letter = ["x@elsewhere.example", "--subject", "late", "--text", "x", "--expires", "1"];
    let id = desk.json(&[&TO[..], &letter].concat()).await.id();
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    desk.json(&["run", "--until-idle"]).await.document();
    assert_eq!(desk.json(&["queue", "show", &id]).await.document()["state"], "expired");
    assert_eq!(desk.server.accepted().len(), 0);
}

#[tokio::test]
async fn a_rejected_sign_in_keeps_the_mail_and_the_mended_box_sends_it() {
    let desk = Desk::new().await;
    let ca = desk.file("ca.pem", desk.server.ca_pem());
    let port = desk.server.smtp_port().to_string();
    let form = [
        "mailbox",
        "add",
        "outbox",
        "--description",
        "signed",
        "--server",
        "localhost",
        "--port",
        &port,
        "--ca",
        &ca,
        "--tls",
        "starttls",
        "--auth",
        "password",
        "--user",
        "box@acme.example",
        "--password-stdin",
        "--sender",
        "a@acme.example",
    ];
    let outbox = desk.json_with(&form, "wrong").await.id();
    desk.json(&["standard", &outbox]).await.document();
    let id = desk
        .json(&[&TO[..], &["x@elsewhere.example", "--subject", "kept", "--text", "x"]].concat())
        .await
        .id();
    desk.json(&["run", "--until-idle"]).await.document();
    let shown = desk.json(&["queue", "show", &id]).await.document();
    assert_eq!(
        (&shown["state"], &shown["outbox_health"]["suspended"]),
        (&"queued".into(), &true.into()),
        "{shown}"
    );
    let told = desk.call(&["queue", "show", &id]).await.stdout;
    for word in ["sign-in", "were refused", "check user and password"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    desk.json_with(&["mailbox", "edit", &outbox, "--password-stdin"], PASSWORD).await.document();
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 1);
    let mail = desk.server.find_accepted_by_subject("kept").expect("it arrived");
    assert!(mail.tls && mail.login.as_deref() == Some("box@acme.example"), "{mail}");
}

#[tokio::test]
async fn an_outbox_that_waits_for_its_limit_says_for_which_and_until_when() {
    let desk = Desk::new().await;
    let outbox = desk.outbox("a@acme.example").await;
    desk.json(&["mailbox", "edit", &outbox, "--per-minute", "1"]).await.document();
    desk.json(&["standard", &outbox]).await.document();
    let send = async |subject: &str| {
        desk.json(&[&TO[..], &["x@elsewhere.example", "--subject", subject, "--text", "x"]].concat())
            .await
            .id()
    };
    let mails = [send("one").await, send("two").await];
    assert_eq!(desk.json(&["run", "--until-idle"]).await.document()["accepted"], 1);
    let health = desk.json(&["health", &outbox]).await.document();
    assert_eq!((&health["waits"]["limit"], &health["limits"][0]["used"]), (&"per-minute".into(), &1.into()));
    let until = health["waits"]["until"].as_str().expect("a time").to_owned();
    let shown = desk.json(&["queue", "show", &mails[1]]).await.document();
    assert_eq!(
        (&shown["state"], &shown["attempts"], &shown["outbox_health"]["waits"]["until"]),
        (&"queued".into(), &0.into(), &until.clone().into()),
        "{shown}"
    );
    let listed = desk.call(&["health"]).await.stdout;
    assert!(listed.contains(&format!("per-minute until {until}")), "{listed}");
    // A number alone says nothing to whoever is called at night.
    let shown = desk.json(&["mailbox", "show", &outbox]).await.document();
    for name in ["description", "server"] {
        let name = shown[name].as_str().expect("a word");
        assert!(listed.contains(name), "{name}: {listed}");
    }
}
