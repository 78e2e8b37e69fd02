//! Mailboxes that sign in by OAuth2, over the real adapters: one asks the provider at a time for each of them, in all processes, what it
//! gave is committed before it is used, and a token that ends costs no attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use postroom::core::contract::Contract;
use postroom::core::id::MailboxId;
use postroom::core::mailbox::{
    InboxDraft, Mailbox, MailboxDraft, OAuthDraft, OutboxDraft, SettingsDraft, Status,
};
use postroom::core::secret::{SecretChange, SecretString};
use postroom::engine::Work;
use postroom::storage::{Health, HealthBook, LedgerDesk, LedgerQuery, ManualClock, Store};
use postroom::transport::OutgoingTransport;
use postroom::transport::by_protocol::ByProtocol;
use postroom::transport::memory::MemoryOutgoing;
use postroom::transport::oauth::ReqwestClient;
use postroom::transport::smtp::SmtpTransport;
use postroom::{Answer, Delivery, MessageHandler, Postroom};
use postroom_testkit::{MailServer, TokenEndpoint};

use crate::house::{PATIENCE, actor, contract, keys, mail, options, show, sqlite, submit, work};
use crate::wired::{Wire, Wired};

const LOGIN: &str = "desk@acme.example";

/// A handler that has done everything.
struct Does;

#[async_trait]
impl MessageHandler for Does {
    async fn handle(&self, _: Delivery) -> Answer {
        Answer::Done
    }
}

struct Town {
    server: MailServer,
    provider: TokenEndpoint,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

impl Town {
    async fn new(logins: &[&str]) -> Self {
        let builder = MailServer::builder().require_sign_in().danger_plaintext_auth();
        let builder = logins.iter().fold(builder, |builder, login| builder.account(login, "secret"));
        let server = builder.start().await.unwrap();
        let provider = TokenEndpoint::start(&server).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (store, clock) = sqlite(folder.path(), Duration::ZERO).await;
        Self { server, provider, store, clock, _folder: folder }
    }

    fn postroom(&self) -> Postroom {
        self.postroom_over(self.store.clone(), Arc::new(SmtpTransport::new()))
    }

    /// As another process would have it: over the same store, and with nothing in memory.
    fn postroom_over(&self, store: Arc<dyn Store>, outgoing: Arc<dyn OutgoingTransport>) -> Postroom {
        Postroom::builder(store)
            .with_keyring(keys())
            .with_outgoing(outgoing)
            .with_incoming(Arc::new(ByProtocol::new()))
            .with_http_client(Arc::new(ReqwestClient::new()))
            .with_handler(Arc::new(Does))
            .with_options(options())
            .build()
    }

    fn oauth(&self) -> OAuthDraft {
        OAuthDraft { token_endpoint: self.provider.url(), client: "app".to_owned(), ..OAuthDraft::default() }
    }

    fn outbox_draft(&self, login: &str) -> MailboxDraft {
        let form = OutboxDraft {
            tls: "none".to_owned(),
            auth: "oauth2".to_owned(),
            user: Some(login.to_owned()),
            oauth: Some(self.oauth()),
            senders: vec![login.to_owned()],
            max_connections: Some(4),
            ..OutboxDraft::default()
        };
        MailboxDraft {
            port: Some(self.server.smtp_port().into()),
            danger_plaintext: true,
            ..MailboxDraft::new(login, "127.0.0.1", form)
        }
    }

    /// An outbox, with a contract of the same name that is linked to it.
    async fn outbox(&self, postroom: &Postroom, login: &str, secret: &str) -> Mailbox {
        let outbox = self.register(postroom, &self.outbox_draft(login), secret).await;
        let linked = Contract::new(contract(login)).with_outbox(outbox.id, None);
        postroom.save_contract(&actor(), &linked).await.unwrap();
        outbox
    }

    async fn inbox(&self, postroom: &Postroom, secret: &str) -> Mailbox {
        let form = InboxDraft {
            provider: "imap".to_owned(),
            user: LOGIN.to_owned(),
            oauth: Some(self.oauth()),
            baseline: Some("all".to_owned()),
            ..InboxDraft::default()
        };
        let draft = MailboxDraft {
            port: Some(self.server.imap_port().into()),
            danger_plaintext: true,
            ..MailboxDraft::new("Desk", "127.0.0.1", SettingsDraft::Inbox(form))
        };
        self.register(postroom, &draft, secret).await
    }

    async fn register(&self, postroom: &Postroom, draft: &MailboxDraft, secret: &str) -> Mailbox {
        let secret = SecretChange::Set(SecretString::from(secret));
        postroom.register(&actor(), draft, secret, Status::Active).await.unwrap()
    }

