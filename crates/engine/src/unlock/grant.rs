//! Access tokens of mailboxes that sign in by OAuth2. Whoever needs one, in whatever process: one asks the provider at a time for each
//! mailbox, and what was given stands in the vault, sealed, before it is used.
//!
//! A provider may give another refresh token with an access token, and void the former one. What it gave is lost where the process ends
//! between its answer and the commit; a person then consents anew.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postroom_core::failure::Failure;
use postroom_core::id::MailboxId;
use postroom_core::mailbox::{Grant, Mailbox, MailboxSettings, OAuth, OAuthSecret};
use postroom_core::secret::{ExposeSecret, SecretString};
use postroom_core::time::Timestamp;
use postroom_storage::Store;
use postroom_storage::keyring::{Binding, Keyring, Sealed};
use postroom_transport::oauth::http::HttpClient;
use postroom_transport::oauth::token::{self, TokenRequest, Tokens, exchange};
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind, Stage};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// For how long who asks has the word. A request takes 30 s at most, and its commit some more.
const ASKING: Duration = Duration::from_secs(60);

/// How often it is looked whether another process has got what it asks for.
const LOOK: Duration = Duration::from_millis(200);

/// How long before its end a token is not used any more; half its life where that is shorter.
const MARGIN: Duration = Duration::from_secs(60);

/// For how long a token is used whose provider does not say it.
const UNSAID: Duration = Duration::from_secs(5 * 60);

/// Of two tokens that are refused within this time the second one is a refusal of the sign-in; a single one may have been revoked.
const REFUSALS: Duration = Duration::from_secs(5 * 60);

/// How often, and with which pauses, it is tried to commit what a provider gave.
const COMMITS: (u32, Duration) = (6, Duration::from_millis(100));

/// Why a mailbox can't be unlocked.
#[derive(Debug, Clone)]
pub(crate) enum Locked {
    /// The store, or a secret.
    Inside(Error),
    /// The provider's token endpoint, or the way to it.
    Provider(TransportError),
}

impl Locked {
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Inside(error) => error.failure(),
            Self::Provider(error) => error.failure(),
        }
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside(error) => error.fmt(f),
            Self::Provider(error) => f.write_str(&crate::error::said(error)),
        }
    }
}

impl From<Error> for Locked {
    fn from(error: Error) -> Self {
        Self::Inside(error)
    }
}

impl From<postroom_storage::Error> for Locked {
    fn from(error: postroom_storage::Error) -> Self {
        Self::Inside(error.into())
    }
}

/// What tokens are for: a secret, and all that it was given for. What came from another secret, or for another server, is none of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Basis([u8; 32]);

impl Basis {
    /// None where the settings have no OAuth2.
    pub(crate) fn of(settings: &MailboxSettings, secret: &SecretString) -> Option<Self> {
        settings.oauth()?;
        let bound = settings.bound();
        let mut digest = Sha256::new();
        for word in bound.iter().map(String::as_str).chain([secret.expose_secret()]) {
            digest.update(u64::try_from(word.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(word.as_bytes());
        }
        Some(Self(digest.finalize().into()))
    }

    fn binding(self) -> Binding {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Binding::new(format!("oauth/{hex}"), "grant")
    }
}

/// What is kept, sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The refresh token of now, where the provider gave another one than the secret has.
    refresh: Option<String>,
    access: Option<String>,
    /// Until when the access token is used.
    until: Timestamp,
    /// Until when somebody has the word to ask.
    asking_until: Timestamp,
}

/// An access token in use.
struct Current {
    token: SecretString,
    until: Timestamp,
}

/// What this process knows of a basis. Whoever has it locked may ask.
#[derive(Default)]
struct Slot {
    current: Option<Current>,
    /// The token that its server refused last, and when.
    refused: Option<(SecretString, Instant)>,
    /// How the last request failed, and when: those who waited for it do not ask again.
    failed: Option<(Instant, Locked)>,
    /// A request that was begun. Where its caller was dropped, whoever comes next goes on with it: the provider may have answered.
    asking: Option<Pin<Box<dyn Future<Output = Asked> + Send>>>,
    unsaved: Option<Unsaved>,
}

/// What a provider gave and the store did not take yet, in the place of what it goes, and the refresh token that was spent for it.
struct Unsaved {
    from: Sealed,
    former: Option<String>,
    kept: Kept,
}

/// How a request ended.
struct Asked {
    current: std::result::Result<Current, Locked>,
    unsaved: Option<Unsaved>,
}

#[derive(Default)]
struct Slots {
    slots: HashMap<Basis, Arc<tokio::sync::Mutex<Slot>>>,
    /// What each mailbox used last.
    used: HashMap<MailboxId, Basis>,
}

/// The access tokens of all mailboxes.
#[derive(Default)]
pub(crate) struct Grants {
    http: Option<Arc<dyn HttpClient>>,
    slots: Mutex<Slots>,
}

/// What asking for a mailbox's tokens needs.
#[derive(Clone)]
pub(crate) struct Asker {
    store: Arc<dyn Store>,
    keyring: Arc<dyn Keyring>,
    mailbox: MailboxId,
    basis: Basis,
    oauth: OAuth,
    secret: SecretString,
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn settings(text: &str) -> Locked {
    Locked::Provider(TransportError::new(TransportKind::Settings, Stage::Token).with_reply(text))
}

impl Grants {
    pub(crate) fn with_http(http: Arc<dyn HttpClient>) -> Self {
        Self { http: Some(http), slots: Mutex::default() }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, mailbox: MailboxId, basis: Basis) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots();
        slots.used.insert(mailbox, basis);
        Arc::clone(slots.slots.entry(basis).or_default())
    }

