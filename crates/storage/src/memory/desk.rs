//! People's desk at the queue in memory: lists, decisions, another outbox, pruning, recovery and proof.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_core::id::{Actor, BodyId, ClaimId, QueueId};
use postroom_core::queue::{Event, State};
use postroom_core::time::Timestamp;

use super::rows::{QueuedMail, page};
use super::store::MemoryStore;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::{
    Doubt, Pruned, QueueDesk, QueueItem, QueueQuery, QueueRecord, RecipientState, Recovered, Rerouting,
};
use crate::transition::queue::CONTENT_GONE;

#[async_trait]
impl QueueDesk for MemoryStore {
    async fn list(&self, query: &QueueQuery) -> Result<Vec<QueueItem>> {
        let rows = self.rows();
        let fits = |one: &&QueuedMail| {
            query.contract.as_ref().is_none_or(|contract| one.mail.contract == *contract)
                && query.after.is_none_or(|after| one.mail.id > after)
                && query.state.is_none_or(|state: State| one.row.state() == state)
        };
        Ok(rows.queue.values().filter(fits).take(page(query.limit)).map(QueuedMail::item).collect())
    }

    async fn show(&self, id: QueueId) -> Result<Option<QueueRecord>> {
        let rows = self.rows();
        Ok(rows.queue.get(&id).map(|one| {
            let recipients = one.mail.recipients.iter().zip(&one.row.recipients);
            QueueRecord {
                item: one.item(),
                recipients: recipients
                    .map(|(recipient, row)| RecipientState { recipient: recipient.clone(), state: row.state })
                    .collect(),
                timeline: one.timeline.clone(),
                raw: one.mail.raw,
                body: Some(one.body).filter(|body| rows.bodies.contains_key(body)),
            }
        }))
    }

    async fn decide(&self, now: Timestamp, actor: &Actor, id: QueueId, event: Event) -> Result<()> {
        let mut rows = self.rows();
        let body = rows.queue.get(&id).map(|one| one.body);
        let has_content = body.is_some_and(|body| rows.bodies.contains_key(&body));
        let decided = rows.change(id, |one| {
            let mut row = one.row.clone();
            let entries = row.decide(now, actor, event)?;
            if event == Event::Retry && !has_content {
                return Err(Error::new(ErrorKind::NotPossible { state: CONTENT_GONE }, "decide on a mail"));
            }
            one.row = row;
            one.timeline.extend(entries);
            Ok(())
        });
        decided.unwrap_or_else(|| Err(Error::new(ErrorKind::NotFound, "decide on a mail")))
    }

    async fn reroute(
        &self,
        now: Timestamp,
        actor: &Actor,
        rerouting: &Rerouting,
        content: Bytes,
    ) -> Result<()> {
        const STAGE: &str = "reroute a mail";
        let (mut rows, to) = (self.rows(), &rerouting.resolution);
        let one = rows.queue.get(&rerouting.id).ok_or_else(|| Error::new(ErrorKind::NotFound, STAGE))?;
        let mail = &one.mail;
        if mail.raw {
            return Err(Error::new(ErrorKind::NotPossible { state: "raw" }, STAGE));
        }
        let detail = to.told_of_reroute(rerouting.from, &mail.resolution.sender.to_string());
        let entry = one.row.reroute(now, actor, detail)?;
        if (mail.resolution.outbox, one.body) != (rerouting.from, rerouting.rewritten) {
            return Err(Error::new(ErrorKind::Conflict, STAGE));
        }
        if !rows.stored(to.outbox, mail).upholds_decision(to, &rerouting.basis, mail.step.as_ref()) {
            return Err(Error::new(ErrorKind::StaleDecision, STAGE));
        }
        // Only its uniqueness counts: a claim's number serves.
        let body = BodyId::from_uuid(rows.next_claim(now).uuid());
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        rows.bodies.remove(&rerouting.rewritten);
        rows.add_body(now, body, &content);
        rows.change(rerouting.id, |one| {
            (one.body, one.size) = (body, size);
            one.mail.resolution = to.clone();
            one.mail.return_path = one.mail.return_path.take().map(|_| rerouting.return_path.clone());
            one.timeline.push(entry);
        });
        Ok(())
    }

    async fn prune(&self, now: Timestamp, limit: u32) -> Result<Pruned> {
        Ok(self.rows().prune(now, limit))
    }

    async fn recover(&self, now: Timestamp, actor: &Actor, since: Timestamp) -> Result<Recovered> {
        let mut rows = self.rows();
        let is_meant = |one: &&QueuedMail| {
            let state = one.row.state();
            one.row.created_at <= since && !state.is_final() && state != State::InDoubt
        };
        let ids: Vec<QueueId> = rows.unfinished().filter(is_meant).map(|one| one.mail.id).collect();
        let mut total = Recovered::default();
        for id in ids {
            let claim = rows.next_claim(now);
            let recovered = rows.change(id, |one| {
                let entries = one.row.recover(now, actor, claim)?;
                one.timeline.extend(entries);
                Some(())
            });
            *(if recovered.flatten().is_some() { &mut total.doubted } else { &mut total.busy }) += 1;
        }
        Ok(total)
    }

    async fn doubts<'a>(&self, after: Option<&'a QueueId>, limit: u32) -> Result<Vec<Doubt>> {
        let rows = self.rows();
        let is_meant = |one: &&QueuedMail| {
            one.row.state() == State::InDoubt && after.is_none_or(|after| one.mail.id > *after)
        };
        let doubt = |one: &QueuedMail| {
            let places = (0..).zip(&one.row.recipients).filter(|(_, one)| one.state == State::InDoubt);
            Doubt {
                id: one.mail.id,
                outbox: one.mail.resolution.outbox,
                message_id: one.mail.message_id.clone(),
                recipients: places.filter_map(|(place, one)| Some((place, one.doubted_by?))).collect(),
            }
        };
        Ok(rows.unfinished().filter(is_meant).take(page(Some(limit))).map(doubt).collect())
    }

    async fn prove(&self, now: Timestamp, id: QueueId, claim: ClaimId, detail: &str) -> Result<bool> {
        let proven = self.rows().change(id, |one| {
            let entries = one.row.prove(now, claim, detail);
            let is_proven = !entries.is_empty();
            one.timeline.extend(entries);
            is_proven
        });
        proven.ok_or_else(|| Error::new(ErrorKind::NotFound, "prove a mail in doubt"))
    }
}
