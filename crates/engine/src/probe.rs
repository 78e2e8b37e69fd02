//! Probe: settings, saved or not, are tried on their server by the code that real mail takes, stage by stage.

use postroom_core::id::{Actor, MailboxId, Revision};
use postroom_core::mailbox::{Mailbox, MailboxDraft, MailboxSettings, Settings, Status};
use postroom_core::secret::SecretChange;
use postroom_storage::ErrorKind as StoreKind;
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind, ProbeReport, Route, Stage};

use crate::error::{Error, ErrorKind, Result};
use crate::postroom::Postroom;
use crate::unlock::grant::Locked;

/// Somebody changed the mailbox while its secret was opened.
fn changed() -> Error {
    Error::new(ErrorKind::Store(StoreKind::Conflict), "open the password of the mailbox")
}

impl Postroom {
    /// Probes a registered mailbox. Its health is left as it is.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`]; [`crate::ErrorKind::Sealing`]; a conflict when it was changed meanwhile. What the server does is in the report.
    pub async fn probe(&self, id: MailboxId) -> Result<ProbeReport> {
        let mailbox = self.mailbox(id).await?;
        let route = self.route(&mailbox).await;
        self.try_out(&mailbox.settings, route).await
    }

    /// Probes a form before it is saved. With `stored` the form edits that mailbox, and a kept secret is used, if server,
    /// port, user and security are those that it was given for.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with every violation, as when it would be saved.
    pub async fn probe_draft(
        &self,
        draft: &MailboxDraft,
        secret: SecretChange,
        stored: Option<MailboxId>,
    ) -> Result<ProbeReport> {
        let current = match stored {
            Some(id) => Some((self.mailbox(id).await?, self.secret_presence(id).await?)),
            None => None,
        };
        let known = current.as_ref().map(|(mailbox, presence)| (&mailbox.settings, *presence));
        let settings = draft.check_with_secret(&secret, known)?;
        let (id, revision) = current
            .as_ref()
            .map_or((MailboxId::new(0), Revision::new(0)), |(mailbox, _)| (mailbox.id, mailbox.revision));
        let actor = Actor::parse("probe")?;
        let mailbox = Mailbox::new(id, settings, Status::Draft, revision, actor, self.now());
        let route = match secret {
            SecretChange::Set(secret) => self.route_by(&mailbox, secret).await.map(Some),
            SecretChange::Keep | SecretChange::Clear => self.route(&mailbox).await,
        };
        self.try_out(&mailbox.settings, route).await
    }

    async fn try_out(
        &self,
        settings: &MailboxSettings,
        route: std::result::Result<Option<Route>, Locked>,
    ) -> Result<ProbeReport> {
        let route = match route {
            Ok(route) => route.ok_or_else(changed)?,
            Err(Locked::Inside(error)) => return Err(error),
            Err(Locked::Provider(error)) => {
                let mut report = ProbeReport::default();
                report.fail(error);
                return Ok(report);
            }
        };
        Ok(match (settings.settings(), &self.ports.outgoing, &self.ports.incoming) {
            (Settings::Outbox(outbox), Some(transport), _) => {
                let senders: Vec<_> =
                    outbox.senders().iter().map(|sender| sender.address().clone()).collect();
                transport.probe(&route, &senders).await
            }
            (Settings::Inbox(inbox), _, Some(transport)) => transport.probe(&route, inbox.folder()).await,
            (Settings::Outbox(_), None, _) | (Settings::Inbox(_), _, None) => {
                let mut report = ProbeReport::default();
                report.fail(
                    TransportError::new(TransportKind::Settings, Stage::Prepare)
                        .with_reply("this postroom was built without a transport for this kind of mailbox"),
                );
                report
            }
        })
    }
}
