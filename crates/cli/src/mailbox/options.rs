//! The options that fill a mailbox's form: those of both kinds, of an inbox, of an outbox. What is not given leaves the draft as it
//! is. How options are put together is in `form`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use postroom::core::id::MailboxId;
use postroom::core::mailbox::{InboxDraft, MailboxDraft, OAuthDraft, OutboxDraft};
use postroom::core::secret::{SecretChange, SecretString};

use crate::failure::{Failure, Result};

/// Options of both kinds.
#[derive(Args, Default, PartialEq)]
pub(super) struct Both {
    /// What the box is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Host name or IP address.
    #[arg(long, value_name = "HOST")]
    server: Option<String>,
    /// Without it, the protocol's default.
    #[arg(long, value_name = "N")]
    port: Option<u32>,
    /// The login.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Read the password from standard input, up to the end; a line break at the end is not part of it. For OAuth2 it is the refresh token,
    /// with client-credentials the client secret, or both as JSON: {"refresh_token": "..", "client_secret": ".."}.
    #[arg(long)]
    password_stdin: bool,
    /// Dangerous: let the password travel without TLS. An inbox then uses no TLS at all.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    danger_plaintext: Option<bool>,
    /// Certificates to trust besides the platform's, in PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The greatest message, in bytes.
    #[arg(long, value_name = "BYTES")]
    max_message: Option<u64>,
}

/// Options of OAuth2.
#[derive(Args, Default, PartialEq)]
#[command(next_help_heading = "Options of OAuth2")]
pub(super) struct Tokens {
    /// Sign in by access tokens that this token endpoint gives, an https URL. An outbox needs --auth oauth2 too.
    #[arg(long, value_name = "URL")]
    oauth: Option<String>,
    /// The client's id at the provider.
    #[arg(long, value_name = "ID")]
    oauth_client: Option<String>,
    /// What the token is for, in the provider's words; without it, what was consented to.
    #[arg(long, value_name = "SCOPE")]
    oauth_scope: Option<String>,
    /// What is given for a token: refresh-token (without it) or client-credentials.
    #[arg(long, value_name = "GRANT")]
    oauth_grant: Option<String>,
}

impl Tokens {
    fn fill(&self, draft: &mut Option<OAuthDraft>) {
        if *self == Self::default() {
            return;
        }
        let draft = draft.get_or_insert_default();
        set(&mut draft.token_endpoint, self.oauth.as_ref());
        set(&mut draft.client, self.oauth_client.as_ref());
        set_option(&mut draft.scope, self.oauth_scope.as_ref());
        set_option(&mut draft.grant, self.oauth_grant.as_ref());
    }
}

/// Options of an inbox.
#[derive(Args, Default, PartialEq)]
#[command(next_help_heading = "Options of an inbox")]
pub(super) struct Inbox {
    /// imap, imaps, pop3 or pop3s. imap and pop3 require STARTTLS.
    #[arg(long, value_name = "PROTOCOL")]
    pub(super) provider: Option<String>,
    /// Without it, INBOX; POP3 has none.
    #[arg(long)]
    folder: Option<String>,
    /// What to do once a mail is safe: leave, seen, delete, delete:DAYS or move:FOLDER.
    #[arg(long, value_name = "WHAT")]
    after: Option<String>,
    /// Which mail counts at the first contact: new, all or days:N.
    #[arg(long, value_name = "WHICH")]
    baseline: Option<String>,
    /// The most mails taken in one round.
    #[arg(long, value_name = "N")]
    per_round: Option<u32>,
    /// A file extension that is not accepted as an attachment; repeat it for more.
    #[arg(long, value_name = "EXT")]
    refuse_extension: Vec<String>,
    /// The greatest attachment, in bytes.
    #[arg(long, value_name = "BYTES")]
    max_attachment: Option<u64>,
}

