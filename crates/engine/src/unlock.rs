//! Unlock: the one place where a stored secret is opened, to make the route to a mailbox for the length of one call.

pub(crate) mod token;

use std::sync::Arc;

use postroom_core::credentials::Credentials;
use postroom_core::mailbox::{Mailbox, MailboxSettings, Settings};
use postroom_core::provider::Provider;
use postroom_core::secret::SecretString;
use postroom_core::thread::TokenKey;
use postroom_transport::{Protocol, Route};
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result};
use crate::postroom::Postroom;
use crate::register::password_of;

/// The protocol that a mailbox speaks.
pub(crate) fn protocol(settings: &MailboxSettings) -> Protocol {
    match settings.settings() {
        Settings::Outbox(_) => Protocol::Smtp,
        Settings::Inbox(inbox) => match inbox.provider() {
            Provider::Imap | Provider::Imaps => Protocol::Imap,
            Provider::Pop3 | Provider::Pop3s => Protocol::Pop3,
        },
    }
}

impl Postroom {
    /// The route to a registered mailbox, with its secret opened.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`] when the secret is missing or can't be opened.
    pub(crate) async fn route(&self, mailbox: &Mailbox) -> Result<Route> {
        let password = match mailbox.settings.user() {
            Some(_) => Some(self.open_password(mailbox).await?),
            None => None,
        };
        Ok(route(mailbox, password))
    }

    async fn open_password(&self, mailbox: &Mailbox) -> Result<SecretString> {
        let missing = || Error::new(ErrorKind::Sealing, "open the password of the mailbox");
        let sealed = self.store().secret(mailbox.id).await?.ok_or_else(missing)?;
        let mut plain = self.ports.keyring.open(&password_of(mailbox.id), &sealed)?;
        match String::from_utf8(std::mem::take(&mut *plain)) {
            Ok(text) => Ok(SecretString::from(text)),
            Err(error) => {
                error.into_bytes().zeroize();
                Err(missing())
            }
        }
    }

    /// The keys that sign thread tokens, the active one last. The first call makes one where there is none.
    pub(crate) async fn token_keys(&self) -> Result<Arc<[TokenKey]>> {
        self.ports.tokens.keys(self.store(), &*self.ports.keyring, crate::postroom::random).await
    }
}

/// The route to a mailbox with an open password.
pub(crate) fn route(mailbox: &Mailbox, password: Option<SecretString>) -> Route {
    let settings = &mailbox.settings;
    let route = Route::new(
        mailbox.id,
        mailbox.revision,
        protocol(settings),
        settings.endpoint().clone(),
        settings.tls(),
    )
    .with_authority(settings.authority().cloned())
    .with_ehlo_name(settings.outbox().and_then(|outbox| outbox.ehlo_name().cloned()));
    let route = if settings.danger_plaintext() { route.with_danger_plaintext() } else { route };
    match (settings.user(), password) {
        (Some(user), Some(password)) => route.with_credentials(Credentials::password(user, password)),
        _ => route,
    }
}
