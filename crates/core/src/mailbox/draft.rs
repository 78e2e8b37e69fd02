//! The form of a mailbox as a person, a file or a row fills it, and the one way from it to valid settings. All
//! violations are found at once.

use serde::{Deserialize, Serialize};

use super::inbox::{self, AfterStore, Baseline, Inbox};
use super::oauth::{OAuthDraft, OAuthSecret};
use super::outbox::{Authentication, Outbox, PRESETS, SentCopy};
use super::settings::{MailboxSettings, Settings};
use crate::address::{Address, NamedAddress};
use crate::endpoint::{Authority, Endpoint, Host, Port, Tls};
use crate::id::MailboxId;
use crate::provider::{Provider, default_outbox_port};
use crate::rules;
use crate::secret::{ExposeSecret, SecretChange};
use crate::violation::{Findings, Invalid, Violations, shown};

const SIZE_LIMIT: u64 = 1 << 30;
const DEFAULT_MAX_MESSAGE: u64 = 64 << 20;
const DEFAULT_MAX_ATTACHMENT: u64 = 32 << 20;
const DEFAULT_PER_ROUND: u32 = 500;
const DEFAULT_CONNECTIONS: u32 = 5;

/// The form of a mailbox: texts and numbers as they were given. Its secret is passed apart and never serialised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a form that hosts fill by literal with `..MailboxDraft::new(..)`"
)]
pub struct MailboxDraft {
    /// What the box is for.
    pub description: String,
    /// Host name or IP literal.
    pub server: String,
    /// Empty for the protocol's default.
    #[serde(default)]
    pub port: Option<u32>,
    /// PEM of certificates to trust besides the platform's.
    #[serde(default)]
    pub authority: Option<String>,
    /// The greatest message, in bytes; empty for 64 MiB.
    #[serde(default)]
    pub max_message: Option<u64>,
    /// The dangerous opt-in to send a password without TLS; an inbox then uses no TLS at all.
    #[serde(default)]
    pub danger_plaintext: bool,
    /// What only one kind has.
    #[serde(flatten)]
    pub settings: SettingsDraft,
}

/// The part of the form that changes with the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "there are two kinds of mailbox")]
pub enum SettingsDraft {
    /// Of an inbox.
    Inbox(InboxDraft),
    /// Of an outbox.
    Outbox(OutboxDraft),
}

impl From<InboxDraft> for SettingsDraft {
    fn from(draft: InboxDraft) -> Self {
        Self::Inbox(draft)
    }
}

impl From<OutboxDraft> for SettingsDraft {
    fn from(draft: OutboxDraft) -> Self {
        Self::Outbox(draft)
    }
}

/// The form of an inbox. Empty fields take the stated default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a form that hosts fill by literal with `..Default::default()`"
)]
pub struct InboxDraft {
    /// `imap`, `imaps`, `pop3`, `pop3s`.
    pub provider: String,
    /// The login.
    pub user: String,
    /// How access tokens are asked for; empty for a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthDraft>,
    /// Default `INBOX`; none for POP3.
    pub folder: Option<String>,
    /// `leave` (default), `seen`, `delete`, `delete:DAYS`, `move:FOLDER`.
    pub after: Option<String>,
    /// `new` (default), `all`, `days:N`.
    pub baseline: Option<String>,
    /// Default 500.
    pub per_round: Option<u32>,
    /// Extensions without their dot.
    pub refused_extensions: Vec<String>,
    /// In bytes; default 32 MiB.
    pub max_attachment: Option<u64>,
}

