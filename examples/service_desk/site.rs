//! What the desk works with: its contracts, their mailboxes and customers, as a file names them for real servers. Nothing is
//! registered here.

use std::path::Path;

use postroom::core::mailbox::MailboxDraft;
use postroom::core::secret::{SecretChange, SecretString};
use serde::Deserialize;

use crate::Outcome;

/// The whole desk.
#[derive(Debug, Deserialize)]
pub(crate) struct Site {
    /// The system's standard outbox.
    pub(crate) standard: Account,
    /// The flow step "a request was opened".
    pub(crate) step: StepSite,
    #[serde(rename = "contract")]
    pub(crate) contracts: Vec<Client>,
}

/// The step that is set to Specific.
#[derive(Debug, Deserialize)]
pub(crate) struct StepSite {
    /// Its outbox.
    pub(crate) outbox: Account,
    /// Whom it writes to: addresses, or names that the desk knows.
    pub(crate) recipients: Vec<String>,
}

/// A contract with the customer who writes to it.
#[derive(Debug, Deserialize)]
pub(crate) struct Client {
    pub(crate) id: String,
    /// The address that its customers write to.
    pub(crate) address: String,
    pub(crate) inbox: Account,
    /// Its own outbox; none for Standard.
    pub(crate) outbox: Option<Account>,
    pub(crate) customer: Customer,
}

/// Who writes, and, on real servers, the mailboxes from which he does.
#[derive(Debug, Deserialize)]
pub(crate) struct Customer {
    pub(crate) address: String,
    pub(crate) outbox: Option<Account>,
    pub(crate) inbox: Option<Account>,
}

/// The form of a mailbox, and where its password is found.
#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    /// The variable of the environment that holds the password; none for a box that does not sign in.
    password_env: Option<String>,
    #[serde(skip)]
    password: Option<SecretString>,
    #[serde(flatten)]
    pub(crate) form: MailboxDraft,
}

impl Account {
    pub(crate) fn new(form: MailboxDraft, password: Option<&str>) -> Self {
        Self { password_env: None, password: password.map(SecretString::from), form }
    }

    pub(crate) fn secret(&self) -> Outcome<SecretChange> {
        if let Some(password) = &self.password {
            return Ok(SecretChange::Set(password.clone()));
        }
        let Some(name) = &self.password_env else { return Ok(SecretChange::Keep) };
        let password = std::env::var(name).map_err(|error| format!("the password in ${name}: {error}"))?;
        Ok(SecretChange::Set(password.into()))
    }
}

impl Site {
    /// Reads a file: TOML, or JSON where its name ends so.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let site = if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        site.map_err(|error| format!("{}: {error}", path.display()).into())
    }
}
