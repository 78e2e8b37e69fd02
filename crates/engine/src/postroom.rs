//! The handle that a host holds, and its builder: the ports in one place. The verbs are in the files of their names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use postroom_core::id::Actor;
use postroom_core::resolve::WhenUnavailable;
use postroom_core::time::Timestamp;
use postroom_storage::keyring::{Keyring, NoKeys};
use postroom_storage::{Change, LEASE, Store};
use postroom_transport::oauth::http::HttpClient;
use postroom_transport::{IncomingTransport, OutgoingTransport};
use tokio::sync::Notify;

use crate::empty_lists::EmptyLists;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::handler::{
    AskAPerson, MessageHandler, NoObserver, NoRecipients, Observer, RecipientDirectory, RequesterDirectory,
};
use crate::links::KnownLinks;
use crate::pace::Pacing;
use crate::unlock::grant::Grants;
use crate::unlock::token::TokenKeys;

/// How a postroom behaves where the host may choose.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "settings that hosts fill by literal with `..Options::default()`"
)]
pub struct Options {
    /// What to do at submission when the chosen outbox can't be used. Default: refuse.
    pub when_unavailable: WhenUnavailable,
    /// How long a worker holds what it claimed without renewing; renewed each third of it. Default 30 s, at least 2 s.
    pub lease: Duration,
    /// How long an inbox whose server does not tell of news by itself (IDLE) rests before it is asked again, a tenth more or
    /// less. Default 60 s.
    pub poll: Duration,
    /// Within which time an inbox is surely read again, whatever its server tells: a connection that died silently hides mail no
    /// longer. Default 5 min.
    pub reconcile: Duration,
    /// How fast connections to inboxes are opened.
    pub pacing: Pacing,
    /// How long the worker sleeps at most before it looks at the queue again, for mail that another process submitted.
    /// Default 1 s.
    pub look: Duration,
    /// How many calls of the handler a mail gets before it becomes a dead letter. Default 10.
    pub handler_calls: u32,
    /// How many spent attempts a sent mail gets before it is dead. Its expiry, five days by default, usually comes first.
    /// Default 100.
    pub attempts: u32,
    /// How many connections all outboxes have together, and how many inboxes are read at once. Default 64 each.
    pub connections: usize,
    /// How long a stopping worker waits for replies after a final dot. Default 30 s.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            when_unavailable: WhenUnavailable::Refuse,
            lease: LEASE,
            poll: Duration::from_secs(60),
            reconcile: Duration::from_secs(5 * 60),
            pacing: Pacing::default(),
            look: Duration::from_secs(1),
            handler_calls: 10,
            attempts: 100,
            connections: 64,
            grace: Duration::from_secs(30),
        }
    }
}

/// The ports and options, shared by all clones of a handle.
pub(crate) struct Ports {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Arc<dyn Keyring>,
    pub(crate) outgoing: Option<Arc<dyn OutgoingTransport>>,
    pub(crate) incoming: Option<Arc<dyn IncomingTransport>>,
    pub(crate) handler: Option<Arc<dyn MessageHandler>>,
    pub(crate) recipients: Arc<dyn RecipientDirectory>,
    pub(crate) requesters: Arc<dyn RequesterDirectory>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) options: Options,
    pub(crate) tokens: TokenKeys,
    pub(crate) grants: Grants,
    pub(crate) known: KnownLinks,
    pub(crate) empty_lists: EmptyLists,
    /// Counts the ids that were made.
    sequence: AtomicU16,
    /// Rung when this process has queued mail or stored mail: a worker looks at once.
    pub(crate) bell: Notify,
    /// Rung when this process has queued mail, for connections that have just sent their last.
    pub(crate) mail: Notify,
    /// Rung when this process has changed a mailbox.
    pub(crate) changed: Notify,
}

/// A postroom: the registry, the queue and the ledger of one application. Clones share everything.
#[derive(Clone)]
pub struct Postroom {
    pub(crate) ports: Arc<Ports>,
}

impl fmt::Debug for Postroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postroom").field("options", &self.ports.options).finish_non_exhaustive()
    }
}

