//! The ledger in memory.

use std::collections::BTreeSet;

use async_trait::async_trait;
use postroom_core::id::{Actor, BodyId, ContractId, LedgerId, WorkerId};
use postroom_core::ledger::{Place, RemoteKey, State};
use postroom_core::time::Timestamp;

use super::rows::{Referred, Rows, StoredMail, count, page, remote};
use super::store::MemoryStore;
use crate::bodies::BodyRef;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{
    ClaimedMail, Committing, Contact, EQUALS, HandlerResult, LedgerDesk, LedgerEntry, LedgerIntake,
    LedgerItem, LedgerPruned, LedgerQuery, LedgerRecord, LedgerWork, LeftOut, RawMail, Reached, Received,
    Recognition, Stored, TWINS, Told, Unsettled,
};
use crate::transition::lease::Lease;
use crate::transition::ledger::LedgerRow;
use crate::transition::place::{PlaceRow, contact};

impl StoredMail {
    fn item(&self) -> LedgerItem {
        LedgerItem {
            state: self.row.state,
            contract: self.row.contract.clone(),
            reasons: self.row.reasons.clone(),
            ..self.item.clone()
        }
    }

    fn is_at(&self, place: &Place) -> bool {
        let item = &self.item;
        (item.mailbox, &item.folder, item.epoch) == (place.mailbox, &place.folder, place.epoch)
    }

    fn note(&mut self, at: Timestamp, what: &str, state: Option<State>, detail: String) {
        self.timeline.push(LedgerEntry::new(at, what, state, detail));
    }
}

impl Rows {
    fn in_order(&self) -> impl Iterator<Item = &StoredMail> {
        self.stored.iter().filter_map(|id| self.ledger.get(id))
    }

    fn insert_received(
        &mut self,
        now: Timestamp,
        mail: &Received,
        body: Option<BodyId>,
        sha256: Option<[u8; 32]>,
    ) {
        let item = LedgerItem {
            id: mail.id,
            state: mail.state,
            mailbox: mail.place.mailbox,
            folder: mail.place.folder.clone(),
            epoch: mail.place.epoch,
            key: mail.key.clone(),
            contract: mail.contract.clone(),
            reasons: mail.reasons.clone(),
            record: mail.record.clone(),
            sender: mail.sender.clone(),
            subject: mail.subject.clone(),
            message_id: mail.message_id.clone(),
            size: mail.size,
            arrived: mail.arrived,
            stored_at: now,
        };
        let row = LedgerRow::received(now, mail, body);
        let mut one = StoredMail {
            item,
            row,
            sha256,
            settle_at: mail.settle_at,
            settled: None,
            is_bare: false,
            timeline: Vec::new(),
            told: 0,
        };
        one.note(now, "stored", Some(mail.state), mail.reasons.join(", "));
        // A baseline may leave out a million mails: no event tells of them.
        one.told = usize::from(sha256.is_none());
        self.remote.insert(remote(&mail.place, &mail.key), mail.id);
        self.stored.push(mail.id);
        self.ledger.insert(mail.id, one);
        self.publish_received(mail.id);
    }

    /// Writes what is known of a place beside what is there.
    fn reach(&mut self, place: &Place, reached: PlaceRow) {
        let its = (place.mailbox, place.folder.clone(), place.epoch);
        self.places.entry(its).and_modify(|row| *row = row.and(reached)).or_insert(reached);
    }

    /// The oldest row of the same bytes that the mail is recognised as.
    fn renumbered(&self, mail: &Received) -> Option<LedgerId> {
        let place = &mail.place;
        let is_same = |one: &&StoredMail| {
            let item = &one.item;
            (item.mailbox, &item.folder) == (place.mailbox, &place.folder)
                && one.sha256 == Some(mail.sha256)
                && item.size == mail.size
                && mail.is_known_as(item.epoch, &item.key, one.settled.is_some())
        };
        self.in_order().find(is_same).map(|one| one.item.id)
    }