    async fn health(&self, mailbox: &Mailbox) -> Health {
        let book: &dyn HealthBook = &*self.store;
        book.health(mailbox.id).await.unwrap()
    }

    async fn reaches(&self, accepted: usize) {
        let reached = async {
            while self.server.accepted_count() < accepted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("every mail arrives");
    }
}

/// Seen to fail without the lock of a mailbox and its word in the store, each of which would do.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_boxes_at_once_ask_once_each() {
    let logins: Vec<String> = (0..50).map(|number| format!("box{number}@acme.example")).collect();
    let town = Town::new(&logins.iter().map(String::as_str).collect::<Vec<_>>()).await;
    town.provider.take(Duration::from_millis(300));
    let postroom = town.postroom();
    for login in &logins {
        town.outbox(&postroom, login, &town.provider.grant(login)).await;
        for _ in 0..4 {
            submit(&postroom, login).await;
        }
    }
    work(&postroom).await;
    assert_eq!(town.server.accepted_count(), 200);
    assert_eq!((town.provider.requests(), town.provider.most_at_once()), (50, 1));
}

/// Seen to fail when a process asks without having the word in the store: the second one gives a refresh token that is good no more.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_ask_once_and_both_use_what_one_was_given() {
    let town = Town::new(&[LOGIN]).await;
    town.provider.rotate();
    town.provider.take(Duration::from_millis(500));
    let [one, other] = [town.postroom(), town.postroom()];
    let outbox = town.outbox(&one, LOGIN, &town.provider.grant(LOGIN)).await;
    let (a, b) = tokio::join!(one.probe(outbox.id), other.probe(outbox.id));
    assert!(a.unwrap().passed() && b.unwrap().passed());
    assert_eq!(town.provider.requests(), 1);
}

/// Seen to fail when what was given is committed after the conversation, or not at all. Would miss a process that ends between the
/// provider's answer and the commit: nobody can know then what it gave, and a person consents anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_refresh_token_is_committed_before_its_access_token_is_used() {
    let town = Town::new(&[LOGIN]).await;
    town.provider.rotate();
    town.provider.give_for(2);
    // Its transport asks no server for anything: it ends before it uses the token.
    let first = town.postroom_over(town.store.clone(), Arc::new(MemoryOutgoing::new()));
    let outbox = town.outbox(&first, LOGIN, &town.provider.grant(LOGIN)).await;
    first.probe(outbox.id).await.unwrap();
    assert_eq!(town.provider.requests(), 1);
    drop(first);
    // The access token is over, and the refresh token of the form is good no more.
    town.clock.advance(Duration::from_secs(60));
    let second = town.postroom();
    submit(&second, LOGIN).await;
    work(&second).await;
    assert_eq!((town.server.accepted_count(), town.provider.requests()), (1, 2));
    assert!(!town.health(&outbox).await.suspended);
}

/// Seen to fail when the token is used though the store did not take it, and when what was given is forgotten with the failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_store_does_not_take_is_not_used_and_not_lost() {
    let town = Town::new(&[LOGIN]).await;
    town.provider.rotate();
    let away = Arc::new(AtomicBool::new(true));
    let rule = Arc::clone(&away);
    let store = Arc::new(Wired::ruled(town.store.clone(), move |call| {
        if call == "Vault::replace" && rule.load(Ordering::SeqCst) { Wire::Cut } else { Wire::Whole }
    }));
    let postroom = town.postroom_over(store.clone(), Arc::new(SmtpTransport::new()));
    let outbox = town.outbox(&postroom, LOGIN, &town.provider.grant(LOGIN)).await;
    postroom.probe(outbox.id).await.expect_err("the store is away");
    assert!(store.calls("Vault::replace") > 1, "it is tried more than once");
    assert!(town.server.sessions().is_empty(), "the server was not asked");
    // Another process has the word by now, and spends a refresh token that is good no more.
    town.clock.advance(Duration::from_secs(120));
    let other = town.postroom();
    assert!(!other.probe(outbox.id).await.unwrap().passed());
    away.store(false, Ordering::SeqCst);
    assert!(postroom.probe(outbox.id).await.unwrap().passed());
    assert!(other.probe(outbox.id).await.unwrap().passed());
    assert_eq!(town.provider.requests(), 2, "it had been given");
}

