//! What goes wrong is named by stage, cause and remedy, is lost nowhere, and holds nobody else up.

use postroom::core::mailbox::{MailboxDraft, SettingsDraft, Status};
use postroom::core::queue::State;
use postroom::core::secret::{SecretChange, SecretString};
use postroom::storage::HealthBook;
use postroom::transport::Stage;
use postroom_testkit::{Certificate, MailServer};

use crate::desk::*;

fn probe_secret(password: &str) -> SecretChange {
    SecretChange::Set(SecretString::from(password))
}

async fn failed_stage(desk: &Desk, draft: &MailboxDraft, password: &str) -> (Stage, String) {
    let report = desk.postroom.probe_draft(draft, probe_secret(password), None).await.unwrap();
    let error = report.failure().expect("the probe fails");
    assert!(!error.remedy().is_empty());
    (error.stage(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_names_the_stage_that_fails_for_each_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, server) = (Desk::open(folder.path()).await, server().await);
    let forms = || {
        [outbox(&server, "starttls"), inbox(&server, "imap"), inbox(&server, "pop3"), inbox(&server, "imaps")]
    };
    for draft in forms() {
        let report = desk.postroom.probe_draft(&draft, probe_secret(PASSWORD), None).await.unwrap();
        assert!(report.passed(), "{report:?}");
        assert_eq!(failed_stage(&desk, &draft, "wrong").await.0, Stage::SignIn);
        let closed = MailboxDraft { port: Some(closed_port().into()), ..draft.clone() };
        assert_eq!(failed_stage(&desk, &closed, PASSWORD).await.0, Stage::Tcp);
        let stranger = MailboxDraft { authority: None, ..draft.clone() };
        let (stage, said) = failed_stage(&desk, &stranger, PASSWORD).await;
        assert!(stage == Stage::Tls && said.contains("certificate"), "{stage}: {said}");
        let unknown = MailboxDraft { server: "no-such-host.invalid".to_owned(), ..draft };
        assert_eq!(failed_stage(&desk, &unknown, PASSWORD).await.0, Stage::Dns);
    }
    let mut missing = inbox(&server, "imaps");
    if let SettingsDraft::Inbox(form) = &mut missing.settings {
        form.folder = Some("Nowhere".to_owned());
    }
    let (stage, said) = failed_stage(&desk, &missing, PASSWORD).await;
    assert!(stage == Stage::Folder && said.contains("INBOX"), "the folders that exist are named: {said}");
    assert!(server.accepted().is_empty(), "a probe sends nothing");
}

fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_another_name_or_time_or_signer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path()).await;
    for certificate in [Certificate::Expired, Certificate::WrongName, Certificate::SelfSigned] {
        let builder = MailServer::builder().account("desk@acme.example", PASSWORD).certificate(certificate);
        let server = builder.start().await.unwrap();
        for draft in [
            outbox(&server, "starttls"),
            outbox(&server, "implicit"),
            inbox(&server, "imap"),
            inbox(&server, "pop3s"),
        ] {
            let (stage, said) = failed_stage(&desk, &draft, PASSWORD).await;
            assert!(stage == Stage::Tls && said.contains("certificate"), "{certificate:?}: {stage}: {said}");
        }
        assert!(server.sessions().iter().all(|session| session.login.is_none()), "no password was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_outbox_holds_nobody_up_and_its_mail_leaves_once_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, good, bad) = (Desk::open(folder.path()).await, server().await, server().await);
    let well = desk.register(&outbox(&good, "implicit")).await;
    let wrong = outbox(&bad, "starttls");
    let broken =
        desk.postroom.register(&actor(), &wrong, probe_secret("wrong"), Status::Active).await.unwrap();
    desk.link("BROKEN", Some(broken.id), &[]).await;
    desk.link("WELL", Some(well.id), &[]).await;
    let waits = desk.submit("BROKEN", "ana@customer.example", "waits").await;
    let goes = desk.submit("WELL", "ana@customer.example", "goes").await;
    desk.work().await;
    assert_eq!(desk.show(&goes).await.item.state, State::Accepted);
    let record = desk.show(&waits).await;
    assert_eq!((record.item.state, record.item.attempts), (State::Queued, 0));
    let book: &dyn HealthBook = desk.postroom.store();
    let health = book.health(broken.id).await.unwrap();
    assert!(health.suspended);
    let said = health.last_error.unwrap();
    assert!(
        said.contains("sign-in") && said.contains("check user and password") && !said.contains("wrong"),
        "{said}"
    );
    let revision = broken.revision;
    desk.postroom.edit(&actor(), broken.id, revision, &wrong, probe_secret(PASSWORD)).await.unwrap();
    desk.work().await;
    assert_eq!(desk.show(&waits).await.item.state, State::Accepted);
    assert_eq!((good.accepted().len(), bad.accepted().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_is_shown_with_the_servers_words() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, server) = (Desk::open(folder.path()).await, server().await);
    server.refuse_recipient("gone@customer.example", 550, "5.1.1 nobody here by that name");
    let outbox = desk.register(&outbox(&server, "none")).await;
    desk.postroom.set_standard(&actor(), Some(outbox.id)).await.unwrap();
    let gone = desk.submit("ACME", "gone@customer.example", "gone").await;
    let there = desk.submit("ACME", "ana@customer.example", "there").await;
    desk.work().await;
    let record = desk.show(&gone).await;
    assert_eq!(record.item.state, State::Refused);
    let detail = &record.timeline.last().unwrap().detail;
    for word in ["rcpt-to", "550", "nobody here", "correct the mail or the address"] {
        assert!(detail.contains(word), "{word} is missing: {detail}");
    }
    assert_eq!(desk.show(&there).await.item.state, State::Accepted);
}
