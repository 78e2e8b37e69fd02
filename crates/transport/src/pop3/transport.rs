//! The POP3 adapter of the port to servers that keep mail: connect, sign in, probe.

use async_trait::async_trait;

use super::session::Session;
use super::sign_in;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{IncomingSession, IncomingTransport};
use crate::probe::ProbeReport;
use crate::route::{Protocol, Route};
use crate::timeouts::IncomingTimeouts;
use crate::wire::tls::Trust;

/// Receives by POP3 (RFC 1939). It keeps no connections; its sessions belong to their callers.
#[derive(Debug, Default)]
pub struct Pop3Transport {
    trust: Trust,
    timeouts: IncomingTimeouts,
}

impl Pop3Transport {
    /// An adapter with the default timeouts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With these timeouts.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: IncomingTimeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    async fn session(&self, route: &Route, report: &mut ProbeReport) -> Result<Session> {
        if route.protocol != Protocol::Pop3 {
            return Err(Error::new(ErrorKind::Settings, Stage::Prepare).with_reply("the box is not of POP3"));
        }
        sign_in::establish(route, &self.trust, self.timeouts, report).await.map(Session::new)
    }

    async fn stages(&self, route: &Route, folder: Option<&str>, report: &mut ProbeReport) -> Result<()> {
        let mut session = self.session(route, report).await?;
        let found = match folder {
            None => session.statistics().await.map(|found| format!("mails and bytes: {found}")),
            Some(_) => {
                let error = Error::new(ErrorKind::FolderMissing, Stage::Folder);
                Err(error.with_reply("POP3 has no folders: leave the folder empty"))
            }
        };
        if let Ok(found) = &found {
            report.pass(Stage::Folder, found);
        }
        Box::new(session).close().await;
        found.map(drop)
    }
}

#[async_trait]
impl IncomingTransport for Pop3Transport {
    async fn open(&self, route: &Route) -> Result<Box<dyn IncomingSession>> {
        Ok(Box::new(self.session(route, &mut ProbeReport::default()).await?))
    }

    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport {
        let mut report = ProbeReport::default();
        if let Err(error) = self.stages(route, folder, &mut report).await {
            report.fail(error);
        }
        report
    }
}