/// The form of an outbox. Empty fields take the stated default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a form that hosts fill by literal with `..Default::default()`"
)]
pub struct OutboxDraft {
    /// `none`, `starttls`, `implicit`.
    pub tls: String,
    /// `none`, `password`, `oauth2`.
    pub auth: String,
    /// The login, unless `none`.
    pub user: Option<String>,
    /// How access tokens are asked for, with `oauth2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OAuthDraft>,
    /// `Name <a@b>`, one or more.
    pub senders: Vec<String>,
    /// The address of the default sender; empty for the first.
    pub default_sender: Option<String>,
    /// The name of a known provider whose limits fill what is left empty.
    pub preset: Option<String>,
    /// Default 5, or the preset's.
    pub max_connections: Option<u32>,
    /// Default none, or the preset's.
    pub per_minute: Option<u32>,
    /// Default none, or the preset's.
    pub recipients_per_day: Option<u32>,
    /// Where bounces go; default the sender.
    pub return_path: Option<String>,
    /// The companion inbox.
    pub companion: Option<MailboxId>,
    /// `no` (default), `append:FOLDER`.
    pub sent_copy: Option<String>,
    /// The name to greet with; default one that the transport makes of its own address.
    pub ehlo_name: Option<String>,
}

impl MailboxDraft {
    /// A form with the fields that every mailbox has to have; the others are empty.
    #[must_use]
    pub fn new(
        description: impl Into<String>,
        server: impl Into<String>,
        settings: impl Into<SettingsDraft>,
    ) -> Self {
        Self {
            description: description.into(),
            server: server.into(),
            port: None,
            authority: None,
            max_message: None,
            danger_plaintext: false,
            settings: settings.into(),
        }
    }

    /// Checks the whole form.
    ///
    /// # Errors
    /// Every violation, in the order of the form.
    pub fn check(&self) -> Result<MailboxSettings, Violations> {
        let mut findings = Findings::default();
        let description = findings.take("description", description(&self.description));
        let host = findings.take("server", Host::parse(&self.server));
        let port = self.port.map(|number| findings.take("port", Port::new(number)));
        let authority =
            self.authority.as_deref().map(|pem| findings.take("authority", Authority::parse(pem)));
        let max_message = self.max_message.unwrap_or(DEFAULT_MAX_MESSAGE);
        findings.refuse_if(!(1024..=SIZE_LIMIT).contains(&max_message), "max_message", &rules::MAX_MESSAGE);
        let settings = match &self.settings {
            SettingsDraft::Inbox(draft) => {
                draft.check(self.danger_plaintext, &mut findings).map(Settings::Inbox)
            }
            SettingsDraft::Outbox(draft) => {
                draft.check(self.danger_plaintext, &mut findings).map(Settings::Outbox)
            }
        };
        let value = || {
            let settings = settings?;
            let port = match port {
                Some(port) => port?,
                None => default_port(&settings)?,
            };
            Some(MailboxSettings {
                description: description?,
                endpoint: Endpoint::new(host?, port),
                authority: match authority {
                    Some(authority) => Some(authority?),
                    None => None,
                },
                max_message,
                danger_plaintext: self.danger_plaintext,
                settings,
            })
        };
        findings.finish(value())
    }

    /// Checks the form together with what it does to the secret; `current` is the stored mailbox that it edits, with
    /// whether a secret is stored for it.
    ///
    /// # Errors
    /// Every violation of the form and of the rules on secrets.
    pub fn check_with_secret(
        &self,
        secret: &SecretChange,
        current: Option<(&MailboxSettings, SecretPresence)>,
    ) -> Result<MailboxSettings, Violations> {
        let checked = self.check();
        let mut findings = Findings::default();
        let (checked, signs_in) = match checked {
            Ok(settings) => {
                let signs_in = settings.user().is_some();
                (Some(settings), signs_in)
            }
            Err(violations) => {
                findings.add_all("", violations);
                (None, self.claims_sign_in())
            }
        };
        match (secret, signs_in) {
            (SecretChange::Set(_), false) => {
                findings.add(Invalid::new(&rules::PASSWORD_ABSENT).at("password"));
            }
            (SecretChange::Set(secret), true) => match checked.as_ref().and_then(MailboxSettings::oauth) {
                Some(oauth) => drop(findings.take("password", OAuthSecret::parse(secret, oauth.grant()))),
                None => {
                    findings.refuse_if(!is_password(secret.expose_secret()), "password", &rules::PASSWORD)
                }
            },
            (SecretChange::Clear, true) => {
                findings.add(Invalid::new(&rules::PASSWORD_REQUIRED).at("password"))
            }
            (SecretChange::Clear | SecretChange::Keep, false) => {}
            (SecretChange::Keep, true) => match (current, &checked) {
                (Some((_, SecretPresence::Stored)), None) => {}
                (Some((old, SecretPresence::Stored)), Some(new)) => {
                    findings.refuse_if(!old.keeps_secret(new), "password", &rules::PASSWORD_AGAIN);
                }
                _ => findings.add(Invalid::new(&rules::PASSWORD_REQUIRED).at("password")),
            },
        }
        findings.finish(checked)
    }

