//! The sequence of events: written with each change by whoever makes it, read in the order of the numbers. One writes at a
//! time, so the order of the numbers is that of the commits.

use async_trait::async_trait;
use postroom_core::id::{EventNumber, LedgerId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::connection::failed;
use super::store::SqliteStore;
use crate::error::Result;
use crate::events::{EventRecord, EventSubject, Events};
use crate::sql::rows::{optional, small, time, unreadable};

pub(super) const EVENTS: &str = "SELECT e.number, e.at, e.noun, e.mail,
        coalesce(e.mailbox, q.outbox, l.mailbox), coalesce(q.contract, l.contract),
        e.recipient, e.what, e.state, e.detail, e.actor
    FROM postroom_event e
    LEFT JOIN postroom_queue_mail q ON e.noun = 'queue' AND q.id = e.mail
    LEFT JOIN postroom_ledger_mail l ON e.noun = 'ledger' AND l.id = e.mail
    WHERE e.number > ?1 ORDER BY e.number LIMIT ?2";

type Columns = (
    i64,
    i64,
    String,
    Option<Uuid>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    String,
    Option<String>,
    String,
    Option<String>,
);

fn event(columns: Columns) -> Result<EventRecord> {
    let (number, at, noun, mail, mailbox, contract, recipient, what, state, detail, actor) = columns;
    let mailbox = mailbox.map(MailboxId::new);
    let subject = match (noun.as_str(), mail, mailbox) {
        ("queue", Some(id), _) => EventSubject::Queue(QueueId::from_uuid(id)),
        ("ledger", Some(id), _) => EventSubject::Ledger(LedgerId::from_uuid(id)),
        ("mailbox", None, Some(id)) => EventSubject::Mailbox(id),
        _ => return Err(unreadable()),
    };
    Ok(EventRecord {
        number: EventNumber::new(number),
        at: time(at),
        subject,
        contract: optional(contract)?,
        mailbox,
        recipient: recipient.map(small).transpose()?,
        what,
        state,
        detail,
        actor: optional(actor)?,
    })
}

/// Adds what happened to a mailbox, in the transaction that records it.
pub(super) async fn note_mailbox(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mailbox: MailboxId,
    (what, detail): (&str, &str),
) -> Result<()> {
    let sql = "INSERT INTO postroom_event (at, noun, mailbox, what, detail)
        SELECT ?1, 'mailbox', id, ?3, ?4 FROM postroom_mailbox WHERE id = ?2";
    let insert = sqlx::query(sql).bind(now.as_millis()).bind(mailbox.number()).bind(what).bind(detail);
    insert.execute(tx).await.map_err(failed("write an event"))?;
    Ok(())
}

#[async_trait]
impl Events for SqliteStore {
    async fn events(&self, after: EventNumber, limit: u32) -> Result<Vec<EventRecord>> {
        const STAGE: &str = "read events";
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(EVENTS).bind(after.number()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<Columns> = read.finish(rows).await?;
        rows.into_iter().map(event).collect()
    }
}