/// Seen to fail when what was given for one secret is used for another: the second server gets the token of the first.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_for_one_secret_is_used_for_no_other() {
    let town = Town::new(&[LOGIN]).await;
    let postroom = town.postroom();
    let draft = town.outbox_draft(LOGIN);
    let probe = async |draft: &MailboxDraft, secret: &str, stored: Option<MailboxId>| {
        let secret = SecretChange::Set(SecretString::from(secret));
        postroom.probe_draft(draft, secret, stored).await.unwrap().passed()
    };
    let good = town.provider.grant(LOGIN);
    assert!(probe(&draft, &good, None).await);
    assert!(!probe(&draft, "another", None).await, "it was given for the good one");
    // The same secret at another server is another matter, too: its own token is asked for.
    let elsewhere = MailboxDraft { server: "localhost".to_owned(), ..draft.clone() };
    assert!(probe(&elsewhere, &good, None).await);
    assert_eq!(town.provider.requests(), 3);
    // What was tried out is what is then saved: nothing is asked for again.
    let outbox = town.outbox(&postroom, LOGIN, &good).await;
    assert!(postroom.probe(outbox.id).await.unwrap().passed());
    assert!(!probe(&draft, "another", Some(outbox.id)).await);
    assert!(postroom.probe(outbox.id).await.unwrap().passed());
    assert_eq!(town.provider.requests(), 4);
}

/// Seen to fail when nothing is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_mailbox_or_its_secret_goes_what_was_given_for_it() {
    let town = Town::new(&[LOGIN]).await;
    let store = Arc::new(Wired::ruled(town.store.clone(), |_| Wire::Whole));
    let postroom = town.postroom_over(store.clone(), Arc::new(SmtpTransport::new()));
    let secret = town.provider.grant(LOGIN);
    let inbox = town.inbox(&postroom, &secret).await;
    assert!(postroom.probe(inbox.id).await.unwrap().passed());
    let edit = async |mailbox: &Mailbox, description: &str, secret: SecretChange| {
        let draft = MailboxDraft { description: description.to_owned(), ..(&mailbox.settings).into() };
        postroom.edit(&actor(), mailbox.id, mailbox.revision, &draft, secret).await.unwrap()
    };
    let forgotten = || store.calls("Vault::replace");
    let asked = forgotten();
    let inbox = edit(&inbox, "another word for it", SecretChange::Keep).await;
    assert!(postroom.probe(inbox.id).await.unwrap().passed());
    assert_eq!((forgotten(), town.provider.requests()), (asked, 1), "it is the same sign-in");
    let inbox = edit(&inbox, "Desk", SecretChange::Set("another".into())).await;
    assert_eq!(forgotten(), asked + 1);
    let inbox = edit(&inbox, "Desk", SecretChange::Set(secret.into())).await;
    assert!(postroom.probe(inbox.id).await.unwrap().passed());
    assert_eq!(town.provider.requests(), 2, "it was forgotten");
    let asked = forgotten();
    postroom.remove(&actor(), inbox.id, None).await.unwrap();
    assert_eq!(forgotten(), asked + 1);
}

/// Seen to fail when what stands there is not looked at: the answer of the commit is lost, as when a connection breaks during COMMIT.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_outcome_is_known_by_what_stands_there() {
    let town = Town::new(&[LOGIN]).await;
    town.provider.rotate();
    let first = AtomicBool::new(true);
    let store = Wired::ruled(town.store.clone(), move |call| {
        let is_first = call == "Vault::replace" && first.swap(false, Ordering::SeqCst);
        if is_first { Wire::AnswerLost } else { Wire::Whole }
    });
    let postroom = town.postroom_over(Arc::new(store), Arc::new(SmtpTransport::new()));
    let outbox = town.outbox(&postroom, LOGIN, &town.provider.grant(LOGIN)).await;
    assert!(postroom.probe(outbox.id).await.unwrap().passed());
    assert_eq!(town.provider.requests(), 1);
}