    /// The keys and ids of rows of the same epoch, bytes and arrival whose server was not told to take them away, of those that came last.
    fn twins(&self, mail: &Received, is_older: impl Fn(LedgerId) -> bool) -> Vec<(RemoteKey, LedgerId)> {
        let asks = matches!(mail.recognition, Recognition::OtherEpoch | Recognition::Gone(_));
        if !asks || mail.arrived.is_none() {
            return Vec::new();
        }
        let place = &mail.place;
        let newest = self.stored.iter().rev().filter_map(|id| self.ledger.get(id));
        let equal = newest.filter(|one| {
            let item = &one.item;
            (item.mailbox, &item.folder) == (place.mailbox, &place.folder)
                && one.sha256 == Some(mail.sha256)
                && is_older(item.id)
        });
        let is_twin = |one: &&StoredMail| {
            let item = &one.item;
            (item.epoch, item.size, item.arrived) == (place.epoch, mail.size, mail.arrived)
                && one.settled.is_none_or(|told| told == Told::Keep)
        };
        let twins = equal.take(EQUALS).filter(is_twin).take(TWINS);
        twins.map(|one| (one.item.key.clone(), one.item.id)).collect()
    }

    /// Moves a row to the key that its mail has now. Its server is told again what it was told under the old key.
    fn renumber(&mut self, now: Timestamp, id: LedgerId, mail: &Received) {
        let Some(one) = self.ledger.get_mut(&id) else { return };
        let old = Place { mailbox: one.item.mailbox, folder: one.item.folder.clone(), epoch: one.item.epoch };
        self.remote.remove(&remote(&old, &one.item.key));
        self.remote.insert(remote(&mail.place, &mail.key), id);
        let detail = format!("{} of {} is {} of {}", one.item.key, old.epoch, mail.key, mail.place.epoch);
        one.item.epoch = mail.place.epoch;
        one.item.key = mail.key.clone();
        one.settled = None;
        one.note(now, "recognised", None, detail);
        self.publish_received(id);
    }

    /// Whether a staged content is there in its whole size.
    fn has_whole(&self, staged: &BodyRef) -> bool {
        let length = |piece: &bytes::Bytes| u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let body = self.bodies.get(&staged.id);
        body.is_some_and(|body| body.pieces.values().map(length).sum::<u64>() == staged.size)
    }

    fn receive(&mut self, now: Timestamp, mail: &Received, is_older: impl Fn(LedgerId) -> bool) -> Stored {
        if let Some(id) = self.remote.get(&remote(&mail.place, &mail.key)) {
            return Stored::Known(*id);
        }
        if let Some(id) = self.renumbered(mail) {
            self.renumber(now, id, mail);
            return Stored::Recognised(id);
        }
        let twins = self.twins(mail, is_older);
        if let Recognition::Gone(gone) = &mail.recognition {
            if let Some((_, id)) = twins.iter().find(|(key, _)| gone.contains(key)) {
                self.renumber(now, *id, mail);
                return Stored::Recognised(*id);
            }
        } else if !twins.is_empty() {
            return Stored::Undecided(twins.into_iter().map(|(key, _)| key).collect());
        }
        let body = match &mail.raw {
            RawMail::Whole(content) => {
                let id = BodyId::from_uuid(mail.id.uuid());
                self.add_body(now, id, content);
                id
            }
            RawMail::Staged(staged) => {
                if let Some(body) = self.bodies.get_mut(&staged.id) {
                    body.referred = Referred::Yes;
                }
                staged.id
            }
        };
        self.insert_received(now, mail, Some(body), Some(mail.sha256));
        Stored::New(mail.id)
    }

    fn desk(
        &mut self,
        id: LedgerId,
        stage: &'static str,
        decide: impl FnOnce(&mut LedgerRow) -> Result<LedgerEntry>,
    ) -> Result<()> {
        let one = self.ledger.get_mut(&id).ok_or_else(|| Error::new(ErrorKind::NotFound, stage))?;
        let entry = decide(&mut one.row)?;
        one.timeline.push(entry);
        self.publish_received(id);
        Ok(())
    }
}