    /// An access token for a mailbox.
    ///
    /// # Cancel safety
    /// A request that was begun is gone on with by the next call.
    pub(crate) async fn access(&self, asker: Asker) -> std::result::Result<SecretString, Locked> {
        let Some(http) = &self.http else {
            return Err(settings(
                "this postroom was built without an HTTP client for OAuth2; give it one by `with_http_client`",
            ));
        };
        let came = Instant::now();
        let slot = self.slot(asker.mailbox, asker.basis);
        let mut slot = slot.lock().await;
        loop {
            if let Some(current) = &slot.current
                && asker.store.now() < current.until
            {
                return Ok(current.token.clone());
            }
            if let Some((at, error)) = &slot.failed
                && *at >= came
            {
                return Err(error.clone());
            }
            if slot.asking.is_none() {
                let refused = slot.refused.as_ref().map(|(refused, _)| refused.clone());
                slot.asking =
                    Some(Box::pin(asker.clone().ask(Arc::clone(http), refused, slot.unsaved.take())));
            }
            let Some(asking) = &mut slot.asking else { continue };
            let Asked { current, unsaved } = asking.await;
            (slot.asking, slot.unsaved) = (None, unsaved);
            match current {
                Ok(current) => slot.current = Some(current),
                Err(error) => slot.failed = Some((Instant::now(), error)),
            }
        }
    }

    /// A server refused an access token: it is used no more. Says whether another one is worth a try.
    pub(crate) async fn refuse(&self, mailbox: MailboxId, token: &SecretString) -> bool {
        let slot = {
            let slots = self.slots();
            slots.used.get(&mailbox).and_then(|basis| slots.slots.get(basis)).cloned()
        };
        let Some(slot) = slot else { return true };
        let mut slot = slot.lock().await;
        if slot.current.as_ref().is_some_and(|current| !same(&current.token, token)) {
            return true;
        }
        let is_first =
            slot.refused.as_ref().is_none_or(|(former, at)| same(former, token) || at.elapsed() >= REFUSALS);
        slot.current = None;
        slot.refused = Some((token.clone(), Instant::now()));
        is_first
    }

    /// Forgets what was given.
    pub(crate) async fn forget(&self, store: &dyn Store, basis: Basis) -> Result<()> {
        self.slots().slots.remove(&basis);
        for (binding, sealed) in store.values(&basis.binding().owner).await? {
            store.replace(&binding, &sealed, None).await?;
        }
        Ok(())
    }
}

impl Asker {
    /// None where the settings have no OAuth2.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        keyring: Arc<dyn Keyring>,
        mailbox: &Mailbox,
        secret: &SecretString,
    ) -> Option<Self> {
        let (mailbox, settings) = (mailbox.id, &mailbox.settings);
        let basis = Basis::of(settings, secret)?;
        Some(Self {
            store,
            keyring,
            mailbox,
            basis,
            oauth: settings.oauth()?.clone(),
            secret: secret.clone(),
        })
    }

    async fn ask(
        self,
        http: Arc<dyn HttpClient>,
        refused: Option<SecretString>,
        mut unsaved: Option<Unsaved>,
    ) -> Asked {
        let current = self.asked(&*http, refused, &mut unsaved).await;
        Asked { current, unsaved }
    }