    fn claims_sign_in(&self) -> bool {
        match &self.settings {
            SettingsDraft::Inbox(_) => true,
            SettingsDraft::Outbox(draft) => draft.auth.trim() != "none",
        }
    }
}

/// The form that gives these settings again, with every default filled in.
impl From<&MailboxSettings> for MailboxDraft {
    fn from(from: &MailboxSettings) -> Self {
        Self {
            description: from.description.clone(),
            server: from.endpoint.host.to_string(),
            port: Some(from.endpoint.port.number().into()),
            authority: from.authority.as_ref().map(ToString::to_string),
            max_message: Some(from.max_message),
            danger_plaintext: from.danger_plaintext,
            settings: match &from.settings {
                Settings::Inbox(inbox) => SettingsDraft::Inbox(InboxDraft {
                    provider: inbox.provider.to_string(),
                    user: inbox.user.clone(),
                    oauth: inbox.oauth.as_ref().map(OAuthDraft::from),
                    folder: inbox.folder.clone(),
                    after: Some(inbox.after.to_string()),
                    baseline: Some(inbox.baseline.to_string()),
                    per_round: Some(inbox.per_round),
                    refused_extensions: inbox.refused_extensions.clone(),
                    max_attachment: Some(inbox.max_attachment),
                }),
                Settings::Outbox(outbox) => SettingsDraft::Outbox(OutboxDraft {
                    tls: outbox.tls.to_string(),
                    auth: outbox.authentication.word().to_owned(),
                    user: outbox.authentication.user().map(ToOwned::to_owned),
                    oauth: outbox.authentication.oauth().map(OAuthDraft::from),
                    senders: outbox.senders.iter().map(ToString::to_string).collect(),
                    default_sender: Some(outbox.default_sender().address().to_string()),
                    preset: None,
                    max_connections: Some(outbox.max_connections),
                    per_minute: outbox.per_minute,
                    recipients_per_day: outbox.recipients_per_day,
                    return_path: outbox.return_path.as_ref().map(ToString::to_string),
                    companion: outbox.companion,
                    sent_copy: Some(outbox.sent_copy.to_string()),
                    ehlo_name: outbox.ehlo_name.as_ref().map(ToString::to_string),
                }),
            },
        }
    }
}

/// Whether the store has a secret for a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is one or there is none")]
pub enum SecretPresence {
    /// One is stored.
    Stored,
    /// None is stored.
    Absent,
}

fn description(text: &str) -> Result<String, Invalid> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err(Invalid::new(&rules::DESCRIPTION).with("characters", text.chars().count().to_string()));
    }
    Ok(text.to_owned())
}

fn user(text: &str) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > 320 || text.chars().any(char::is_control) {
        return Err(Invalid::new(&rules::USER).with("bytes", text.len().to_string()));
    }
    Ok(text.to_owned())
}

fn is_password(text: &str) -> bool {
    (1..=4096).contains(&text.len()) && !text.contains(['\0', '\r', '\n'])
}

fn default_port(settings: &Settings) -> Option<Port> {
    let number = match settings {
        Settings::Inbox(inbox) => inbox.provider().default_port(),
        Settings::Outbox(outbox) => default_outbox_port(outbox.tls()),
    };
    Port::new(number.into()).ok()
}

