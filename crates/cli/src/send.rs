//! `postroom send` and `postroom notify`: a mail of the command line, or of a flow's step, is submitted. When it is printed it is
//! durably queued.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postroom::core::address::{Address, NamedAddress};
use postroom::core::id::{ContractId, IdempotencyKey, LedgerId, RecordId, StepKey};
use postroom::core::message::{Automation, Content, OnDoubt, OnSuppressed, Priority, Submission};
use postroom::core::template::Values;
use postroom::core::time::Timestamp;
use postroom::core::violation::Findings;
use postroom::engine::Submitted;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::attachment;
use crate::failure::{Failure, Result};
use crate::session::Session;

/// How many submissions of one command wait for their commit at once.
const AT_ONCE: usize = 64;

#[derive(clap::Args)]
pub(crate) struct Letter {
    #[arg(long)]
    contract: ContractId,
    /// The flow's step that sends it: its outbox setup decides first.
    #[arg(long, value_name = "FLOW/STEP")]
    step: Option<StepKey>,
    /// 'Name <a@b>' or a@b; repeat it for more.
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["cc", "bcc"])]
    to: Vec<String>,
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    /// In the envelope only.
    #[arg(long, value_name = "ADDRESS")]
    bcc: Vec<String>,
    /// One of the outbox's senders; without it, as the links say.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<Address>,
    /// Where answers go, when not to the sender.
    #[arg(long, value_name = "ADDRESS")]
    reply_to: Option<NamedAddress>,
    #[arg(long, required_unless_present = "eml")]
    subject: Option<String>,
    /// The text.
    #[arg(long, required_unless_present_any = ["text_file", "html_file", "eml"])]
    text: Option<String>,
    /// The text, from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    text_file: Option<PathBuf>,
    /// The HTML, from a file.
    #[arg(long, value_name = "FILE")]
    html_file: Option<PathBuf>,
    /// The whole mail as RFC 5322 bytes: sent as they are.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "text", "text_file", "html_file", "attach", "reply_to"])]
    eml: Option<PathBuf>,
    /// A file that goes with it; repeat it for more.
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    /// What it is about: an answer is handed over with it.
    #[arg(long)]
    record: Option<RecordId>,
    /// The received mail that it answers.
    #[arg(long, value_name = "LEDGER_ID")]
    in_reply_to: Option<LedgerId>,
    /// Submitted again with the same key and content, it is the same mail.
    #[arg(long, value_name = "KEY", conflicts_with = "repeat")]
    idempotency_key: Option<IdempotencyKey>,
    /// When nobody knows whether the server took it: hold it for a person, or resend it.
    #[arg(long, value_name = "hold|resend", default_value = "hold")]
    on_doubt: OnDoubt,
    /// Say that a program writes it: its headers tell so, a reply has the null return path, no mail of a program is answered, and each
    /// recipient gets two an hour and four a day of the contract at most.
    #[arg(long, value_name = "reply|notice", conflicts_with = "eml")]
    automatic: Option<Automation>,
    /// When a recipient is on the suppression list: refuse the mail, or send it all the same.
    #[arg(long, value_name = "refuse|send", default_value = "refuse")]
    on_suppressed: OnSuppressed,
    /// Which mail goes first within an outbox.
    #[arg(long, value_name = "low|normal|high", default_value = "normal")]
    priority: Priority,
    /// Not sent before, as 2026-11-24T18:00:00Z.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Timestamp>,
    /// Not sent after so many seconds; unless given, five days after it may first be sent.
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u64>,
    /// Submit so many mails, each its own, for load.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
}

#[derive(clap::Args)]
pub(crate) struct Notice {
    #[arg(long)]
    contract: ContractId,
    #[arg(long, value_name = "FLOW/STEP")]
    step: StepKey,
    /// A value of the template; repeat it for more.
    #[arg(long, value_name = "KEY=TEXT", value_parser = pair)]
    value: Vec<(String, String)>,
    /// The HTML form of a value, for the HTML part only: it is not escaped.
    #[arg(long, value_name = "KEY=HTML", value_parser = pair)]
    html_value: Vec<(String, String)>,
    /// What it is about.
    #[arg(long)]
    record: Option<RecordId>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=TEXT".into()),
    }
}

fn file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::file(path, &error))
}

fn text_file(path: &Path) -> Result<String> {
    String::from_utf8(file(path)?).map_err(|_| Failure::Usage(format!("{}: it is not UTF-8", path.display())))
}

