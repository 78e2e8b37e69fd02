//! `postroom mailbox probe`: every stage of a conversation with its result, for saved and unsaved settings.

use postroom::core::id::MailboxId;
use postroom::core::mailbox::MailboxDraft;
use postroom::transport::{Outcome, ProbeReport};
use serde::Serialize;
use serde_json::json;

use super::form::{Changes, Form};
use crate::failure::{Failure, Result};
use crate::output::{note, table};
use crate::session::Session;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Subject {
    /// A saved mailbox.
    #[arg(required = true)]
    id: Option<MailboxId>,
    #[command(flatten)]
    changes: Changes,
    #[command(subcommand)]
    form: Option<Form>,
}

#[derive(Serialize)]
struct Stage {
    stage: &'static str,
    passed: bool,
    found: Option<String>,
    cause: Option<String>,
    remedy: Option<&'static str>,
}

impl Subject {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        let postroom = &session.postroom;
        let report = match (&self.form, self.id) {
            (Some(form), _) => {
                let mut draft = form.draft()?;
                if draft.description.is_empty() {
                    // A probe needs no description, a saved box does.
                    "a probe".clone_into(&mut draft.description);
                }
                warn(&draft);
                postroom.probe_draft(&draft, form.secret()?, None).await?
            }
            (None, Some(id)) if self.changes.is_empty() => postroom.probe(id).await?,
            (None, Some(id)) => {
                let stored = postroom.mailbox(id).await?;
                let mut draft = MailboxDraft::from(&stored.settings);
                self.changes.apply(&mut draft)?;
                warn(&draft);
                postroom.probe_draft(&draft, self.changes.secret()?, Some(id)).await?
            }
            (None, None) => return Err(Failure::Usage("name a mailbox, or give the settings of one".into())),
        };
        tell(session, &report)
    }
}

fn warn(draft: &MailboxDraft) {
    for warning in draft.check().iter().flat_map(|settings| settings.warnings()) {
        note(&format!("warning: {warning}"));
    }
}

fn tell(session: &Session, report: &ProbeReport) -> Result<()> {
    let stages: Vec<Stage> = report
        .stages()
        .iter()
        .map(|(stage, outcome)| {
            let stage = stage.word();
            match outcome {
                Outcome::Failed(error) => {
                    let (cause, remedy) = (Some(error.to_string()), Some(error.remedy()));
                    Stage { stage, passed: false, found: None, cause, remedy }
                }
                Outcome::Passed(found) => {
                    Stage { stage, passed: true, found: Some(found.clone()), cause: None, remedy: None }
                }
                // An outcome that a later release adds is no success.
                _ => Stage { stage, passed: false, found: None, cause: None, remedy: None },
            }
        })
        .collect();
    let document = json!({ "passed": report.passed(), "stages": stages });
    session.output.document(&document, || {
        let row = |stage: &Stage| {
            let result = if stage.passed { "passed" } else { "FAILED" };
            let words = stage.found.clone().or_else(|| stage.cause.clone()).unwrap_or_default();
            vec![stage.stage.to_owned(), result.to_owned(), words]
        };
        table(&["Stage", "Result", "Found"], stages.iter().map(row))
    })?;
    match report.failure() {
        None => Ok(()),
        Some(error) => {
            let message = format!(
                "the probe failed at the stage {}: {error}\n  what to do: {}",
                error.stage(),
                error.remedy()
            );
            Err(Failure::unreachable("probe-failed", message)
                .with_detail("stage", error.stage().word().into())
                .with_detail("remedy", error.remedy().into()))
        }
    }
}