/// Options of an outbox.
#[derive(Args, Default, PartialEq)]
#[command(next_help_heading = "Options of an outbox")]
pub(super) struct Outbox {
    /// none, starttls (required) or implicit (from the first byte).
    #[arg(long)]
    pub(super) tls: Option<String>,
    /// none, password or oauth2.
    #[arg(long)]
    auth: Option<String>,
    /// 'Name <a@b>'; repeat it for more.
    #[arg(long, value_name = "SENDER")]
    sender: Vec<String>,
    /// The address of the default sender; without it, the first.
    #[arg(long, value_name = "ADDRESS")]
    default_sender: Option<String>,
    /// A known provider whose limits fill what is not given: microsoft365, google-workspace, gmail.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The most connections at once.
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// The most messages per minute.
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// The most recipients per day.
    #[arg(long, value_name = "N")]
    recipients_per_day: Option<u32>,
    /// Where bounces go; without it, to the sender.
    #[arg(long, value_name = "ADDRESS")]
    return_path: Option<String>,
    /// The inbox where its bounces arrive.
    #[arg(long, value_name = "ID")]
    companion: Option<MailboxId>,
    /// no, or append:FOLDER of the companion.
    #[arg(long, value_name = "WHAT")]
    sent_copy: Option<String>,
    /// The name to greet with.
    #[arg(long, value_name = "HOST")]
    ehlo_name: Option<String>,
}

fn set<T: Clone>(field: &mut T, given: Option<&T>) {
    if let Some(value) = given {
        field.clone_from(value);
    }
}

fn set_option<T: Clone>(field: &mut Option<T>, given: Option<&T>) {
    if given.is_some() {
        *field = given.cloned();
    }
}

impl Both {
    pub(super) fn fill(&self, draft: &mut MailboxDraft) -> Result<()> {
        set(&mut draft.description, self.description.as_ref());
        set(&mut draft.server, self.server.as_ref());
        set_option(&mut draft.port, self.port.as_ref());
        set_option(&mut draft.max_message, self.max_message.as_ref());
        set(&mut draft.danger_plaintext, self.danger_plaintext.as_ref());
        if let Some(path) = &self.ca {
            let read = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
            // What is no text is no PEM: the check says so.
            draft.authority = Some(String::from_utf8_lossy(&read).into_owned());
        }
        Ok(())
    }

    pub(super) fn secret(&self) -> Result<SecretChange> {
        if !self.password_stdin {
            return Ok(SecretChange::Keep);
        }
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(64 * 1024)
            .read_to_string(&mut text)
            .map_err(|error| Failure::Usage(format!("--password-stdin: {error}")))?;
        let end = text
            .strip_suffix('\n')
            .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line))
            .len();
        text.truncate(end);
        Ok(SecretChange::Set(SecretString::from(text)))
    }
}

impl Inbox {
    pub(super) fn fill(&self, user: Option<&String>, tokens: &Tokens, draft: &mut InboxDraft) {
        set(&mut draft.provider, self.provider.as_ref());
        set(&mut draft.user, user);
        tokens.fill(&mut draft.oauth);
        set_option(&mut draft.folder, self.folder.as_ref());
        set_option(&mut draft.after, self.after.as_ref());
        set_option(&mut draft.baseline, self.baseline.as_ref());
        set_option(&mut draft.per_round, self.per_round.as_ref());
        set_option(&mut draft.max_attachment, self.max_attachment.as_ref());
        if !self.refuse_extension.is_empty() {
            draft.refused_extensions.clone_from(&self.refuse_extension);
        }
    }
}

impl Outbox {
    pub(super) fn fill(&self, user: Option<&String>, tokens: &Tokens, draft: &mut OutboxDraft) {
        set(&mut draft.tls, self.tls.as_ref());
        set(&mut draft.auth, self.auth.as_ref());
        set_option(&mut draft.user, user);
        // The login goes with the sign-in.
        if self.auth.as_deref() == Some("none") && user.is_none() {
            draft.user = None;
        }
        // And so does where its tokens come from.
        if self.auth.as_deref().is_some_and(|auth| auth != "oauth2") {
            draft.oauth = None;
        }
        tokens.fill(&mut draft.oauth);
        if !self.sender.is_empty() {
            draft.senders.clone_from(&self.sender);
            draft.default_sender = None;
        }
        set_option(&mut draft.default_sender, self.default_sender.as_ref());
        set_option(&mut draft.preset, self.preset.as_ref());
        set_option(&mut draft.max_connections, self.max_connections.as_ref());
        set_option(&mut draft.per_minute, self.per_minute.as_ref());
        set_option(&mut draft.recipients_per_day, self.recipients_per_day.as_ref());
        set_option(&mut draft.return_path, self.return_path.as_ref());
        set_option(&mut draft.companion, self.companion.as_ref());
        set_option(&mut draft.sent_copy, self.sent_copy.as_ref());
        set_option(&mut draft.ehlo_name, self.ehlo_name.as_ref());
    }
}