impl Letter {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let submission = self.submission(session)?;
        match self.repeat {
            None => tell(session, &session.postroom.submit(&submission).await?),
            Some(count) => repeat(session, &submission, count).await,
        }
    }

    fn submission(&self, session: &Session) -> Result<Submission> {
        let mut submission = match &self.eml {
            Some(path) => Submission::raw(self.contract.clone(), file(path)?),
            None => {
                let text = match &self.text_file {
                    Some(path) => Some(text_file(path)?),
                    None => self.text.clone(),
                };
                let subject = self.subject.clone().unwrap_or_default();
                let mut parts = Submission::text(self.contract.clone(), subject, "");
                if let Content::Parts { text: part, .. } = &mut parts.content {
                    *part = text;
                }
                if let Some(path) = &self.html_file {
                    parts = parts.with_html(text_file(path)?);
                }
                for path in &self.attach {
                    parts = parts.with_attachment(attachment::read(path)?);
                }
                parts
            }
        };
        let mut findings = Findings::default();
        let mut all = |field: &str, given: &[String]| -> Vec<NamedAddress> {
            let given = given.iter().enumerate();
            given
                .filter_map(|(index, text)| {
                    findings.take(&format!("{field}[{index}]"), NamedAddress::parse(text))
                })
                .collect()
        };
        (submission.to, submission.cc, submission.bcc) =
            (all("to", &self.to), all("cc", &self.cc), all("bcc", &self.bcc));
        submission.step.clone_from(&self.step);
        submission.sender.clone_from(&self.sender);
        submission.reply_to.clone_from(&self.reply_to);
        submission.record.clone_from(&self.record);
        submission.in_reply_to = self.in_reply_to;
        submission.idempotency_key.clone_from(&self.idempotency_key);
        submission.on_doubt = self.on_doubt;
        (submission.automatic, submission.on_suppressed) = (self.automatic, self.on_suppressed);
        (submission.priority, submission.not_before) = (self.priority, self.not_before);
        submission.expires_at =
            self.expires.map(|seconds| session.postroom.now() + Duration::from_secs(seconds));
        // The other rules of a mail are found with the bad addresses. Where an address is bad, that none is left is no news.
        if let Err(violations) = submission.check() {
            let addressed = !(self.to.is_empty() && self.cc.is_empty() && self.bcc.is_empty());
            let news: Vec<_> = violations
                .all()
                .iter()
                .filter(|violation| !(addressed && violation.code() == "message.recipients"))
                .cloned()
                .collect();
            for violation in news {
                findings.add(violation);
            }
        }
        findings.finish(Some(submission)).map_err(Failure::from)
    }
}

/// Submits distinct mails, many at once, so that they share commits. Each is printed once it is queued.
async fn repeat(session: &Session, submission: &Submission, count: u32) -> Result<()> {
    let bar = session.output.progress(count.into());
    let mut submitting = JoinSet::new();
    let mut left = count;
    loop {
        while left > 0 && submitting.len() < AT_ONCE {
            let (postroom, submission) = (session.postroom.clone(), submission.clone());
            submitting.spawn(async move { postroom.submit(&submission).await });
            left -= 1;
        }
        let Some(done) = submitting.join_next().await else { break };
        let done = done.map_err(|error| Failure::unreachable("system", error.to_string()))?;
        let submitted = done?;
        bar.suspend(|| tell(session, &submitted))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn tell(session: &Session, submitted: &Submitted) -> Result<()> {
    session.output.document(&document(submitted), || submitted.id.to_string())
}

fn document(submitted: &Submitted) -> Value {
    let reasons: Vec<String> = submitted.reasons.iter().map(ToString::to_string).collect();
    json!({
        "id": submitted.id,
        "message_id": submitted.message_id,
        "outbox": submitted.outbox,
        "sender": submitted.sender,
        "reasons": reasons,
        "existing": submitted.existing,
    })
}

impl Notice {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let mut values = Values::default();
        for (key, value) in &self.value {
            values = values.with(key, value);
        }
        for (key, html) in &self.html_value {
            values = values.with_html(key, html);
        }
        let notified = session.postroom.notify(&self.contract, &self.step, values, self.record.clone()).await;
        tell(session, &notified?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_equal_signs_and_its_key_may_not_be_empty() {
        assert_eq!(pair("URL=https://x/?a=b"), Ok(("URL".into(), "https://x/?a=b".into())));
        assert_eq!(pair("EMPTY="), Ok(("EMPTY".into(), String::new())));
        assert!(pair("=x").is_err() && pair("x").is_err());
    }
}
