//! A queue beside a recording server, worked on by the built `postroom` alone. When workers are killed or stopped is not decided
//! here.

use std::collections::BTreeMap;
use std::time::Duration;

use postroom_core::time::Timestamp;
use postroom_testkit::MailServer;
use serde_json::Value;

use crate::outcome::Outcome;
use crate::process;

use super::books::Books;
use super::installation::{Installation, PATIENCE, Worker, text};
use super::stage::Stage;

/// How many connections the outbox has.
pub(super) const CONNECTIONS: u32 = 5;

/// How many mails a death may leave in doubt: four for each connection, by promise P1.
pub(super) const DOUBTS: u32 = 4 * CONNECTIONS;

/// A queue and its server.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    stage: &'a Stage,
    pub(super) server: MailServer,
    postroom: Installation,
    submitted: Vec<String>,
}

impl<'a> Desk<'a> {
    /// With as many mails queued as the stage says.
    pub(super) fn open(stage: &'a Stage) -> Outcome<Self> {
        let server = stage
            .runtime
            .block_on(MailServer::start())
            .map_err(|error| format!("the recording server does not start: {error}"))?;
        let postroom = Installation::open(&stage.binary, stage.database.as_ref())?;
        let mut desk = Self { stage, server, postroom, submitted: Vec::new() };
        let (port, connections) = (desk.server.smtp_port().to_string(), CONNECTIONS.to_string());
        let form =
            ["mailbox", "add", "outbox", "--description", "out", "--server", "127.0.0.1", "--port", &port];
        let form =
            [&form[..], &["--tls", "none", "--auth", "none", "--sender", "desk@acme.example"]].concat();
        let outbox = desk.documents(&[&form[..], &["--max-connections", &connections]].concat())?;
        let outbox = outbox.first().map(|outbox| text(outbox, "id")).unwrap_or_default();
        desk.call(&["contract", "link", "ACME", "--outbox", &outbox])?;
        let count = stage.mails.to_string();
        let mail =
            ["send", "--contract", "ACME", "--to", "ana@customer.example", "--subject", "x", "--text", "x"];
        let sent = desk.documents(&[&mail[..], &["--repeat", &count]].concat())?;
        desk.submitted = sent.iter().map(|sent| text(sent, "message_id")).collect();
        Ok(desk)
    }

    fn call(&self, arguments: &[&str]) -> Outcome<String> {
        self.postroom.call(arguments)
    }

    fn documents(&self, arguments: &[&str]) -> Outcome<Vec<Value>> {
        self.postroom.documents(arguments)
    }

    /// The mails that a worker has claimed, marked or not: their ids.
    pub(super) fn in_hand(&self) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        for state in ["claimed", "crossing"] {
            let listed = self.documents(&["queue", "list", "--state", state])?;
            found.extend(listed.iter().map(|mail| text(mail, "id")));
        }
        Ok(found)
    }

    /// How long the claim of a mail stood whose lease ran out last, by the times of its timeline; none where a claim was followed by
    /// another one before it had ended.
    pub(super) fn stood(&self, id: &str) -> Outcome<Option<Duration>> {
        let shown = self.documents(&["queue", "show", id])?;
        let timeline = shown.first().and_then(|mail| mail["timeline"].as_array());
        let (mut claimed, mut stood) = (None, None);
        for entry in timeline.into_iter().flatten() {
            let at = Timestamp::parse(&text(entry, "at")).map_err(|error| error.to_string())?;
            if text(entry, "what") == "claim" {
                if claimed.replace(at).is_some() {
                    return Ok(None);
                }
            } else if text(entry, "detail").starts_with("the lease ran out") {
                stood = claimed.take().map(|claimed| at.since(claimed)).or(stood);
            }
        }
        Ok(stood)
    }

    /// What is submitted, queued and arrived by now.
    pub(super) fn books(&self) -> Outcome<Books> {
        let mut books = Books { submitted: self.submitted.iter().cloned().collect(), ..Books::default() };
        if self.submitted.len() != books.submitted.len() {
            return Err("two mails were given the same Message-ID".into());
        }
        for accepted in self.server.accepted() {
            *books.arrived.entry(accepted.message_id.unwrap_or_default()).or_default() += 1;
        }
        let listed = self.documents(&["queue", "list"])?;
        books.states = listed.iter().map(|mail| (text(mail, "message_id"), text(mail, "state"))).collect();
        Ok(books)
    }

    /// As a person does: what is in doubt is settled by the server's record, and sent again where it did not arrive.
    pub(super) fn settle_doubts(&self, books: &Books) -> Outcome<()> {
        let listed = self.documents(&["queue", "list", "--state", "in-doubt"])?;
        let ids: BTreeMap<String, String> =
            listed.iter().map(|mail| (text(mail, "message_id"), text(mail, "id"))).collect();
        for (message_id, id) in ids {
            if books.copies(&message_id) > 0 {
                self.call(&["queue", "settle", &id, "accepted"])?;
            } else {
                self.call(&["queue", "settle", &id, "refused"])?;
                self.call(&["queue", "retry", &id])?;
            }
        }
        self.worker(&["--until-idle"])?.ends_well()
    }

    /// Start a sending worker.
    pub(super) fn worker(&self, more: &[&str]) -> Outcome<Worker> {
        self.postroom.worker(&[&["--only", "send"], more].concat())
    }

    /// Wait until the server has taken so many mails in all, as long as this worker lives.
    pub(super) fn wait_for_arrivals(&self, count: usize, worker: &mut Worker) -> Outcome<()> {
        let slice = Duration::from_millis(50);
        for _ in 0..PATIENCE.as_millis() / slice.as_millis() {
            process::still_wanted()?;
            let enough = |server: &MailServer| (server.accepted_count() >= count).then_some(());
            if self.stage.runtime.block_on(self.server.wait_for(slice, enough)).is_some() {
                return Ok(());
            }
            worker.still_runs()?;
        }
        Err(format!("{count} mails did not arrive within {PATIENCE:?}"))
    }

    /// What did not hold, with the folder kept to look into.
    pub(super) fn keep(self, error: &str) -> String {
        self.postroom.keep(error)
    }
}
