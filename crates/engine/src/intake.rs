//! Intake: fetched mails are parsed, sorted, threaded, and stored with their bytes, as many in one commit as have come.

use std::slice::from_ref;
use std::time::Duration;

use postroom_core::id::LedgerId;
use postroom_core::ledger::{HISTORIC, State};
use postroom_core::mailbox::AfterStore;
use postroom_core::mime::parse;
use postroom_core::time::Timestamp;
use postroom_storage::{LedgerIntake, Reached, Received, Recognition, Stored};
use tokio::sync::mpsc::Receiver;
use tokio::task::yield_now;

use crate::collect::{Arrival, Collected};
use crate::error::{Result, is_everybodys};
use crate::event::Event;
use crate::fetch::{Broken, DAY, Pass, Reader};
use crate::recognise::Undecided;

/// What comes from a folder once its mails are sorted, in the same order.
enum Sorted {
    Mails(Vec<Received>),
    UpTo(u32),
}

impl Reader<'_> {
    /// Stores what comes, until nothing more does: while some mails are committed the next ones are parsed and sorted.
    pub(crate) async fn store_all(
        &self,
        pass: &Pass<'_>,
        mut arrivals: Receiver<Arrival>,
    ) -> std::result::Result<Undecided, Broken> {
        let mut undecided = Undecided::default();
        let mut next = self.sort_next(pass, &mut arrivals).await?;
        while let Some(sorted) = next.take() {
            let stored = self.keep(pass, sorted, &mut undecided);
            // What can't be sorted does not keep from the store what could.
            let sorted = async { Ok(self.sort_next(pass, &mut arrivals).await) };
            next = tokio::try_join!(stored, sorted)?.1?;
        }
        Ok(undecided)
    }

    async fn sort_next(&self, pass: &Pass<'_>, arrivals: &mut Receiver<Arrival>) -> Result<Option<Sorted>> {
        let mails = match arrivals.recv().await {
            None => return Ok(None),
            Some(Arrival::UpTo(uid)) => return Ok(Some(Sorted::UpTo(uid))),
            Some(Arrival::Mails(mails)) => mails,
        };
        let now = self.worker.postroom.now();
        let mut received = Vec::with_capacity(mails.len());
        for mail in mails {
            received.push(self.received(pass, now, mail).await?);
            // What is being stored goes on in between: its next statement must not wait until all of these are sorted.
            yield_now().await;
        }
        Ok(Some(Sorted::Mails(received)))
    }

    async fn keep(
        &self,
        pass: &Pass<'_>,
        sorted: Sorted,
        undecided: &mut Undecided,
    ) -> std::result::Result<(), Broken> {
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        match sorted {
            Sorted::Mails(received) => undecided.extend(self.store(received).await?),
            // They are accounted for once they are decided.
            Sorted::UpTo(_) if !undecided.is_empty() => {}
            Sorted::UpTo(uid) => {
                self.holds()?;
                intake.advance(pass.place, Reached::UpTo(uid)).await?;
            }
        }
        Ok(())
    }

    /// Stores mails; gives those of which the box must say which they are.
    pub(crate) async fn store(&self, received: Vec<Received>) -> Result<Undecided> {
        let now = self.worker.postroom.now();
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let stored = match intake.store(now, &received).await {
            Err(error) if received.len() > 1 && !is_everybodys(error.kind()) => {
                return self.store_each(now, received).await;
            }
            stored => stored?,
        };
        let mut undecided = Undecided::default();
        for (mail, stored) in received.into_iter().zip(stored) {
            self.tell(&mail, &stored);
            undecided.add(mail, stored);
        }
        Ok(undecided)
    }

    /// One that can't be stored keeps no other from it.
    async fn store_each(&self, now: Timestamp, received: Vec<Received>) -> Result<Undecided> {
        let intake: &dyn LedgerIntake = self.worker.postroom.store();
        let (mut undecided, mut failure) = (Undecided::default(), None);
        for mail in received {
            match intake.store(now, from_ref(&mail)).await {
                Ok(stored) => {
                    for stored in stored {
                        self.tell(&mail, &stored);
                        undecided.add(mail.clone(), stored);
                    }
                }
                Err(error) => _ = failure.get_or_insert(error),
            }
        }
        failure.map_or(Ok(undecided), |error| Err(error.into()))
    }

    fn tell(&self, mail: &Received, stored: &Stored) {
        let postroom = &self.worker.postroom;
        if let Stored::New(id) = stored {
            let (contract, state) = (mail.contract.clone(), mail.state);
            postroom.observe(&Event::Stored { id: *id, mailbox: self.mailbox.id, contract, state });
            postroom.ports.bell.notify_one();
        }
    }

    async fn received(&self, pass: &Pass<'_>, now: Timestamp, collected: Collected) -> Result<Received> {
        let postroom = &self.worker.postroom;
        let Pass { inbox, place, contracts, since, baseline } = *pass;
        let mail = parse(collected.head);
        let mut sorting = postroom.sorted(&mail, contracts).await?;
        if collected.recognition == Recognition::None {
            let limit = self.mailbox.settings.max_message();
            sorting.state = State::Dead;
            sorting.reasons.push(format!("larger than the inbox takes ({limit} bytes)"));
        }
        let is_old = matches!((mail.date, baseline), (Some(date), Some(since)) if date < since);
        if is_old && collected.arrived.is_none() && sorting.state == State::Stored {
            sorting.state = State::Ignored;
            sorting.reasons.push("baseline".to_owned());
        }
        let is_historic = is_historic(collected.arrived, since);
        if is_historic {
            sorting.reasons.push(HISTORIC.to_owned());
        }
        // What the inbox was told to leave out, people may have left there for a reason: it is not taken from them.
        let is_told = !is_historic && !matches!(sorting.state, State::Dead | State::Ignored);
        Ok(Received {
            id: postroom.fresh(now, LedgerId::new)?,
            place: place.clone(),
            key: collected.key,
            sha256: collected.sha256,
            size: collected.size,
            arrived: collected.arrived,
            state: sorting.state,
            contract: sorting.contract,
            reasons: sorting.reasons,
            record: sorting.record,
            message_id: mail.message_id.clone(),
            sender: mail.from.first().map(ToString::to_string).unwrap_or_default(),
            subject: mail.subject.clone(),
            settle_at: if is_told { settle_at(inbox.after(), now) } else { None },
            recognition: collected.recognition,
            raw: collected.raw,
        })
    }
}

/// How far a mail server's clock may be from the store's. What arrived in between counts as new.
const CLOCKS: Duration = Duration::from_secs(60 * 60);

/// Whether a mail that is not known was surely there when its folder was whole under other numbers, `since` then.
fn is_historic(arrived: Option<Timestamp>, since: Option<Timestamp>) -> bool {
    matches!((arrived, since), (Some(arrived), Some(since)) if arrived < since - CLOCKS)
}

fn settle_at(after: &AfterStore, now: Timestamp) -> Option<Timestamp> {
    match after {
        AfterStore::DeleteAfterDays(days) => Some(now + DAY * *days),
        AfterStore::Seen | AfterStore::Delete | AfterStore::Move(_) => Some(now),
        _ => None,
    }
}
