//! Waiting for mail and asserting what came, with panics that list what is there. Nothing here polls.

use crate::{accepted::Accepted, folder::Stored, server::MailServer};
use std::time::Duration;
use tokio::time::timeout;

impl MailServer {
    /// Waits until `found` finds something in the server, looking again after each change; none when time is up.
    ///
    /// Cancel safe.
    pub async fn wait_for<R>(
        &self,
        within: Duration,
        mut found: impl FnMut(&Self) -> Option<R>,
    ) -> Option<R> {
        // Subscribed before the first look, so that no change falls between.
        let mut changes = self.shared.changes();
        let search = async {
            loop {
                if let Some(result) = found(self) {
                    return result;
                }
                changes.changed().await.expect("the server that is looked at holds the sender");
            }
        };
        timeout(within, search).await.ok()
    }

    /// Waits until at least `count` mails were accepted in all, and returns all of them.
    ///
    /// # Panics
    /// When fewer came in time, with a list of those that did.
    pub async fn expect_accepted(&self, count: usize, within: Duration) -> Vec<Accepted> {
        let enough = |server: &Self| Some(server.accepted()).filter(|accepted| accepted.len() >= count);
        match self.wait_for(within, enough).await {
            Some(accepted) => accepted,
            None => panic!("{count} accepted mails expected within {within:?}, but {}", self.list_accepted()),
        }
    }

    /// Waits for an accepted mail with this subject, encoded words decoded.
    ///
    /// # Panics
    /// When none came in time, with a list of those that did.
    pub async fn expect_accepted_by_subject(&self, subject: &str, within: Duration) -> Accepted {
        match self.wait_for(within, |server| server.find_accepted_by_subject(subject)).await {
            Some(accepted) => accepted,
            None => panic!(
                "a mail with the subject {subject:?} expected within {within:?}, but {}",
                self.list_accepted()
            ),
        }
    }

    /// Waits until a folder holds at least `count` messages, and returns them.
    ///
    /// # Panics
    /// When it holds fewer at the end, with a list; when there is no such account or folder.
    pub async fn expect_messages(
        &self,
        address: &str,
        folder: &str,
        count: usize,
        within: Duration,
    ) -> Vec<Stored> {
        let enough =
            |server: &Self| Some(server.messages(address, folder)).filter(|kept| kept.len() >= count);
        match self.wait_for(within, enough).await {
            Some(messages) => messages,
            None => {
                let kept = self.messages(address, folder);
                let lines: Vec<_> = kept.iter().map(describe).collect();
                panic!(
                    "{count} messages expected in {folder:?} of {address:?} within {within:?}, but there are {}:{}",
                    kept.len(),
                    lines.concat()
                )
            }
        }
    }

    /// The first accepted mail with this subject, encoded words decoded.
    #[must_use]
    pub fn find_accepted_by_subject(&self, subject: &str) -> Option<Accepted> {
        self.accepted().into_iter().find(|accepted| accepted.subject().as_deref() == Some(subject))
    }

    /// Every accepted mail with this Message-ID, angle brackets included: more than one is a duplicate.
    #[must_use]
    pub fn find_accepted_by_message_id(&self, message_id: &str) -> Vec<Accepted> {
        let mut accepted = self.accepted();
        accepted.retain(|accepted| accepted.message_id.as_deref() == Some(message_id));
        accepted
    }

    fn list_accepted(&self) -> String {
        let accepted = self.accepted();
        let lines: Vec<_> = accepted.iter().map(|accepted| format!("\n  {accepted}")).collect();
        format!("{} were accepted:{}", accepted.len(), lines.concat())
    }
}

fn describe(kept: &Stored) -> String {
    let subject = kept.subject().unwrap_or_default();
    format!("\n  UID {}, {} bytes, flags {:?}, subject {subject:?}", kept.uid, kept.bytes.len(), kept.flags)
}