impl Postroom {
    /// A postroom over a store. Nothing is read, opened or started before a verb is called.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        Builder {
            ports: Ports {
                store,
                keyring: Arc::new(NoKeys::new()),
                outgoing: None,
                incoming: None,
                handler: None,
                recipients: Arc::new(NoRecipients::default()),
                requesters: Arc::new(AskAPerson::default()),
                observer: Arc::new(NoObserver::default()),
                options: Options::default(),
                tokens: TokenKeys::default(),
                grants: Grants::default(),
                known: KnownLinks::default(),
                empty_lists: EmptyLists::default(),
                sequence: AtomicU16::new(0),
                bell: Notify::new(),
                mail: Notify::new(),
                changed: Notify::new(),
            },
        }
    }

    /// The store, for what has no verb of its own: listings, timelines, health, audit.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.ports.store
    }

    /// The store's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.ports.store.now()
    }

    /// Tells this process's worker that something was put into the queue by another way than [`Postroom::submit`], as
    /// within a host's own transaction, after its commit: it looks at once, not after [`Options::look`]. One that is not
    /// running looks when it starts. Costs nothing, and can be said too often.
    pub fn wake(&self) {
        self.ports.mail.notify_waiters();
        self.ports.bell.notify_one();
    }

    /// A change by `actor`, now.
    pub(crate) fn change(&self, actor: &Actor) -> Change {
        Change::new(self.now(), actor.clone())
    }

    /// A new id. Ids of one process sort in the order in which they were made, also within a millisecond (RFC 9562
    /// section 6.2, method 1: a counter in the first 12 bits behind the time).
    pub(crate) fn fresh<T>(&self, now: Timestamp, id: fn(Timestamp, [u8; 10]) -> T) -> Result<T> {
        let mut bytes: [u8; 10] = random()?;
        let [high, low] = self.ports.sequence.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        (bytes[0], bytes[1]) = (high & 0x0f, low);
        Ok(id(now, bytes))
    }

    pub(crate) fn observe(&self, event: &Event) {
        tracing::debug!(target: "postroom", "{event}");
        self.ports.observer.observe(event);
    }
}

/// Randomness from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Randomness, "draw a random number").with_source(error))?;
    Ok(bytes)
}

/// Collects the ports of a [`Postroom`].
#[must_use]
pub struct Builder {
    ports: Ports,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.ports.options).finish_non_exhaustive()
    }
}

impl Builder {
    /// The keyring that seals passwords and the keys of thread tokens. Default: none, and whatever needs a secret says so.
    pub fn with_keyring(mut self, keyring: Arc<dyn Keyring>) -> Self {
        self.ports.keyring = keyring;
        self
    }

    /// The way to servers that take mail. Without one nothing is sent.
    pub fn with_outgoing(mut self, transport: Arc<dyn OutgoingTransport>) -> Self {
        self.ports.outgoing = Some(transport);
        self
    }

    /// The way to servers that keep mail. Without one nothing is fetched.
    pub fn with_incoming(mut self, transport: Arc<dyn IncomingTransport>) -> Self {
        self.ports.incoming = Some(transport);
        self
    }

    /// The way to providers' token endpoints. Without one no mailbox can sign in by OAuth2.
    pub fn with_http_client(mut self, http: Arc<dyn HttpClient>) -> Self {
        self.ports.grants = Grants::with_http(http);
        self
    }

    /// The handler of received mail. Without one received mail stays stored.
    pub fn with_handler(mut self, handler: Arc<dyn MessageHandler>) -> Self {
        self.ports.handler = Some(handler);
        self
    }

    /// Who is behind the names that steps write to.
    pub fn with_recipients(mut self, directory: Arc<dyn RecipientDirectory>) -> Self {
        self.ports.recipients = directory;
        self
    }

    /// Who may write to contracts that ask.
    pub fn with_requesters(mut self, directory: Arc<dyn RequesterDirectory>) -> Self {
        self.ports.requesters = directory;
        self
    }

    /// Who is told what happens.
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.ports.observer = observer;
        self
    }

    /// The options.
    pub fn with_options(mut self, options: Options) -> Self {
        self.ports.options = options;
        self
    }

    /// The postroom.
    #[must_use]
    pub fn build(self) -> Postroom {
        Postroom { ports: Arc::new(self.ports) }
    }
}
