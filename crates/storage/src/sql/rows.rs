//! Rows and core types: how a value stands in a column and how it is read back. Nothing here knows which database it is,
//! and no SQL stands here.

use std::fmt::Display;
use std::str::FromStr;

#[cfg(any(feature = "mysql", feature = "sqlite"))]
use data_encoding::HEXLOWER;
use postroom_core::id::{Actor, BodyId, ClaimId, LedgerId, MailboxId, QueueId, Revision, WorkerId};
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use postroom_core::id::{ContractId, RecordId};
use postroom_core::ledger::Place;
use postroom_core::mailbox::{Mailbox, MailboxDraft};
use postroom_core::message::Priority;
use postroom_core::suppression::Suppression;
use postroom_core::time::Timestamp;
use postroom_core::violation::Invalid;
use serde::Serialize;
use serde::de::DeserializeOwned;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Contact;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use crate::ledger::Received;
use crate::transition;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use crate::transition::ledger::LedgerRow;
use crate::transition::place::PlaceRow;
use crate::watches::{Watch, Way};

/// A row that was written by a newer release, or damaged.
pub(super) fn unreadable() -> Error {
    Error::new(ErrorKind::Unreadable, "read a row")
}

/// Reads a value from its text form.
pub(super) fn text<T: FromStr<Err = Invalid>>(text: &str) -> Result<T> {
    text.parse().map_err(|_| unreadable())
}

/// Reads a value that may be absent from its text form.
pub(super) fn optional<T: FromStr<Err = Invalid>>(from: Option<String>) -> Result<Option<T>> {
    from.as_deref().map(text).transpose()
}

/// Writes a value's text form.
pub(super) fn shown<T: Display>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

/// Reads JSON.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| unreadable())
}

/// Writes JSON.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let failed = |source| Error::new(ErrorKind::Unreadable, "write a row").with_source(source);
    serde_json::to_string(value).map_err(failed)
}

/// Reads a number that is never negative.
pub(super) fn small<T: TryFrom<i64>>(number: i64) -> Result<T> {
    T::try_from(number).map_err(|_| unreadable())
}

/// Writes a number that no row exceeds; what does is written as the greatest.
pub(super) fn big<T>(number: T) -> i64
where
    i64: TryFrom<T>,
{
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A point in time.
pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The frontier of a place, when it was whole, how far back its baseline goes by date, and when another epoch of its folder last was
/// whole: the answer of each store's CONTACT.
pub(super) type Contacted = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);

/// What these say of the place.
pub(super) fn contact((frontier, whole_at, baseline_at, elsewhere): Contacted) -> Result<Contact> {
    let row = match (frontier, whole_at) {
        (Some(frontier), Some(whole_at)) => {
            let (frontier, whole_at) = (small(frontier)?, time(whole_at));
            Some(PlaceRow { frontier, whole_at, baseline_at: baseline_at.map(time) })
        }
        _ => None,
    };
    Ok(transition::place::contact(row, elsewhere.map(time)))
}

/// The place itself, unless a later epoch of it was seen.
pub(super) fn latest(place: &Place, (epoch,): (Option<i64>,)) -> Result<Place> {
    let epoch = epoch.map_or(Ok(place.epoch), small)?;
    Ok(Place { epoch, ..place.clone() })
}

/// The day of a tally: days since 1970-01-01, in UTC.
pub(super) fn day(now: Timestamp) -> i64 {
    now.as_secs().div_euclid(24 * 60 * 60)
}

/// The greatest page that a query asks for; none for all.
pub(super) fn page(limit: Option<u32>) -> i64 {
    limit.map_or(i64::MAX, i64::from)
}

/// A UUID for JSON that a statement takes apart: 32 hex digits.
pub(super) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Reads what `hex` of SQL wrote; what was null is empty.
#[cfg(feature = "sqlite")]
pub(super) fn unhex(text: &str) -> Result<Option<Uuid>> {
    match text {
        "" => Ok(None),
        text => Uuid::try_parse(text).map(Some).map_err(|_| unreadable()),
    }
}