impl InboxDraft {
    fn check(&self, danger_plaintext: bool, findings: &mut Findings) -> Option<Inbox> {
        let provider = findings.take("provider", Provider::parse(&self.provider));
        let user = findings.take("user", user(&self.user));
        let oauth = self.oauth.as_ref().map(|draft| draft.check(danger_plaintext, findings));
        let has_folders = provider.is_none_or(Provider::has_folders);
        findings.refuse_if(!has_folders && self.folder.is_some(), "folder", &rules::FOLDER_ABSENT);
        let folder = match (&self.folder, has_folders) {
            (Some(folder), true) => findings.take("folder", inbox::folder(folder)),
            (None, true) => Some("INBOX".to_owned()),
            (_, false) => None,
        };
        let after = findings.take("after", AfterStore::parse(self.after.as_deref().unwrap_or("leave")));
        if let Some(after) = &after {
            let flags = matches!(after, AfterStore::Seen | AfterStore::Move(_));
            findings.refuse_if(!has_folders && flags, "after", &rules::AFTER_POP3);
            let same = matches!(after, AfterStore::Move(to) if inbox::folder(to).ok() == folder);
            findings.refuse_if(same, "after", &rules::AFTER_SAME_FOLDER);
        }
        let baseline = findings.take("baseline", Baseline::parse(self.baseline.as_deref().unwrap_or("new")));
        let per_round = self.per_round.unwrap_or(DEFAULT_PER_ROUND);
        findings.refuse_if(!(1..=10_000).contains(&per_round), "per_round", &rules::PER_ROUND);
        let refused_extensions = findings.take("refused_extensions", extensions(&self.refused_extensions));
        let max_attachment = self.max_attachment.unwrap_or(DEFAULT_MAX_ATTACHMENT);
        findings.refuse_if(
            !(1..=SIZE_LIMIT).contains(&max_attachment),
            "max_attachment",
            &rules::MAX_ATTACHMENT,
        );
        Some(Inbox {
            provider: provider?,
            user: user?,
            oauth: oauth.map_or(Some(None), |found| found.map(Some))?,
            folder,
            after: after?,
            baseline: baseline?,
            per_round,
            refused_extensions: refused_extensions?,
            max_attachment,
        })
    }
}

fn extensions(given: &[String]) -> Result<Vec<String>, Invalid> {
    let mut all: Vec<String> =
        given.iter().map(|text| text.trim().trim_start_matches('.').to_lowercase()).collect();
    all.sort();
    let word = |text: &String| {
        (1..=20).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if all.len() > 200 || !all.iter().all(word) || all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Invalid::new(&rules::EXTENSIONS));
    }
    Ok(all)
}

