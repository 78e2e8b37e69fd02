//! The sequence of events: written with each change by whoever makes it, read in the order of the numbers. Transactions commit in
//! another order than they draw their numbers. So whoever draws some first says behind which number, by a lock that lasts as long as
//! his transaction, and a reader is given no event behind the least of what is said.

use async_trait::async_trait;
use postroom_core::id::{EventNumber, LedgerId, MailboxId, QueueId};
use postroom_core::time::Timestamp;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::connection::failed;
use super::plain::plain;
use super::store::PgStore;
use crate::error::Result;
use crate::events::{EventRecord, EventSubject, Events};
use crate::sql::rows::{optional, small, time, unreadable};

pub(super) const EVENTS: &str = "SELECT e.number, e.at, e.noun, e.mail,
        coalesce(e.mailbox, q.outbox, l.mailbox), coalesce(q.contract, l.contract),
        e.recipient, e.what, e.state, e.detail, e.actor
    FROM postroom_event e
    LEFT JOIN postroom_queue_mail q ON e.noun = 'queue' AND q.id = e.mail
    LEFT JOIN postroom_ledger_mail l ON e.noun = 'ledger' AND l.id = e.mail
    WHERE e.number > $1
        AND e.number <= $3
    ORDER BY e.number LIMIT $2";

/// A part of each statement that writes events, joined by what it writes: a shared lock whose second key is the last number that
/// anybody has drawn. Nobody waits for it.
macro_rules! drawn_behind {
    () => {
        "drawn_behind AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(
            hashtext('postroom/events/' || current_schema()),
            (coalesce(pg_sequence_last_value(pg_get_serial_sequence('postroom_event', 'number')::regclass), 0)
                % 2147483648)::integer))"
    };
}
pub(super) use drawn_behind;

/// The last number that anybody has drawn. Read before [`OPEN`]: whoever says later that he draws some draws greater ones.
const LAST: &str = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('postroom_event', 'number')::regclass), 0)";

/// Up to which number all is committed or gone, as far as the last number of before goes (`$1`). A second key has 31 bits.
const OPEN: &str = "SELECT coalesce(min($1 - (($1 - objid::bigint) % 2147483648 + 2147483648) % 2147483648), $1)
    FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint = (hashtext('postroom/events/' || current_schema())::bigint + 4294967296) % 4294967296";

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
    tx: &mut PgConnection,
    now: Timestamp,
    mailbox: MailboxId,
    (what, detail): (&str, &str),
) -> Result<()> {
    const SQL: &str = concat!(
        "WITH ",
        drawn_behind!(),
        "INSERT INTO postroom_event (at, noun, mailbox, what, detail)
            SELECT $1, 'mailbox', id, $3, $4 FROM drawn_behind, postroom_mailbox WHERE id = $2"
    );
    let insert = sqlx::query(SQL).bind(now.as_millis()).bind(mailbox.number()).bind(what).bind(plain(detail));
    insert.execute(tx).await.map_err(failed("write an event"))?;
    Ok(())
}

/// What is committed and can be read: three statements, each of which sees what those before it stand on.
async fn rows(connection: &mut PgConnection, after: EventNumber, limit: u32) -> sqlx::Result<Vec<Columns>> {
    let (last,): (i64,) = sqlx::query_as(LAST).fetch_one(&mut *connection).await?;
    let (complete,): (i64,) = sqlx::query_as(OPEN).bind(last).fetch_one(&mut *connection).await?;
    let query = sqlx::query_as(EVENTS).bind(after.number()).bind(i64::from(limit)).bind(complete);
    query.fetch_all(connection).await
}

#[async_trait]
impl Events for PgStore {
    async fn events(&self, after: EventNumber, limit: u32) -> Result<Vec<EventRecord>> {
        const STAGE: &str = "read events";
        let mut read = self.connections.read(STAGE).await?;
        let rows = rows(&mut read, after, limit).await.map_err(failed(STAGE));
        let rows: Vec<Columns> = read.finish(rows).await?;
        rows.into_iter().map(event).collect()
    }
}
