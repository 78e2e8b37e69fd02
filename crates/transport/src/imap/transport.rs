//! The IMAP adapter of the port to servers that keep mail: connect, sign in, probe.

use async_trait::async_trait;

use super::session::Session;
use super::sign_in;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{Access, IncomingSession, IncomingTransport};
use crate::probe::ProbeReport;
use crate::route::{Protocol, Route};
use crate::timeouts::IncomingTimeouts;
use crate::wire::tls::Trust;

/// The most folders that a probe names when the one that is wanted is missing.
const NAMED: usize = 20;

/// Receives by IMAP (RFC 3501). It keeps no connections; its sessions belong to their callers.
#[derive(Debug, Default)]
pub struct ImapTransport {
    trust: Trust,
    timeouts: IncomingTimeouts,
}

impl ImapTransport {
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
        if route.protocol != Protocol::Imap {
            return Err(Error::new(ErrorKind::Settings, Stage::Prepare).with_reply("the box is not of IMAP"));
        }
        sign_in::establish(route, &self.trust, self.timeouts, report).await.map(Session::new)
    }

    async fn stages(&self, route: &Route, folder: Option<&str>, report: &mut ProbeReport) -> Result<()> {
        let mut session = self.session(route, report).await?;
        let selected = match session.select(folder, Access::ReadOnly).await {
            Err(error) if error.kind() == ErrorKind::FolderMissing => match session.folders().await {
                Ok(folders) => {
                    let names: Vec<String> = folders
                        .iter()
                        .filter(|folder| folder.selectable)
                        .map(|folder| folder.name.clone())
                        .collect();
                    Err(error.with_reply(&existing(&names)))
                }
                Err(_) => Err(error),
            },
            selected => selected,
        };
        if let Ok(selected) = &selected {
            let epoch = selected.epoch.unwrap_or_default();
            report.pass(Stage::Folder, format!("{} mails, UIDVALIDITY {epoch}", selected.exists));
        }
        Box::new(session).close().await;
        selected.map(drop)
    }
}

fn existing(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("there are {shown} and {more} more"),
        _ => format!("there are {shown}"),
    }
}

#[async_trait]
impl IncomingTransport for ImapTransport {
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