#[async_trait]
impl LedgerIntake for MemoryStore {
    async fn latest(&self, place: &Place) -> Result<Place> {
        let rows = self.rows();
        let its = rows.places.keys().map(|(mailbox, folder, epoch)| Place {
            mailbox: *mailbox,
            folder: folder.clone(),
            epoch: *epoch,
        });
        let its = its.filter(|one| {
            (one.mailbox, &one.folder, one.validity()) == (place.mailbox, &place.folder, place.validity())
        });
        Ok(its.max_by_key(|one| one.epoch).unwrap_or_else(|| place.clone()))
    }

    async fn contact(&self, place: &Place) -> Result<Contact> {
        let rows = self.rows();
        let its = (place.mailbox, place.folder.clone(), place.epoch);
        let elsewhere = rows.places.iter().filter(|((mailbox, folder, epoch), _)| {
            (*mailbox, folder) == (place.mailbox, &place.folder) && *epoch != place.epoch
        });
        Ok(contact(rows.places.get(&its).copied(), elsewhere.map(|(_, row)| row.whole_at).max()))
    }

    async fn advance(&self, place: &Place, reached: Reached) -> Result<()> {
        self.rows().reach(place, PlaceRow::of(reached));
        Ok(())
    }

    async fn unknown(&self, place: &Place, keys: &[RemoteKey]) -> Result<Vec<RemoteKey>> {
        let rows = self.rows();
        Ok(keys.iter().filter(|key| !rows.remote.contains_key(&remote(place, key))).cloned().collect())
    }

    async fn skip(&self, now: Timestamp, place: &Place, left_out: &LeftOut) -> Result<bool> {
        let mut rows = self.rows();
        if rows.mailboxes.get(&place.mailbox).is_none_or(|mailbox| mailbox.revision != left_out.revision) {
            return Ok(false);
        }
        for key in &left_out.keys {
            if rows.remote.contains_key(&remote(place, key)) {
                continue;
            }
            // Only its uniqueness counts: a claim's number serves.
            let id = LedgerId::from_uuid(rows.next_claim(now).uuid());
            let mail = Received {
                id,
                place: place.clone(),
                key: key.clone(),
                sha256: [0; 32],
                size: 0,
                arrived: None,
                state: State::Ignored,
                contract: None,
                reasons: vec!["baseline".to_owned()],
                record: None,
                message_id: None,
                sender: String::new(),
                subject: String::new(),
                settle_at: None,
                recognition: Recognition::None,
                raw: RawMail::Whole(bytes::Bytes::new()),
            };
            rows.insert_received(now, &mail, None, None);
        }
        rows.reach(place, PlaceRow::behind(left_out));
        Ok(true)
    }

    async fn store(&self, now: Timestamp, mails: &[Received]) -> Result<Vec<Stored>> {
        let mut rows = self.rows();
        let torn = |mail: &Received| matches!(&mail.raw, RawMail::Staged(staged) if !rows.has_whole(staged));
        if mails.iter().any(torn) {
            return Err(Error::new(ErrorKind::NotFound, "store received mails"));
        }
        // What comes together is there together: none of it was another one before.
        let is_older = |id| !mails.iter().any(|mail| mail.id == id);
        Ok(mails.iter().map(|mail| rows.receive(now, mail, is_older)).collect())
    }

    async fn unsettled(&self, now: Timestamp, place: &Place, limit: u32) -> Result<Vec<Unsettled>> {
        let rows = self.rows();
        let waits = |one: &&StoredMail| {
            one.settled.is_none() && one.settle_at.is_some_and(|at| at <= now) && one.is_at(place)
        };
        let mails = rows.in_order().filter(waits).take(page(Some(limit)));
        Ok(mails.map(|one| Unsettled { id: one.item.id, key: one.item.key.clone() }).collect())
    }

