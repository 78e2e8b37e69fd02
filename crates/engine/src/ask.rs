//! Ask: mails are asked for, and what the server does not give, or ends the session over, is kept in mind. In which order they are asked for,
//! `fetch` says.

use postroom_core::ledger::{Place, RemoteKey};
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind, IncomingSession, Listed};

use crate::collect::Collector;
use crate::error::said;
use crate::event::Event;
use crate::fetch::{Broken, Reader};
use crate::withheld::Verdict;

/// What became of some mails that were asked for.
pub(crate) struct Asked {
    /// What the server did not give, though it is there.
    pub(crate) refused: Vec<RemoteKey>,
    /// Why the session ended over one of them.
    pub(crate) ended: Option<TransportError>,
}

impl Reader<'_> {
    /// Asks for some mails, and keeps in mind what the server does not give, or ends the session over.
    pub(crate) async fn ask(
        &self,
        session: &mut dyn IncomingSession,
        place: &Place,
        mails: &[Listed],
        collector: &mut Collector<'_>,
    ) -> Result<Asked, Broken> {
        collector.expect(mails);
        let fetched = session.fetch(mails, self.mailbox.settings.max_message(), collector).await;
        if let Some(error) = collector.failure() {
            return Err(error.into());
        }
        // What came before it broke is whole. Why nobody takes it, the storing says.
        if !collector.flush().await {
            return Err(Broken::Lost);
        }
        let mut refused = Vec::new();
        for (key, error) in collector.take_refused() {
            self.withhold(place, &key, &error)?;
            refused.push(key);
        }
        let ended = match fetched {
            // Not the server's doing.
            Err(error) if error.kind() == TransportKind::Stopped => return Err(error.into()),
            fetched => fetched.err(),
        };
        match (&ended, collector.awaited()) {
            (Some(error), Some(key)) => self.withhold(place, &key, error)?,
            (Some(_), None) => self.worker.withheld.ask_one_by_one(place),
            (None, _) => {}
        }
        Ok(Asked { refused, ended })
    }

    fn withhold(&self, place: &Place, key: &RemoteKey, error: &TransportError) -> Result<(), Broken> {
        let postroom = &self.worker.postroom;
        let why = said(error);
        match self.worker.withheld.refused(place, key, &why, postroom.now()) {
            Verdict::Later => {}
            Verdict::Tell => {
                let (mailbox, error) = (self.mailbox.id, why);
                tracing::warn!(target: "postroom", "mailbox {mailbox} does not give mail {key}: {error}");
                postroom.observe(&Event::Withheld { mailbox, key: key.clone(), error });
            }
            Verdict::TooMany => return Err(error.clone().into()),
        }
        Ok(())
    }
}