/// What makes ids of one millisecond unique.
fn random() -> Result<[u8; 10]> {
    let mut bytes = [0; 10];
    let failed = |_| Error::new(ErrorKind::Unavailable, "draw randomness");
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A claim that no other row ever had.
pub(super) fn new_claim(now: Timestamp) -> Result<ClaimId> {
    Ok(ClaimId::new(now, random()?))
}

/// The id of a content that comes with its mail.
pub(super) fn new_body_id(now: Timestamp) -> Result<BodyId> {
    Ok(BodyId::new(now, random()?))
}

/// The id of a mail that was never fetched.
pub(super) fn new_ledger_id(now: Timestamp) -> Result<LedgerId> {
    Ok(LedgerId::new(now, random()?))
}

/// The place of a priority in the order of claiming.
pub(super) fn rank(priority: Priority) -> i64 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// The ids for JSON that a statement takes apart.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn queue_ids(ids: impl IntoIterator<Item = QueueId>) -> Result<String> {
    to_json(&ids.into_iter().map(|id| hex(id.uuid())).collect::<Vec<_>>())
}

/// The ids for JSON that a statement takes apart.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn ledger_ids(ids: impl IntoIterator<Item = LedgerId>) -> Result<String> {
    to_json(&ids.into_iter().map(|id| hex(id.uuid())).collect::<Vec<_>>())
}

/// Where a received mail lies and what its bytes are, for JSON that a statement takes apart.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn sought(mail: &Received) -> Value {
    let place = &mail.place;
    json!([place.mailbox.number(), place.folder, place.epoch, mail.key, HEXLOWER.encode(&mail.sha256)])
}

/// A received mail that is new, for JSON that a statement takes apart.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn received_row(now: Timestamp, mail: &Received, body: BodyId) -> Result<Value> {
    let row = LedgerRow::received(now, mail, Some(body));
    Ok(json!([
        hex(mail.id.uuid()),
        mail.place.mailbox.number(),
        mail.place.folder,
        mail.place.epoch,
        mail.key,
        HEXLOWER.encode(&mail.sha256),
        mail.size,
        mail.arrived.map(Timestamp::as_millis),
        now.as_millis(),
        mail.state,
        mail.contract.as_ref().map(ContractId::as_str),
        to_json(&mail.reasons)?,
        mail.record.as_ref().map(RecordId::as_str),
        mail.message_id,
        mail.sender,
        mail.subject,
        mail.settle_at.map(Timestamp::as_millis),
        hex(body.uuid()),
        row.finished_at.map(Timestamp::as_millis),
    ]))
}

/// The columns of a mailbox: id, settings, status, revision, changed_by, changed_at.
pub(super) type MailboxColumns = (i64, String, String, i64, String, i64);

/// The mailbox that these columns hold.
pub(super) fn mailbox(columns: MailboxColumns) -> Result<Mailbox> {
    let (id, settings, status, revision, changed_by, changed_at) = columns;
    let settings: MailboxDraft = from_json(&settings)?;
    let settings = settings.check().map_err(|_| unreadable())?;
    Ok(Mailbox::new(
        MailboxId::new(id),
        settings,
        text(&status)?,
        Revision::new(revision),
        text::<Actor>(&changed_by)?,
        time(changed_at),
    ))
}

/// The columns of an entry of a suppression list: contract, address, cause, detail, mail, added_at, expires_at.
pub(super) type SuppressionColumns = (String, String, String, String, Option<Uuid>, i64, Option<i64>);

/// The entry that these columns hold.
pub(super) fn suppression(columns: SuppressionColumns) -> Result<Suppression> {
    let (contract, address, cause, detail, mail, added_at, expires_at) = columns;
    Ok(Suppression {
        contract: text(&contract)?,
        address: text(&address)?,
        cause: text(&cause)?,
        detail,
        mail: mail.map(QueueId::from_uuid),
        added_at: time(added_at),
        expires_at: expires_at.map(time),
    })
}

/// The columns of who reads an inbox: mailbox, watcher and its end, way, read_at, due_at.
pub(super) type WatchColumns = (i64, Option<Uuid>, Option<i64>, Option<String>, Option<i64>, Option<i64>);

/// What these columns say of an inbox.
pub(super) fn watch((mailbox, watcher, until, way, read_at, due_at): WatchColumns) -> Result<Watch> {
    Ok(Watch {
        mailbox: MailboxId::new(mailbox),
        watcher: watcher.map(WorkerId::from_uuid),
        until: until.map(time),
        way: way.map(|way| Way::of_word(&way).ok_or_else(unreadable)).transpose()?,
        read_at: read_at.map(time),
        due_at: due_at.map(time),
    })
}