    async fn asked(
        &self,
        http: &dyn HttpClient,
        refused: Option<SecretString>,
        unsaved: &mut Option<Unsaved>,
    ) -> std::result::Result<Current, Locked> {
        if let Some(given) = unsaved.take() {
            self.commit(unsaved, given).await?;
        }
        let (mine, former) = loop {
            let (sealed, kept) = self.kept().await?;
            let now = self.store.now();
            if let Some(kept) = &kept {
                if let Some(access) = &kept.access
                    && now < kept.until
                    && refused.as_ref().is_none_or(|refused| refused.expose_secret() != access)
                {
                    return Ok(Current { token: SecretString::from(access.clone()), until: kept.until });
                }
                if now < kept.asking_until {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            }
            let refresh = kept.and_then(|kept| kept.refresh);
            let asking =
                Kept { refresh: refresh.clone(), access: None, until: now, asking_until: now + ASKING };
            let asking = self.seal(&asking)?;
            let has_the_word = match sealed {
                Some(sealed) => {
                    self.store.replace(&self.basis.binding(), &sealed, Some(asking.clone())).await?
                }
                None => self.store.put_if_absent(&self.basis.binding(), asking.clone()).await? == asking,
            };
            // Who was dropped here and is gone on with later asks for the word anew.
            if has_the_word && self.store.now() < now + ASKING / 2 {
                break (asking, refresh);
            }
        };
        match self.exchanged(http, former.as_deref()).await {
            Ok(Tokens { access, expires_in, refresh }) => {
                let life = expires_in.unwrap_or(UNSAID);
                let now = self.store.now();
                let until = now + life.saturating_sub(MARGIN).max(life / 2);
                let refresh =
                    refresh.map(|token| token.expose_secret().to_owned()).or_else(|| former.clone());
                let given = Some(access.expose_secret().to_owned());
                let kept = Kept { refresh, access: given, until, asking_until: now };
                self.commit(unsaved, Unsaved { from: mine, former, kept }).await?;
                Ok(Current { token: access, until })
            }
            Err(error) => {
                let now = self.store.now();
                let kept = Kept { refresh: former, access: None, until: now, asking_until: now };
                // Where this fails the word is another's when its time is over.
                let free = self.seal(&kept)?;
                let _ = self.store.replace(&self.basis.binding(), &mine, Some(free)).await;
                Err(error)
            }
        }
    }

    fn seal(&self, kept: &Kept) -> Result<Sealed> {
        let damaged = |_| Error::new(ErrorKind::Sealing, "seal an access token");
        let plain = Zeroizing::new(serde_json::to_vec(kept).map_err(damaged)?);
        Ok(self.keyring.seal(&self.basis.binding(), &plain)?)
    }

    /// What the vault has. What can't be read is as good as nothing.
    async fn kept(&self) -> Result<(Option<Sealed>, Option<Kept>)> {
        let binding = self.basis.binding();
        let mut values = self.store.values(&binding.owner).await?.into_iter();
        let Some((_, sealed)) = values.find(|(other, _)| *other == binding) else { return Ok((None, None)) };
        let plain = self.keyring.open(&binding, &sealed)?;
        Ok((Some(sealed), serde_json::from_slice(&plain).ok()))
    }

    /// Commits what a provider gave before it is used; what the store does not take is committed by whoever needs a token next.
    async fn commit(
        &self,
        unsaved: &mut Option<Unsaved>,
        mut given: Unsaved,
    ) -> std::result::Result<(), Locked> {
        let (tries, mut pause) = COMMITS;
        let to = self.seal(&given.kept)?;
        let mut tried = 0;
        loop {
            tried += 1;
            match self.swap(&mut given, &to).await {
                Ok(true) => return Ok(()),
                // Another process asked meanwhile, and got something newer.
                Ok(false) => {
                    let outdated = TransportError::new(TransportKind::SignInUnavailable, Stage::Token);
                    let why = "another process got a token while this one asked";
                    return Err(Locked::Provider(outdated.with_reply(why)));
                }
                Err(error) if tried < tries && matches!(error.failure(), Failure::RetryAfter(_)) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    *unsaved = Some(given);
                    return Err(error.into());
                }
            }
        }
    }

    /// Puts what was given into the place of what it goes; also of what another process put there that has spent, or spends, the same
    /// refresh token: the provider has taken that back by now.
    async fn swap(&self, given: &mut Unsaved, to: &Sealed) -> Result<bool> {
        loop {
            if self.store.replace(&self.basis.binding(), &given.from, Some(to.clone())).await? {
                return Ok(true);
            }
            match self.kept().await? {
                // The answer of a commit was lost.
                (Some(sealed), _) if sealed == *to => return Ok(true),
                (Some(sealed), Some(kept)) if kept.access.is_none() && kept.refresh == given.former => {
                    given.from = sealed;
                }
                _ => return Ok(false),
            }
        }
    }

    async fn exchanged(
        &self,
        http: &dyn HttpClient,
        refresh: Option<&str>,
    ) -> std::result::Result<Tokens, Locked> {
        let secret = OAuthSecret::parse(&self.secret, self.oauth.grant())
            .map_err(|_| settings("the stored secret is none of OAuth2; set it again"))?;
        let grant = match self.oauth.grant() {
            Grant::ClientCredentials => token::Grant::ClientCredentials,
            Grant::RefreshToken => {
                let given = refresh.map(SecretString::from).or(secret.refresh_token);
                token::Grant::RefreshToken(given.ok_or_else(|| settings("there is no refresh token"))?)
            }
        };
        let request = TokenRequest {
            endpoint: self.oauth.token_endpoint().to_owned(),
            client: self.oauth.client().to_owned(),
            client_secret: secret.client_secret,
            scope: self.oauth.scope().map(ToOwned::to_owned),
            grant,
        };
        exchange(http, &request).await.map_err(Locked::Provider)
    }
}
