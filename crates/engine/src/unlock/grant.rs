//! Access tokens of mailboxes that sign in by OAuth2. Whoever needs one, in whatever process: one asks the provider at a time for each
//! mailbox, and what was given stands in the vault, sealed, before it is used.
//!
//! A provider may give another refresh token with an access token, and void the former one. What it gave is lost where the process ends
//! between its answer and the commit; a person then consents anew.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_core::failure::Failure;
use postroom_core::id::{MailboxId, Revision};
use postroom_core::mailbox::{Grant, OAuth, OAuthSecret};
use postroom_core::secret::{ExposeSecret, SecretString};
use postroom_core::time::Timestamp;
use postroom_storage::Store;
use postroom_storage::keyring::{Binding, Keyring, Sealed};
use postroom_transport::oauth::http::HttpClient;
use postroom_transport::oauth::token::{self, TokenRequest, Tokens, exchange};
use postroom_transport::{Error as TransportError, ErrorKind as TransportKind, Stage};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// For how long who asks has the word. A request takes 30 s at most.
const ASKING: Duration = Duration::from_secs(45);

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

/// Stands for the form that was tried out last with a secret of its own.
pub(crate) const DRAFT: MailboxId = MailboxId::new(0);

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

/// What is kept of a mailbox, sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The mailbox's secret that everything here came from: what came from a former one does not count.
    given: String,
    /// The refresh token of now, where the provider gave another one than the secret has.
    refresh: Option<String>,
    access: Option<String>,
    /// Until when the access token is used.
    until: Timestamp,
    /// Until when somebody has the word to ask.
    asking_until: Timestamp,
}

/// An access token in use.
#[derive(Clone)]
struct Current {
    revision: Revision,
    token: SecretString,
    until: Timestamp,
}

/// What this process knows of a mailbox. Whoever has it locked may ask.
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

/// What a provider gave and the store did not take yet, and in the place of what it goes.
type Unsaved = (Sealed, Kept);

/// How a request ended.
struct Asked {
    current: std::result::Result<Current, Locked>,
    unsaved: Option<Unsaved>,
}

/// The access tokens of all mailboxes.
#[derive(Default)]
pub(crate) struct Grants {
    http: Option<Arc<dyn HttpClient>>,
    slots: Mutex<HashMap<MailboxId, Arc<tokio::sync::Mutex<Slot>>>>,
}

/// A mailbox, and what asking for its tokens needs.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Arc<dyn Keyring>,
    pub(crate) mailbox: MailboxId,
    pub(crate) revision: Revision,
    pub(crate) oauth: OAuth,
    pub(crate) secret: SecretString,
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn binding(mailbox: MailboxId) -> Binding {
    Binding::new(format!("oauth/{mailbox}"), "grant")
}

fn settings(text: &str) -> Locked {
    Locked::Provider(TransportError::new(TransportKind::Settings, Stage::Token).with_reply(text))
}

impl Grants {
    pub(crate) fn with_http(http: Arc<dyn HttpClient>) -> Self {
        Self { http: Some(http), slots: Mutex::default() }
    }

    fn slot(&self, mailbox: MailboxId) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(mailbox).or_default())
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
        let slot = self.slot(asker.mailbox);
        let mut slot = slot.lock().await;
        loop {
            if let Some(current) = &slot.current
                && current.revision == asker.revision
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
        let slot = self.slot(mailbox);
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

    /// Forgets what was given for a mailbox.
    pub(crate) async fn forget(&self, store: &dyn Store, mailbox: MailboxId) -> Result<()> {
        let slot = self.slot(mailbox);
        let mut slot = slot.lock().await;
        *slot = Slot::default();
        for (binding, sealed) in store.values(&binding(mailbox).owner).await? {
            store.replace(&binding, &sealed, None).await?;
        }
        Ok(())
    }
}