/// Seen to fail when a refused token is a refused sign-in at once, and when another one is asked for again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_costs_no_attempt_and_a_second_refusal_asks_a_person() {
    let town = Town::new(&[LOGIN, "rui@acme.example"]).await;
    let postroom = town.postroom();
    let outbox = town.outbox(&postroom, LOGIN, &town.provider.grant(LOGIN)).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = {
        let postroom = postroom.clone();
        tokio::task::JoinSet::from_iter([async move {
            postroom.run_with(Work::all().only_sending(), async { drop(stopped.await) }).await
        }])
    };
    submit(&postroom, LOGIN).await;
    town.reaches(1).await;
    // The provider ends it before its time: the connection that is kept is told so, and the next sign-in too.
    town.server.expire_tokens(LOGIN);
    let second = submit(&postroom, LOGIN).await;
    town.reaches(2).await;
    // It ends in good order: one that is cut off leaves its claim to its lease.
    drop(stop);
    running.join_all().await.into_iter().collect::<postroom::engine::Result<()>>().unwrap();
    work(&postroom).await;
    assert_eq!(show(&postroom, &second).await.item.attempts, 1);
    assert_eq!(town.provider.requests(), 2);
    let health = town.health(&outbox).await;
    assert_eq!((health.failures, health.suspended), (0, false), "{health:?}");
    // A token of somebody else is refused however often it is asked for.
    let other = town.outbox(&postroom, "rui@acme.example", &town.provider.grant(LOGIN)).await;
    postroom.submit(&mail("rui@acme.example", &["ana@customer.example"])).await.unwrap();
    work(&postroom).await;
    let health = town.health(&other).await;
    assert!(health.suspended && health.last_error.unwrap().contains("token were refused"));
    assert_eq!(town.provider.requests(), 4, "two tokens, and no more");
}

/// Would miss a server that does not say that the session is over: it is found by its next silence.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_whose_token_ends_in_its_session_is_read_on() {
    let town = Town::new(&[LOGIN]).await;
    let postroom = town.postroom();
    let inbox = town.inbox(&postroom, &town.provider.grant(LOGIN)).await;
    for (round, requests) in [(1, 1), (2, 2)] {
        town.server.deliver(LOGIN, format!("Subject: {round}\r\n\r\nx\r\n"));
        work(&postroom).await;
        assert_eq!(town.provider.requests(), requests);
        assert_eq!(town.health(&inbox).await.failures, 0);
        town.server.expire_tokens(LOGIN);
    }
    let desk: &dyn LedgerDesk = &*town.store;
    assert_eq!(desk.list(&LedgerQuery::default()).await.unwrap().len(), 2);
}

/// Seen to fail when a refusal is an outage (the account is asked for again and again) and when an outage is a refusal (a person is asked).
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_parks_and_one_that_is_down_is_asked_again() {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    for (status, headers, body, suspended, rests) in [
        (
            400,
            "",
            r#"{"error":"invalid_grant","error_description":"expired"}"#,
            true,
            (minutes(0), minutes(0)),
        ),
        (429, "Retry-After: 1800\r\n", "{}", false, (minutes(30), minutes(40))),
        (503, "", "<html>", false, (Duration::from_secs(1), minutes(15))),
    ] {
        let town = Town::new(&[LOGIN]).await;
        let postroom = town.postroom();
        let secret = town.provider.grant(LOGIN);
        let outbox = town.outbox(&postroom, LOGIN, &secret).await;
        let waiting = submit(&postroom, LOGIN).await;
        town.provider.answer(status, headers, body);
        work(&postroom).await;
        let health = town.health(&outbox).await;
        let rest = health.next_attempt.map(|next| next.since(postroom.now())).unwrap_or_default();
        assert_eq!((health.suspended, health.failures), (suspended, 1), "{status}: {health:?}");
        assert!((rests.0..=rests.1).contains(&rest), "{status}: {rest:?}");
        assert!(
            health
                .last_error
                .clone()
                .is_some_and(|error| error.contains("(at token)") && !error.contains(&secret))
        );
        assert_eq!(show(&postroom, &waiting).await.item.attempts, 0, "{status}: no attempt is spent");
        assert_eq!(town.provider.requests(), 1);
        // An inbox is parked as after a refused sign-in, for a provider's own outage may refuse everybody.
        let inbox = town.inbox(&postroom, &secret).await;
        town.provider.answer(status, headers, body);
        work(&postroom).await;
        let health = town.health(&inbox).await;
        let rest = health.next_attempt.map(|next| next.since(postroom.now())).unwrap_or_default();
        assert!(!health.suspended && health.failures == 1, "{status}: {health:?}");
        let rests = if suspended { (minutes(15), minutes(20)) } else { rests };
        assert!((rests.0..=rests.1).contains(&rest), "{status}: {rest:?}");
        // Once its time is over it goes on by itself; what waits for a person does not.
        town.server.deliver(LOGIN, "Subject: one\r\n\r\nx\r\n");
        town.clock.advance(minutes(45));
        work(&postroom).await;
        let desk: &dyn LedgerDesk = &*town.store;
        assert_eq!(desk.list(&LedgerQuery::default()).await.unwrap().len(), 1, "{status}");
        assert_eq!(town.server.accepted_count(), usize::from(!suspended));
    }
}
