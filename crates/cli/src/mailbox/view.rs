//! What is shown of a mailbox: its form with number and status, never its password.

use postroom::core::id::{Actor, MailboxId, Revision};
use postroom::core::mailbox::{Mailbox, MailboxDraft, Status};
use postroom::core::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::fields;

#[derive(Serialize)]
struct View {
    id: MailboxId,
    status: Status,
    revision: Revision,
    #[serde(flatten)]
    form: MailboxDraft,
    changed_by: Actor,
    changed_at: Timestamp,
}

/// The document of a mailbox.
pub(super) fn document(mailbox: &Mailbox) -> Value {
    json!(View {
        id: mailbox.id,
        status: mailbox.status,
        revision: mailbox.revision,
        form: MailboxDraft::from(&mailbox.settings),
        changed_by: mailbox.changed_by.clone(),
        changed_at: mailbox.changed_at,
    })
}

/// The document for people: of the authorities only how many there are.
pub(super) fn text(document: &Value) -> String {
    let mut document = document.clone();
    if let Some(pem) = document["authority"].as_str() {
        document["authority"] =
            format!("{} in PEM", pem.matches("-----BEGIN CERTIFICATE-----").count()).into();
    }
    fields(&document)
}
