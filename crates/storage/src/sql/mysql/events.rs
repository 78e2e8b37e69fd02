//! The sequence of events: written with each change by whoever makes it. Transactions commit in another order than they write, so a
//! place that is drawn while writing says nothing about who was first. Events get their numbers from whoever reads first: of what
//! is committed, in one transaction after the other. So a reader that has seen a number never finds a smaller one that is new.

use async_trait::async_trait;
use postroom_core::id::{EventNumber, LedgerId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use super::connection::{failed, write};
use super::json::json_rows;
use super::store::MySqlStore;
use crate::error::Result;
use crate::events::{EventRecord, EventSubject, Events};
use crate::sql::rows::{optional, small, time, to_json, unreadable};

pub(super) const EVENTS: &str = "SELECT e.number, e.at, e.noun, e.mail,
        COALESCE(e.mailbox, q.outbox, l.mailbox), COALESCE(q.contract, l.contract),
        e.recipient, e.what, e.state, e.detail, e.actor
    FROM postroom_event e FORCE INDEX (postroom_event_number)
    LEFT JOIN postroom_queue_mail q ON e.noun = 'queue' AND q.id = e.mail
    LEFT JOIN postroom_ledger_mail l ON e.noun = 'ledger' AND l.id = e.mail
    WHERE e.number > ?
    ORDER BY e.number LIMIT ?";

/// Those that have no number yet, in the order of writing: of one transaction they stay in their order.
pub(super) const NEW: &str = "SELECT place FROM postroom_event FORCE INDEX (postroom_event_number)
    WHERE number IS NULL ORDER BY place LIMIT ?";

/// Whoever gives numbers has the sequence to himself: his statements see what the one before has committed.
const LAST: &str = "SELECT last FROM postroom_sequence WHERE name = 'event' FOR UPDATE";

const GIVEN: &str = "UPDATE postroom_sequence SET last = ? WHERE name = 'event'";

pub(super) const GIVE: &str = concat!(
    "UPDATE ",
    json_rows!("?"; event number ""),
    " j STRAIGHT_JOIN postroom_event e FORCE INDEX (PRIMARY) ON e.place = j.event SET e.number = ? + j.place"
);

/// How many events get their numbers in one transaction.
const TOGETHER: u32 = 2000;

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
    tx: &mut MySqlConnection,
    now: Timestamp,
    mailbox: MailboxId,
    (what, detail): (&str, &str),
) -> Result<()> {
    const SQL: &str = "INSERT INTO postroom_event (at, noun, mailbox, what, detail)
        SELECT ?, 'mailbox', id, ?, ? FROM postroom_mailbox WHERE id = ?";
    let insert = sqlx::query(SQL).bind(now.as_millis()).bind(what).bind(detail).bind(mailbox.number());
    insert.execute(tx).await.map_err(failed("write an event"))?;
    Ok(())
}

/// Gives numbers to some events. Gives whether there may be more.
async fn give_numbers(tx: &mut MySqlConnection) -> Result<bool> {
    const STAGE: &str = "number events";
    let (last,): (i64,) = sqlx::query_as(LAST).fetch_one(&mut *tx).await.map_err(failed(STAGE))?;
    let new = sqlx::query_as(NEW).bind(i64::from(TOGETHER)).fetch_all(&mut *tx).await;
    let new: Vec<(i64,)> = new.map_err(failed(STAGE))?;
    let places: Vec<i64> = new.into_iter().map(|(place,)| place).collect();
    let Ok(count) = i64::try_from(places.len()) else { return Ok(false) };
    if count == 0 {
        return Ok(false);
    }
    let give = sqlx::query(GIVE).bind(to_json(&places)?).bind(last);
    give.execute(&mut *tx).await.map_err(failed(STAGE))?;
    let given = sqlx::query(GIVEN).bind(last.saturating_add(count));
    given.execute(tx).await.map_err(failed(STAGE))?;
    Ok(count == i64::from(TOGETHER))
}

#[async_trait]
impl Events for MySqlStore {
    async fn events(&self, after: EventNumber, limit: u32) -> Result<Vec<EventRecord>> {
        const STAGE: &str = "read events";
        loop {
            let mut read = self.connections.read(STAGE).await?;
            let new = sqlx::query_as(NEW).bind(1).fetch_optional(&mut *read).await.map_err(failed(STAGE));
            let new: Option<(i64,)> = read.finish(new).await?;
            if new.is_none() || !write!(self.connections, STAGE, |tx| give_numbers(tx).await)? {
                break;
            }
        }
        let mut read = self.connections.read(STAGE).await?;
        let query = sqlx::query_as(EVENTS).bind(after.number()).bind(i64::from(limit));
        let rows = query.fetch_all(&mut *read).await.map_err(failed(STAGE));
        let rows: Vec<Columns> = read.finish(rows).await?;
        rows.into_iter().map(event).collect()
    }
}