impl Asker {
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
        if let Some((from, kept)) = unsaved.take() {
            self.commit(unsaved, from, kept).await?;
        }
        let (mine, former) = loop {
            let (sealed, kept) = self.kept().await?;
            let now = self.store.now();
            if let Some(kept) = &kept {
                if let Some(access) = &kept.access
                    && now < kept.until
                    && refused.as_ref().is_none_or(|refused| refused.expose_secret() != access)
                {
                    return Ok(self.uses(access, kept.until));
                }
                if now < kept.asking_until {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            }
            let refresh = kept.and_then(|kept| kept.refresh);
            let asking = self.keeps(refresh.clone(), None, now, now + ASKING);
            let asking = self.seal(&asking)?;
            let has_the_word = match sealed {
                Some(sealed) => self.store.replace(&self.binding(), &sealed, Some(asking.clone())).await?,
                None => self.store.put_if_absent(&self.binding(), asking.clone()).await? == asking,
            };
            if has_the_word {
                break (asking, refresh);
            }
        };
        match self.exchanged(http, former.as_deref()).await {
            Ok(Tokens { access, expires_in, refresh }) => {
                let life = expires_in.unwrap_or(UNSAID);
                let until = self.store.now() + life.saturating_sub(MARGIN).max(life / 2);
                let refresh = refresh.map(|token| token.expose_secret().to_owned()).or(former);
                let access = access.expose_secret().to_owned();
                let kept = self.keeps(refresh, Some(access.clone()), until, Timestamp::from_millis(0));
                self.commit(unsaved, mine, kept).await?;
                Ok(self.uses(&access, until))
            }
            Err(error) => {
                let (now, never) = (self.store.now(), Timestamp::from_millis(0));
                // Where this fails the word is another's when its time is over.
                let free = self.seal(&self.keeps(former, None, now, never))?;
                let _ = self.store.replace(&self.binding(), &mine, Some(free)).await;
                Err(error)
            }
        }
    }

    fn binding(&self) -> Binding {
        binding(self.mailbox)
    }

    fn uses(&self, access: &str, until: Timestamp) -> Current {
        Current { revision: self.revision, token: SecretString::from(access), until }
    }

    fn keeps(
        &self,
        refresh: Option<String>,
        access: Option<String>,
        until: Timestamp,
        asking_until: Timestamp,
    ) -> Kept {
        Kept { given: self.secret.expose_secret().to_owned(), refresh, access, until, asking_until }
    }

    fn seal(&self, kept: &Kept) -> Result<Sealed> {
        let damaged = |_| Error::new(ErrorKind::Sealing, "seal an access token");
        let plain = Zeroizing::new(serde_json::to_vec(kept).map_err(damaged)?);
        Ok(self.keyring.seal(&self.binding(), &plain)?)
    }

    /// What the vault has, and what of it comes from the mailbox's secret of now. A mailbox that has nothing yet goes on with what its form
    /// was given when it was tried out.
    async fn kept(&self) -> Result<(Option<Sealed>, Option<Kept>)> {
        let (sealed, kept) = self.kept_of(self.mailbox).await?;
        match kept {
            None if self.mailbox != DRAFT => Ok((sealed, self.kept_of(DRAFT).await?.1)),
            kept => Ok((sealed, kept)),
        }
    }

    async fn kept_of(&self, mailbox: MailboxId) -> Result<(Option<Sealed>, Option<Kept>)> {
        let binding = binding(mailbox);
        let values = self.store.values(&binding.owner).await?;
        let Some((_, sealed)) = values.into_iter().find(|(other, _)| *other == binding) else {
            return Ok((None, None));
        };
        let plain = self.keyring.open(&binding, &sealed)?;
        let kept = serde_json::from_slice::<Kept>(&plain).ok();
        let kept = kept.filter(|kept| kept.given == self.secret.expose_secret());
        Ok((Some(sealed), kept))
    }

    /// Commits what a provider gave before it is used; what the store does not take is committed by whoever needs a token next.
    async fn commit(
        &self,
        unsaved: &mut Option<Unsaved>,
        from: Sealed,
        kept: Kept,
    ) -> std::result::Result<(), Locked> {
        let (tries, mut pause) = COMMITS;
        let to = self.seal(&kept)?;
        let mut tried = 0;
        loop {
            tried += 1;
            match self.store.replace(&self.binding(), &from, Some(to.clone())).await {
                Ok(true) => return Ok(()),
                // The outcome of a commit that failed may have been this one.
                Ok(false) if self.kept().await?.0.as_ref() == Some(&to) => return Ok(()),
                // A person has set another secret, or this process was paused for longer than it had the word.
                Ok(false) => {
                    let outdated = TransportError::new(TransportKind::SignInUnavailable, Stage::Token);
                    let why = "another secret was set, or another process asked, while a token was asked for";
                    return Err(Locked::Provider(outdated.with_reply(why)));
                }
                Err(error) if tried < tries && matches!(error.failure(), Failure::RetryAfter(_)) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    *unsaved = Some((from, kept));
                    return Err(error.into());
                }
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
