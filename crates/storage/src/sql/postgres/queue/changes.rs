//! What changes of mails, as the columns that a statement writes: an array for each, with an entry for each row. The statement is in
//! `row`.

use postroom_core::id::{ClaimId, QueueId};
use postroom_core::queue::State;
use uuid::Uuid;

use crate::queue::TimelineEntry;
use crate::sql::postgres::plain::plain;
use crate::transition::queue::QueueRow;

/// All that is written of changed mails.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) recipients: Recipients,
    pub(super) open: Open,
    pub(super) finished: Finished,
    pub(super) events: Entries,
}

/// Recipients whose state changed.
#[derive(Default)]
pub(super) struct Recipients {
    pub(super) mails: Vec<Uuid>,
    pub(super) places: Vec<i64>,
    pub(super) states: Vec<&'static str>,
    pub(super) doubted_by: Vec<Option<Uuid>>,
}

/// Mails that are unfinished.
#[derive(Default)]
pub(super) struct Open {
    pub(super) mails: Vec<Uuid>,
    pub(super) states: Vec<&'static str>,
    pub(super) due_at: Vec<i64>,
    pub(super) expires_at: Vec<i64>,
    pub(super) attempts: Vec<i64>,
    pub(super) claims: Vec<Option<Uuid>>,
    pub(super) workers: Vec<Option<Uuid>>,
    pub(super) lease_until: Vec<Option<i64>>,
}

/// Mails that are finished.
#[derive(Default)]
pub(super) struct Finished {
    pub(super) mails: Vec<Uuid>,
    pub(super) states: Vec<&'static str>,
    pub(super) attempts: Vec<i64>,
    pub(super) expires_at: Vec<i64>,
    pub(super) at: Vec<Option<i64>>,
}

impl Changes {
    /// Adds what changed of a mail. What did not change is not written.
    pub(super) fn add(&mut self, id: QueueId, row: &QueueRow, before: &QueueRow, log: &[TimelineEntry]) {
        let id = id.uuid();
        for entry in log {
            self.events.add(id, entry);
        }
        if row == before {
            return;
        }
        let places = (0i64..).zip(row.recipients.iter().zip(&before.recipients));
        for (place, (now, _)) in places.filter(|(_, (now, before))| now != before) {
            self.recipients.mails.push(id);
            self.recipients.places.push(place);
            self.recipients.states.push(now.state.word());
            self.recipients.doubted_by.push(now.doubted_by.map(ClaimId::uuid));
        }
        let (state, attempts, expires_at) =
            (row.state().word(), i64::from(row.attempts), row.expires_at.as_millis());
        if row.is_finished() {
            self.finished.mails.push(id);
            self.finished.states.push(state);
            self.finished.attempts.push(attempts);
            self.finished.expires_at.push(expires_at);
            self.finished.at.push(log.last().map(|entry| entry.at.as_millis()));
            return;
        }
        self.open.mails.push(id);
        self.open.states.push(state);
        self.open.due_at.push(row.due_at.as_millis());
        self.open.expires_at.push(expires_at);
        self.open.attempts.push(attempts);
        self.open.claims.push(row.lease.map(|lease| lease.claim.uuid()));
        self.open.workers.push(row.lease.map(|lease| lease.worker.uuid()));
        self.open.lease_until.push(row.lease.map(|lease| lease.until.as_millis()));
    }
}

/// Entries of timelines, column by column.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) mails: Vec<Uuid>,
    pub(super) at: Vec<i64>,
    pub(super) recipients: Vec<Option<i64>>,
    pub(super) what: Vec<String>,
    pub(super) states: Vec<Option<&'static str>>,
    pub(super) details: Vec<String>,
    pub(super) actors: Vec<Option<String>>,
}

impl Entries {
    fn add(&mut self, mail: Uuid, entry: &TimelineEntry) {
        let TimelineEntry { at, recipient, what, state, detail, actor } = entry;
        self.mails.push(mail);
        self.at.push(at.as_millis());
        self.recipients.push(recipient.map(i64::from));
        self.what.push(what.clone());
        self.states.push(state.map(State::word));
        self.details.push(plain(detail).into_owned());
        self.actors.push(actor.as_ref().map(|actor| actor.as_str().to_owned()));
    }
}
