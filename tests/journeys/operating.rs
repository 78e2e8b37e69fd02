//! What an operator or the Sent folder does about mail that left its way, over real protocols.

use postroom::core::mailbox::SettingsDraft;
use postroom::core::queue::State;
use postroom_testkit::{Fault, MailServer};

use crate::desk::*;

/// The desk's outbox, whose companion is the desk's inbox.
async fn with_companion(desk: &Desk, server: &MailServer) {
    let inbox = desk.register(&inbox(server, "imaps")).await;
    let mut draft = outbox(server, "starttls");
    if let SettingsDraft::Outbox(form) = &mut draft.settings {
        form.companion = Some(inbox.id);
    }
    let outbox = desk.register(&draft).await;
    desk.link("ACME", Some(outbox.id), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_lost_is_proven_by_the_copy_in_the_sent_folder_without_a_second_dot() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, server) = (Desk::open(folder.path()).await, server().await);
    with_companion(&desk, &server).await;
    server.create_folder("desk@acme.example", "Sent");
    server.fault(Fault::lost_reply().times(1));
    let mail = desk.submit("ACME", "ana@customer.example", "lost").await;
    desk.work().await;
    assert_eq!(desk.show(&mail).await.item.state, State::InDoubt);
    // Would miss a find of another mail.
    let put = |message_id: &str| {
        let copy = format!("Subject: lost\r\nMessage-ID: {message_id}\r\n\r\ntext\r\n");
        server.deliver_to_folder("desk@acme.example", "Sent", copy);
    };
    put("<another@acme.example>");
    desk.work().await;
    assert_eq!(desk.show(&mail).await.item.state, State::InDoubt);
    put(&mail.message_id);
    desk.work().await;
    let record = desk.show(&mail).await;
    assert_eq!(record.item.state, State::Accepted);
    assert!(
        record.timeline.last().unwrap().detail.starts_with("found in folder Sent of inbox"),
        "{record:?}"
    );
    desk.work().await;
    assert_eq!(server.find_accepted_by_message_id(&mail.message_id).len(), 1);
    assert_eq!(server.accepted().len(), 1, "no second dot");
}
