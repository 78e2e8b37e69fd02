//! The form of a mailbox as the command line fills it, anew or with changes, and the way from it to a draft. The draft is checked
//! by the engine, all violations at once.

use clap::{Args, Subcommand, ValueEnum};
use postroom::core::endpoint::Tls;
use postroom::core::mailbox::{InboxDraft, MailboxDraft, OutboxDraft, SettingsDraft};
use postroom::core::provider::{Provider, default_outbox_port};
use postroom::core::secret::SecretChange;

use super::options::{Both, Inbox, Outbox, Tokens};
use crate::failure::{Failure, Result};

/// A form that is filled anew.
#[derive(Subcommand)]
pub(crate) enum Form {
    /// Mail arrives in it.
    #[command(mut_args(|arg| required(arg, &["server", "user", "provider"])))]
    Inbox(InboxForm),
    /// Mail leaves by it.
    #[command(mut_args(|arg| required(arg, &["server", "tls", "auth", "sender"])))]
    Outbox(OutboxForm),
}

fn required(arg: clap::Arg, names: &[&str]) -> clap::Arg {
    let needed = names.contains(&arg.get_id().as_str());
    if needed { arg.required(true) } else { arg }
}

#[derive(Args)]
pub(crate) struct InboxForm {
    #[command(flatten)]
    both: Both,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    inbox: Inbox,
    #[command(flatten)]
    stage: Stage,
}

#[derive(Args)]
pub(crate) struct OutboxForm {
    #[command(flatten)]
    both: Both,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    outbox: Outbox,
    #[command(flatten)]
    stage: Stage,
}

#[derive(Args)]
struct Stage {
    /// Register it without using it yet.
    #[arg(long)]
    draft: bool,
}

/// Changes of a stored mailbox, of either kind.
#[derive(Args)]
pub(crate) struct Changes {
    #[command(flatten)]
    both: Both,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    inbox: Inbox,
    #[command(flatten)]
    outbox: Outbox,
    /// Empty an optional field; repeat it for more.
    #[arg(long, value_name = "FIELD")]
    unset: Vec<Field>,
}

/// A field that may be empty.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Field {
    Ca,
    PerMinute,
    RecipientsPerDay,
    ReturnPath,
    Companion,
    EhloName,
    RefuseExtension,
    /// Of an inbox: it signs in by a password again. An outbox has --auth for that.
    Oauth,
}

fn blank(settings: SettingsDraft) -> MailboxDraft {
    let (description, server) = (String::new(), String::new());
    let (port, authority, max_message, danger_plaintext) = (None, None, None, false);
    MailboxDraft { description, server, port, authority, max_message, danger_plaintext, settings }
}

impl Form {
    pub(crate) fn draft(&self) -> Result<MailboxDraft> {
        let (both, settings) = match self {
            Self::Inbox(form) => {
                let mut draft = InboxDraft::default();
                form.inbox.fill(form.both.user.as_ref(), &form.tokens, &mut draft);
                (&form.both, SettingsDraft::Inbox(draft))
            }
            Self::Outbox(form) => {
                let mut draft = OutboxDraft::default();
                form.outbox.fill(form.both.user.as_ref(), &form.tokens, &mut draft);
                (&form.both, SettingsDraft::Outbox(draft))
            }
        };
        let mut draft = blank(settings);
        both.fill(&mut draft)?;
        Ok(draft)
    }

    pub(crate) fn secret(&self) -> Result<SecretChange> {
        match self {
            Self::Inbox(form) => form.both.secret(),
            Self::Outbox(form) => form.both.secret(),
        }
    }

    pub(crate) fn is_draft(&self) -> bool {
        match self {
            Self::Inbox(form) => form.stage.draft,
            Self::Outbox(form) => form.stage.draft,
        }
    }
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.both == Both::default()
            && self.tokens == Tokens::default()
            && self.inbox == Inbox::default()
            && self.outbox == Outbox::default()
            && self.unset.is_empty()
    }

    /// Overrides in a stored mailbox's form what was given.
    pub(crate) fn apply(&self, draft: &mut MailboxDraft) -> Result<()> {
        let user = self.both.user.as_ref();
        let other = match &mut draft.settings {
            SettingsDraft::Inbox(inbox) => {
                // A default port goes with its protocol.
                if self.inbox.provider.is_some() && is_default_port(draft.port, &inbox.provider) {
                    draft.port = None;
                }
                self.inbox.fill(user, &self.tokens, inbox);
                (self.outbox != Outbox::default()).then_some("an inbox has none of the options of an outbox")
            }
            SettingsDraft::Outbox(outbox) => {
                if self.outbox.tls.is_some() && is_default_port(draft.port, &outbox.tls) {
                    draft.port = None;
                }
                self.outbox.fill(user, &self.tokens, outbox);
                (self.inbox != Inbox::default()).then_some("an outbox has none of the options of an inbox")
            }
        };
        if let Some(message) = other {
            return Err(Failure::Usage(message.into()));
        }
        self.both.fill(draft)?;
        self.unset.iter().for_each(|field| field.clear(draft));
        Ok(())
    }

    pub(crate) fn secret(&self) -> Result<SecretChange> {
        self.both.secret()
    }
}

fn is_default_port(port: Option<u32>, word: &str) -> bool {
    let of_inbox = Provider::parse(word).ok().map(Provider::default_port);
    let default = of_inbox.or_else(|| Tls::parse(word).ok().map(default_outbox_port));
    port.is_some() && port == default.map(u32::from)
}

impl Field {
    fn clear(self, draft: &mut MailboxDraft) {
        match (self, &mut draft.settings) {
            (Self::Ca, _) => draft.authority = None,
            (Self::PerMinute, SettingsDraft::Outbox(outbox)) => outbox.per_minute = None,
            (Self::RecipientsPerDay, SettingsDraft::Outbox(outbox)) => outbox.recipients_per_day = None,
            (Self::ReturnPath, SettingsDraft::Outbox(outbox)) => outbox.return_path = None,
            (Self::Companion, SettingsDraft::Outbox(outbox)) => outbox.companion = None,
            (Self::EhloName, SettingsDraft::Outbox(outbox)) => outbox.ehlo_name = None,
            (Self::RefuseExtension, SettingsDraft::Inbox(inbox)) => inbox.refused_extensions.clear(),
            (Self::Oauth, SettingsDraft::Inbox(inbox)) => inbox.oauth = None,
            // A field that the kind does not have is empty already.
            (_, SettingsDraft::Inbox(_) | SettingsDraft::Outbox(_)) => {}
        }
    }
}
