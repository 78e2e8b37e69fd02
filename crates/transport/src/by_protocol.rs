//! One transport for all boxes: it takes the adapter that speaks the protocol of the route.

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::incoming::{IncomingSession, IncomingTransport};
use crate::probe::ProbeReport;
use crate::route::{Protocol, Route};

/// Receives by the protocol of the route, with the adapters that the features chose.
#[derive(Debug, Default)]
pub struct ByProtocol {
    #[cfg(feature = "imap")]
    imap: crate::imap::ImapTransport,
    #[cfg(feature = "pop3")]
    pop3: crate::pop3::Pop3Transport,
}

impl ByProtocol {
    /// The adapters with their default timeouts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With these timeouts.
    #[must_use]
    pub fn with_timeouts(self, timeouts: crate::IncomingTimeouts) -> Self {
        Self {
            #[cfg(feature = "imap")]
            imap: self.imap.with_timeouts(timeouts),
            #[cfg(feature = "pop3")]
            pop3: self.pop3.with_timeouts(timeouts),
        }
    }

    fn adapter(&self, protocol: Protocol) -> Result<&dyn IncomingTransport> {
        match protocol {
            #[cfg(feature = "imap")]
            Protocol::Imap => Ok(&self.imap),
            #[cfg(feature = "pop3")]
            Protocol::Pop3 => Ok(&self.pop3),
            _ => {
                Err(Error::new(ErrorKind::Settings, Stage::Prepare)
                    .with_reply("no adapter for this protocol"))
            }
        }
    }
}

#[async_trait]
impl IncomingTransport for ByProtocol {
    async fn open(&self, route: &Route) -> Result<Box<dyn IncomingSession>> {
        self.adapter(route.protocol)?.open(route).await
    }

    async fn probe<'a>(&self, route: &Route, folder: Option<&'a str>) -> ProbeReport {
        match self.adapter(route.protocol) {
            Ok(adapter) => adapter.probe(route, folder).await,
            Err(error) => {
                let mut report = ProbeReport::default();
                report.fail(error);
                report
            }
        }
    }
}
