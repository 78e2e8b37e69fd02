//! `postroom mailbox`: register, change, show, list, probe and remove mailboxes. The options of a form are in `form`, the report
//! of a probe in `probe`, what is shown of a box in `view`.

mod form;
mod list;
mod options;
mod probe;
mod view;

use clap::Subcommand;
use postroom::core::id::{MailboxId, Revision};
use postroom::core::mailbox::{MailboxDraft, Status};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output::{fields, note};
use crate::session::Session;
use form::{Changes, Form};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Register a mailbox. It is in use at once, unless it is a draft.
    Add {
        #[command(subcommand)]
        form: Box<Form>,
    },
    /// Change settings of a mailbox; what is not named stays.
    Edit(Box<Edit>),
    /// Show everything of a mailbox but its password.
    Show { id: MailboxId },
    /// Take a mailbox out of use. Nothing is lost.
    Disable { id: MailboxId },
    /// Take a mailbox into use, and forget what was wrong with it.
    Enable { id: MailboxId },
    /// Remove a mailbox that nothing uses, or move its links to another.
    Delete {
        id: MailboxId,
        /// The mailbox that takes over its links.
        #[arg(long, value_name = "ID")]
        replace_with: Option<MailboxId>,
    },
    /// Search for mailboxes.
    List(list::Filter),
    /// Try a saved mailbox, a change of one, or settings that are not saved, stage by stage. Nothing is sent, nothing changes.
    Probe(Box<probe::Subject>),
}

#[derive(clap::Args)]
pub(crate) struct Edit {
    id: MailboxId,
    /// The revision that was shown: refused when somebody else changed it since.
    #[arg(long, value_name = "N")]
    revision: Option<Revision>,
    #[command(flatten)]
    changes: Changes,
}

impl Command {
    pub(crate) async fn perform(&self, session: &Session) -> Result<()> {
        match self {
            Self::Add { form } => add(session, form).await,
            Self::Edit(edit) => edit.perform(session).await,
            Self::Show { id } => show(session, *id).await,
            Self::Disable { id } => set_status(session, *id, Status::Disabled).await,
            Self::Enable { id } => set_status(session, *id, Status::Active).await,
            Self::Delete { id, replace_with } => delete(session, *id, *replace_with).await,
            Self::List(filter) => filter.perform(session).await,
            Self::Probe(subject) => subject.perform(session).await,
        }
    }
}

async fn add(session: &Session, form: &Form) -> Result<()> {
    let (draft, secret) = (form.draft()?, form.secret()?);
    let status = if form.is_draft() { Status::Draft } else { Status::Active };
    let mailbox = session.postroom.register(&session.actor, &draft, secret, status).await?;
    saved(session, &mailbox)
}

/// Tells what was saved, and what a person should know of it.
fn saved(session: &Session, mailbox: &postroom::core::mailbox::Mailbox) -> Result<()> {
    warn(&mailbox.settings.warnings());
    session.output.document(&view::document(mailbox), || {
        format!("mailbox {}, revision {}, {}", mailbox.id, mailbox.revision, mailbox.status)
    })
}

fn warn(warnings: &[&str]) {
    for warning in warnings {
        note(&format!("warning: {warning}"));
    }
}

impl Edit {
    async fn perform(&self, session: &Session) -> Result<()> {
        let stored = session.postroom.mailbox(self.id).await?;
        let mut draft = MailboxDraft::from(&stored.settings);
        self.changes.apply(&mut draft)?;
        let revision = self.revision.unwrap_or(stored.revision);
        let secret = self.changes.secret()?;
        let mailbox = session.postroom.edit(&session.actor, self.id, revision, &draft, secret).await?;
        saved(session, &mailbox)
    }
}

async fn show(session: &Session, id: MailboxId) -> Result<()> {
    let mailbox = session.postroom.mailbox(id).await?;
    let mut document = view::document(&mailbox);
    let password = if session.store().secret(id).await?.is_some() { "stored" } else { "none" };
    document["password"] = password.into();
    document["health"] = json!(session.store().health(id).await?);
    document["uses"] = json!(session.postroom.uses(id).await?);
    document["warnings"] = json!(mailbox.settings.warnings());
    session.output.document(&document, || view::text(&document))
}

async fn set_status(session: &Session, id: MailboxId, status: Status) -> Result<()> {
    let mailbox = session.postroom.set_status(&session.actor, id, status).await?;
    saved(session, &mailbox)
}

async fn delete(session: &Session, id: MailboxId, replacement: Option<MailboxId>) -> Result<()> {
    match session.postroom.remove(&session.actor, id, replacement).await.map_err(Failure::from) {
        Ok(()) => {
            session.output.document(&json!({ "id": id, "removed": true }), || format!("mailbox {id} removed"))
        }
        Err(failure) if failure.code() == "in-use" => {
            let uses = json!(session.postroom.uses(id).await?);
            Err(Failure::refused("in-use", in_use(id, &uses)).with_detail("uses", uses))
        }
        Err(failure) => Err(failure),
    }
}

fn in_use(id: MailboxId, uses: &Value) -> String {
    format!(
        "mailbox {id} is in use; move its links with --replace-with ID, and let its mail be finished first\n{}",
        fields(uses)
    )
}
