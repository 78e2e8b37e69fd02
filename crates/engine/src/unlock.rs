//! Unlock: the one place where a stored secret is opened, to make the route to a mailbox for the length of one call.

pub(crate) mod grant;
pub(crate) mod token;

use std::sync::Arc;

use postroom_core::credentials::Credentials;
use postroom_core::id::MailboxId;
use postroom_core::mailbox::{Mailbox, MailboxSettings, Settings};
use postroom_core::provider::Provider;
use postroom_core::secret::SecretString;
use postroom_core::thread::TokenKey;
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind, Protocol, Route};
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result};
use crate::postroom::Postroom;
use crate::register::password_of;
use grant::{Asker, Basis, Locked};

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
    /// The route to a registered mailbox, with its secret opened; none when the mailbox was changed since it was read, for the secret
    /// may be that of another server by now.
    ///
    /// # Errors
    /// [`ErrorKind::Sealing`] when the secret is missing or can't be opened; those of its provider where it signs in by an access token.
    pub(crate) async fn route(&self, mailbox: &Mailbox) -> std::result::Result<Option<Route>, Locked> {
        if mailbox.settings.user().is_none() {
            return Ok(Some(route(mailbox, None)));
        }
        let secret = self.open_secret(mailbox.id).await;
        let now = self.store().mailbox(mailbox.id).await?;
        if now.is_none_or(|now| now.revision != mailbox.revision) {
            return Ok(None);
        }
        self.route_by(mailbox, secret?).await.map(Some)
    }

    /// The route to a mailbox that signs in by this secret, saved or not.
    pub(crate) async fn route_by(
        &self,
        mailbox: &Mailbox,
        secret: SecretString,
    ) -> std::result::Result<Route, Locked> {
        let user = mailbox.settings.user().unwrap_or_default();
        let (store, keyring) = (Arc::clone(&self.ports.store), Arc::clone(&self.ports.keyring));
        let credentials = match Asker::new(store, keyring, mailbox, &secret) {
            None => Credentials::password(user, secret),
            Some(asker) => Credentials::bearer(user, self.ports.grants.access(asker).await?),
        };
        Ok(route(mailbox, Some(credentials)))
    }

    /// Whether an error is a server's refusal of an access token in whose place another one is worth a try: the refused one may have been
    /// revoked, or have ended, as it does in the middle of a conversation. It is used no more.
    pub(crate) async fn asks_anew(&self, route: &Route, error: &TransportError) -> bool {
        let is_refused = matches!(error.kind(), TransportKind::SignInRefused | TransportKind::Reauthorise);
        match &route.credentials {
            Some(Credentials::Bearer { token, .. }) if is_refused => {
                self.ports.grants.refuse(route.mailbox, token).await
            }
            _ => false,
        }
    }

    /// For what access tokens of a mailbox are asked, if it signs in by them.
    pub(crate) async fn basis(&self, mailbox: &Mailbox) -> Option<Basis> {
        // Only then its secret is opened.
        mailbox.settings.oauth()?;
        Basis::of(&mailbox.settings, &self.open_secret(mailbox.id).await.ok()?)
    }

    async fn open_secret(&self, mailbox: MailboxId) -> Result<SecretString> {
        let missing = || Error::new(ErrorKind::Sealing, "open the password of the mailbox");
        let sealed = self.store().secret(mailbox).await?.ok_or_else(missing)?;
        let mut plain = self.ports.keyring.open(&password_of(mailbox), &sealed)?;
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

/// The route to a mailbox with its open credentials.
fn route(mailbox: &Mailbox, credentials: Option<Credentials>) -> Route {
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
    match credentials {
        Some(credentials) => route.with_credentials(credentials),
        None => route,
    }
}

#[cfg(test)]
mod tests {
    use postroom_core::id::Actor;
    use postroom_core::mailbox::{MailboxDraft, OutboxDraft, SettingsDraft, Status};
    use postroom_core::secret::SecretChange;
    use postroom_storage::keyring::{Binding, Keyring, Sealed};
    use postroom_storage::memory::MemoryStore;
    use zeroize::Zeroizing;

    use super::*;

    struct Open;

    impl Keyring for Open {
        fn seal(&self, _: &Binding, plain: &[u8]) -> postroom_storage::Result<Sealed> {
            Ok(Sealed::from_bytes(plain.to_vec()))
        }

        fn open(&self, _: &Binding, sealed: &Sealed) -> postroom_storage::Result<Zeroizing<Vec<u8>>> {
            Ok(Zeroizing::new(sealed.as_bytes().to_vec()))
        }
    }

    fn draft(server: &str, auth: &str) -> MailboxDraft {
        let (tls, user) = if auth == "none" { ("none", None) } else { ("starttls", Some("u".to_owned())) };
        let outbox = OutboxDraft {
            tls: tls.to_owned(),
            auth: auth.to_owned(),
            user,
            senders: vec!["desk@acme.example".to_owned()],
            ..OutboxDraft::default()
        };
        MailboxDraft {
            description: "Acme".to_owned(),
            server: server.to_owned(),
            port: None,
            authority: None,
            max_message: None,
            danger_plaintext: false,
            settings: SettingsDraft::Outbox(outbox),
        }
    }

    /// Would miss an edit between the second reading and the connection: by then old settings and old secret are together.
    #[tokio::test]
    async fn a_secret_goes_to_no_server_that_it_was_not_given_for() {
        let store = Arc::new(MemoryStore::new());
        let postroom = Postroom::builder(store).with_keyring(Arc::new(Open)).build();
        let actor = Actor::parse("test").expect("a name");
        let set = |text: &str| SecretChange::Set(SecretString::from(text));
        let old = draft("smtp.old.example", "password");
        let old = postroom.register(&actor, &old, set("old"), Status::Active).await.expect("registered");
        assert!(postroom.route(&old).await.expect("opened").is_some());
        // Server and password change after the mailbox was read.
        let new = draft("smtp.new.example", "password");
        let new = postroom.edit(&actor, old.id, old.revision, &new, set("new")).await.expect("edited");
        assert!(postroom.route(&old).await.expect("no failure").is_none());
        assert!(postroom.route(&new).await.expect("opened").is_some());
        // A missing secret is no failure of settings that need none by now.
        let plain = draft("smtp.new.example", "none");
        postroom.edit(&actor, new.id, new.revision, &plain, SecretChange::Clear).await.expect("edited");
        assert!(postroom.route(&new).await.expect("no failure").is_none());
    }
}