    async fn settled(&self, now: Timestamp, ids: &[LedgerId], told: Told) -> Result<()> {
        let mut rows = self.rows();
        for id in ids {
            if let Some(one) = rows.ledger.get_mut(id).filter(|one| one.settled.is_none()) {
                one.settled = Some(told);
                one.note(now, "settled", None, String::new());
                rows.publish_received(*id);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LedgerWork for MemoryStore {
    async fn claim(
        &self,
        now: Timestamp,
        limit: u32,
        worker: WorkerId,
        until: Timestamp,
    ) -> Result<Vec<ClaimedMail>> {
        let mut rows = self.rows();
        let is_held = |one: &&StoredMail| one.row.lease.is_some_and(|lease| lease.is_live(now));
        let mut busy: BTreeSet<_> =
            rows.ledger.values().filter(is_held).map(|one| one.item.mailbox).collect();
        let due = rows.in_order().filter(|one| one.row.is_due(now) && busy.insert(one.item.mailbox));
        let ids: Vec<LedgerId> = due.take(page(Some(limit))).map(|one| one.item.id).collect();
        let mut claimed = Vec::new();
        for id in ids {
            let claim = rows.next_claim(now);
            let Some(one) = rows.ledger.get_mut(&id) else { continue };
            let Some(body) = one.row.body else { continue };
            let attempt = one.row.claim(Lease { claim, worker, until });
            claimed.push(ClaimedMail { claim, item: one.item(), attempt, body });
        }
        Ok(claimed)
    }

    async fn finish(&self, now: Timestamp, result: &HandlerResult) -> Result<bool> {
        let mut rows = self.rows();
        let Some(one) = rows.ledger.get_mut(&result.id) else { return Ok(false) };
        let entry = one.row.finish(now, result)?;
        let applied = entry.is_some();
        one.timeline.extend(entry);
        rows.publish_received(result.id);
        Ok(applied)
    }

    async fn completed(&self, claim: &Committing) -> Result<bool> {
        Ok(self.rows().ledger.get(&claim.id).is_some_and(|one| one.row.is_completed(claim.claim)))
    }

    async fn renew(&self, now: Timestamp, worker: WorkerId, until: Timestamp) -> Result<u64> {
        let mut rows = self.rows();
        let leases = rows.ledger.values_mut().filter_map(|one| one.row.lease.as_mut());
        let live = leases.filter(|lease| lease.worker == worker && lease.is_live(now));
        Ok(count(live.map(|lease| lease.until = until)))
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        Ok(self.rows().ledger.values().filter_map(|one| one.row.next_due(now)).min())
    }

    async fn open_claims(&self) -> Result<u64> {
        Ok(count(self.rows().ledger.values().filter(|one| one.row.lease.is_some())))
    }
}

#[async_trait]
impl LedgerDesk for MemoryStore {
    async fn list(&self, query: &LedgerQuery) -> Result<Vec<LedgerItem>> {
        let rows = self.rows();
        let fits = |one: &&StoredMail| {
            query.mailbox.is_none_or(|mailbox| one.item.mailbox == mailbox)
                && query.after.is_none_or(|after| one.item.id > after)
                && query.state.is_none_or(|state| one.row.state == state)
        };
        Ok(rows.ledger.values().filter(fits).take(page(query.limit)).map(StoredMail::item).collect())
    }

    async fn show(&self, id: LedgerId) -> Result<Option<LedgerRecord>> {
        let rows = self.rows();
        Ok(rows.ledger.get(&id).map(|one| LedgerRecord {
            item: one.item(),
            attempts: one.row.attempts,
            timeline: one.timeline.clone(),
            body: one.row.body,
        }))
    }

    async fn replay(&self, now: Timestamp, actor: &Actor, id: LedgerId) -> Result<()> {
        self.rows().desk(id, "replay a received mail", |row| row.replay(now, actor))
    }

    async fn route(&self, now: Timestamp, actor: &Actor, id: LedgerId, contract: &ContractId) -> Result<()> {
        self.rows().desk(id, "route a received mail", |row| row.route(now, actor, contract))
    }

    async fn ignore(&self, now: Timestamp, actor: &Actor, id: LedgerId) -> Result<()> {
        self.rows().desk(id, "ignore a received mail", |row| row.ignore(now, actor))
    }

    async fn prune(&self, now: Timestamp, limit: u32) -> Result<LedgerPruned> {
        Ok(self.rows().prune_received(now, limit))
    }
}
