//! Bounce: what a report says of a mail of ours goes into that mail's recipients, timeline and suppression list. What the report says
//! is read in `postroom_core::bounce`, and which mail it is about is found in `sort`.

use postroom_core::bounce::{Action, Report, Reported};
use postroom_core::queue;
use postroom_core::suppression::{Cause, Suppression, suppressed_form};
use postroom_core::thread::Thread;
use postroom_core::time::Timestamp;
use postroom_storage::{
    ErrorKind as StoreKind, Outcome, QueueDesk, QueueRecord, RecipientReport, Suppressions,
};

use crate::error::Result;
use crate::event::Event;
use crate::postroom::Postroom;

/// How a report named the mail that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// By a tag or Message-ID.
    ByItself,
    /// By its recipient alone, which anybody can write: nothing is concluded against the address.
    ByRecipient,
}

impl Postroom {
    /// Records a report on the sent mail of a thread. Whoever calls has decided that the report is that contract's. Gives whether it was
    /// about a recipient. It can be repeated, since the report is recorded before its own row in the ledger is.
    pub(crate) async fn record(&self, report: &Report, thread: &Thread, how: Named) -> Result<bool> {
        let (desk, list): (&dyn QueueDesk, &dyn Suppressions) = (self.store(), self.store());
        let Some(sent) = desk.show(thread.message).await? else { return Ok(false) };
        let now = self.now();
        let mut reports = recipients(report, &sent, thread, now);
        if how == Named::ByRecipient {
            reports.iter_mut().for_each(|report| report.suppression = None);
        }
        if reports.is_empty() {
            return Ok(false);
        }
        match list.report(now, thread.message, &reports).await {
            Ok(changed) => {
                self.ports.empty_lists.forget(&thread.contract);
                if changed {
                    let (id, outbox) = (thread.message, sent.item.outbox);
                    self.observe(&Event::Sent { id, outbox, results: vec![queue::Event::Bounce] });
                }
                Ok(true)
            }
            // Retention removed the mail in this moment.
            Err(error) if *error.kind() == StoreKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the report says of each recipient of the mail.
fn recipients(report: &Report, sent: &QueueRecord, thread: &Thread, now: Timestamp) -> Vec<RecipientReport> {
    let mut reports = Vec::new();
    for (place, one) in (0u32..).zip(&sent.recipients) {
        let address = &one.recipient.address;
        let named = report.recipients.iter().find(|reported| reported.is_about(address));
        // Behind an alias the reporting server knows the mail by an address that is not ours. With one recipient it is that one; what
        // such a report says of the other address says nothing against this one.
        let behind = match (&report.recipients[..], &sent.recipients[..]) {
            ([only], [_]) if named.is_none() => Some(only),
            _ => None,
        };
        let Some(reported) = named.or(behind) else { continue };
        let entry = |reported: &Reported| {
            let expires_at = now + reported.suppresses()?;
            let is_complaint = reported.action == Action::Complained;
            Some(Suppression {
                contract: thread.contract.clone(),
                address: suppressed_form(address),
                cause: if is_complaint { Cause::Complaint } else { Cause::Bounce },
                detail: reported.to_string(),
                mail: Some(thread.message),
                added_at: now,
                expires_at: Some(expires_at),
            })
        };
        reports.push(RecipientReport {
            recipient: place,
            outcome: if reported.action == Action::Failed { Outcome::Bounced } else { Outcome::Told },
            detail: reported.to_string(),
            suppression: named.and_then(entry),
        });
    }
    reports
}