impl OutboxDraft {
    fn check(&self, danger_plaintext: bool, findings: &mut Findings) -> Option<Outbox> {
        let tls = findings.take("tls", Tls::parse(&self.tls));
        let authentication = self.authentication(danger_plaintext, findings);
        let signs_in = authentication.as_ref().is_some_and(|how| how.user().is_some());
        let plain = tls == Some(Tls::None) && signs_in;
        findings.refuse_if(plain && !danger_plaintext, "danger_plaintext", &rules::DANGER_PLAINTEXT);
        let senders = self.senders(findings);
        let default_sender = senders.as_deref().and_then(|senders| self.default_sender(senders, findings));
        let preset = match self.preset.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => {
                let found = PRESETS.iter().find(|preset| preset.name == name);
                let invalid = || Invalid::new(&rules::PRESET).with("value", shown(name));
                findings.take("preset", found.ok_or_else(invalid))
            }
        };
        let max_connections =
            self.max_connections.or(preset.map(|p| p.max_connections)).unwrap_or(DEFAULT_CONNECTIONS);
        findings.refuse_if(!(1..=100).contains(&max_connections), "max_connections", &rules::CONNECTIONS);
        let per_minute = self.per_minute.or(preset.and_then(|p| p.per_minute));
        let outside = |limit: Option<u32>, most| limit.is_some_and(|number| !(1..=most).contains(&number));
        findings.refuse_if(outside(per_minute, 1_000_000), "per_minute", &rules::PER_MINUTE);
        let per_day = self.recipients_per_day.or(preset.and_then(|p| p.recipients_per_day));
        findings.refuse_if(outside(per_day, 100_000_000), "recipients_per_day", &rules::PER_DAY);
        let return_path =
            self.return_path.as_deref().map(|text| findings.take("return_path", Address::parse(text)));
        let sent_copy =
            findings.take("sent_copy", SentCopy::parse(self.sent_copy.as_deref().unwrap_or("no")));
        let copies = matches!(sent_copy, Some(SentCopy::Append(_)));
        findings.refuse_if(copies && self.companion.is_none(), "sent_copy", &rules::SENT_COPY_COMPANION);
        let ehlo =
            |text: &str| Host::parse(text).map_err(|_| Invalid::new(&rules::EHLO).with("value", shown(text)));
        let ehlo_name = self.ehlo_name.as_deref().map(|text| findings.take("ehlo_name", ehlo(text)));
        Some(Outbox {
            tls: tls?,
            authentication: authentication?,
            senders: senders?,
            default_sender: default_sender?,
            max_connections,
            per_minute,
            recipients_per_day: per_day,
            return_path: return_path.map_or(Some(None), |found| found.map(Some))?,
            companion: self.companion,
            sent_copy: sent_copy?,
            ehlo_name: ehlo_name.map_or(Some(None), |found| found.map(Some))?,
        })
    }

    fn authentication(&self, danger_plaintext: bool, findings: &mut Findings) -> Option<Authentication> {
        let by_token = self.auth.trim() == "oauth2";
        findings.refuse_if(self.oauth.is_some() && !by_token, "oauth", &rules::OAUTH_ABSENT);
        match self.auth.trim() {
            "none" => {
                findings.refuse_if(self.user.is_some(), "user", &rules::USER_ABSENT);
                Some(Authentication::None)
            }
            "password" => {
                let user = findings.take("user", user(self.user.as_deref().unwrap_or_default()))?;
                Some(Authentication::Password { user })
            }
            "oauth2" => {
                let user = findings.take("user", user(self.user.as_deref().unwrap_or_default()));
                let empty = OAuthDraft::default();
                let oauth = self.oauth.as_ref().unwrap_or(&empty).check(danger_plaintext, findings);
                Some(Authentication::OAuth { user: user?, oauth: oauth? })
            }
            other => {
                findings.add(Invalid::new(&rules::AUTH).with("value", shown(other)).at("auth"));
                None
            }
        }
    }

    fn senders(&self, findings: &mut Findings) -> Option<Vec<NamedAddress>> {
        findings.refuse_if(!(1..=100).contains(&self.senders.len()), "senders", &rules::SENDERS);
        let mut senders: Vec<NamedAddress> = Vec::new();
        for (index, text) in self.senders.iter().take(100).enumerate() {
            let field = format!("senders[{index}]");
            let Some(sender) = findings.take(&field, NamedAddress::parse(text)) else { continue };
            let twice = senders.iter().any(|other| other.address().same_mailbox(sender.address()));
            findings.refuse_if(twice, &field, &rules::SENDER_UNIQUE);
            senders.push(sender);
        }
        (!senders.is_empty()).then_some(senders)
    }

    fn default_sender(&self, senders: &[NamedAddress], findings: &mut Findings) -> Option<usize> {
        let Some(text) = &self.default_sender else { return Some(0) };
        let found = Address::parse(text)
            .ok()
            .and_then(|wanted| senders.iter().position(|sender| sender.address().same_mailbox(&wanted)));
        findings.take(
            "default_sender",
            found.ok_or_else(|| Invalid::new(&rules::DEFAULT_SENDER).with("value", shown(text))),
        )
    }
}
