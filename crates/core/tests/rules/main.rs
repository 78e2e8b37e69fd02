//! Walks the table of rules with a good and a bad value for each: a rule that nothing enforces, or that nobody wrote a
//! pair for, fails here.

mod oauth;

use std::collections::BTreeMap;

use postroom_core::address::{Address, Domain, NamedAddress};
use postroom_core::automatic;
use postroom_core::bounce::Action;
use postroom_core::contract::{Contract, Limits, Requesters, Retention};
use postroom_core::endpoint::{Authority, Host, Port, Tls};
use postroom_core::id::{
    Actor, ContractId, FlowId, IdempotencyKey, MailboxId, QueueId, RecordId, Revision, StepId, StepKey,
};
use postroom_core::ledger::{self, RemoteKey};
use postroom_core::mailbox::{
    InboxDraft, Kind, Mailbox, MailboxDraft, OutboxDraft, SecretPresence, SentCopy, SettingsDraft, Status,
};
use postroom_core::message::{
    Attachment, Automation, Content, OnDoubt, OnSuppressed, Priority, Submission, check_size,
};
use postroom_core::mime::{addressing, check_raw};
use postroom_core::queue;
use postroom_core::resolve::WhenUnavailable;
use postroom_core::rules::RULES;
use postroom_core::secret::{SecretChange, SecretString};
use postroom_core::step::{Step, StepRecipient};
use postroom_core::suppression::Cause;
use postroom_core::template::{Template, Values};
use postroom_core::time::Timestamp;
use postroom_core::violation::{Invalid, Violations};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----";

/// The codes that were found, or none.
trait Codes {
    fn codes(self) -> Vec<&'static str>;
}

impl<T> Codes for Result<T, Invalid> {
    fn codes(self) -> Vec<&'static str> {
        self.err().map(|invalid| invalid.rule().code).into_iter().collect()
    }
}

impl<T> Codes for Result<T, Violations> {
    fn codes(self) -> Vec<&'static str> {
        self.err().map(|all| all.all().iter().map(|one| one.code()).collect()).unwrap_or_default()
    }
}

/// The pairs that were checked, by code.
#[derive(Default)]
struct Walk(BTreeMap<&'static str, u32>);

impl Walk {
    /// The good value breaks no rule, the bad one breaks exactly this.
    fn check<T, E>(&mut self, code: &'static str, good: Result<T, E>, bad: Result<T, E>)
    where
        Result<T, E>: Codes,
    {
        assert_eq!(good.codes(), [""; 0], "the good value for {code}");
        assert_eq!(bad.codes(), [code], "the bad value for {code}");
        *self.0.entry(code).or_default() += 1;
    }

    fn outbox(&mut self, code: &'static str, bad: impl FnOnce(&mut MailboxDraft, &mut OutboxDraft)) {
        let check = |(draft, mut form): (MailboxDraft, OutboxDraft),
                     bad: &mut dyn FnMut(&mut MailboxDraft, &mut OutboxDraft)| {
            let mut draft = draft;
            bad(&mut draft, &mut form);
            MailboxDraft { settings: SettingsDraft::Outbox(form), ..draft }.check()
        };
        let mut bad = Some(bad);
        let good = check(outbox(), &mut |_, _| {});
        self.check(
            code,
            good,
            check(outbox(), &mut |draft, form| bad.take().expect("called once")(draft, form)),
        );
    }

    fn inbox(&mut self, code: &'static str, bad: impl FnOnce(&mut MailboxDraft, &mut InboxDraft)) {
        let (mut draft, mut form) = inbox();
        bad(&mut draft, &mut form);
        let (good_draft, good_form) = inbox();
        let whole = |draft, form| MailboxDraft { settings: SettingsDraft::Inbox(form), ..draft }.check();
        self.check(code, whole(good_draft, good_form), whole(draft, form));
    }
}

fn form(settings: SettingsDraft) -> MailboxDraft {
    MailboxDraft::new("box", "mail.acme.example", settings)
}

fn inbox() -> (MailboxDraft, InboxDraft) {
    let draft = InboxDraft { provider: "imaps".into(), user: "u".into(), ..InboxDraft::default() };
    (form(SettingsDraft::Inbox(draft.clone())), draft)
}

fn outbox() -> (MailboxDraft, OutboxDraft) {
    let draft = OutboxDraft {
        tls: "starttls".into(),
        auth: "password".into(),
        user: Some("u".into()),
        senders: vec!["a@acme.example".into(), "b@acme.example".into()],
        ..OutboxDraft::default()
    };
    (form(SettingsDraft::Outbox(draft.clone())), draft)
}

fn mailbox(id: i64, draft: &MailboxDraft) -> Mailbox {
    let settings = draft.check().expect("a good form");
    let actor = Actor::parse("test").expect("an actor");
    Mailbox::new(
        MailboxId::new(id),
        settings,
        Status::Active,
        Revision::new(1),
        actor,
        Timestamp::from_millis(0),
    )
}

fn contract() -> Contract {
    Contract::new(ContractId::parse("acme").expect("an id"))
}

fn submission() -> Submission {
    let to = Address::parse("ana@x.example").expect("an address");
    Submission::text(ContractId::parse("acme").expect("an id"), "subject", "text").with_to(to)
}

fn step() -> Step {
    Step::new(StepKey::parse("flow/step").expect("a key"))
}

fn walk_values(walk: &mut Walk) {
    walk.check("value.number", MailboxId::parse("7"), MailboxId::parse("-1"));
    let uuid = "0192f0c1-2b3c-7def-8123-456789abcdef";
    walk.check("value.uuid", QueueId::parse(uuid), QueueId::parse("7"));
    walk.check("value.timestamp", Timestamp::parse("2026-11-22T17:31:04Z"), Timestamp::parse("yesterday"));
    walk.check("address.form", Address::parse("ana@acme.example"), Address::parse("ana"));
    walk.check("address.name", NamedAddress::parse("A <a@x.y>"), NamedAddress::parse("A\u{7} <a@x.y>"));
    walk.check("domain.form", Domain::parse("acme.example"), Domain::parse("10.0.0.1"));
    walk.check("actor.text", Actor::parse("ana"), Actor::parse(""));
    walk.check("contract.id", ContractId::parse("ACME "), ContractId::parse(&"a".repeat(201)));
    walk.check("step.flow", FlowId::parse("f"), FlowId::parse("a\n"));
    walk.check("step.id", StepId::parse("s"), StepId::parse(""));
    walk.check("step.key", StepKey::parse("a/b%2Fc"), StepKey::parse("a/b/c"));
    walk.check("message.record", RecordId::parse("T-1"), RecordId::parse("\0"));
    walk.check("message.idempotency-key", IdempotencyKey::parse("k"), IdempotencyKey::parse(""));
    walk.check("ledger.key", RemoteKey::parse("uid:7"), RemoteKey::parse("7"));
    walk.check("queue.state", queue::State::parse("in-doubt"), queue::State::parse("lost"));
    walk.check("queue.event", queue::Event::parse("claim"), queue::Event::parse("eat"));
    let signed = b"From: a@x.y\r\nDKIM-Signature: v=1\r\n\r\nx\r\n";
    walk.check("queue.reroute", addressing(b"From: a@x.y\r\n\r\nx\r\n"), addressing(signed));
    walk.check("queue.role", queue::Role::parse("bcc"), queue::Role::parse("from"));
    walk.check("ledger.state", ledger::State::parse("triage"), ledger::State::parse("lost"));
    walk.check("ledger.event", ledger::Event::parse("replay"), ledger::Event::parse("eat"));
    walk.check("mailbox.kind", Kind::parse("Inbox"), Kind::parse("box"));
    walk.check("mailbox.status", Status::parse("draft"), Status::parse("on"));
    walk.check("contract.requester", Requesters::parse("ask"), Requesters::parse("maybe"));
    let limit = |text: &str| Limits::default().set(text);
    walk.check("contract.limit", limit("per-day=5"), limit("per-day=0"));
    let retention = |text: &str| Retention::default().set(text);
    walk.check("contract.retention", retention("bodies=30"), retention("bodies="));
    walk.check("message.priority", Priority::parse("high"), Priority::parse("highest"));
    walk.check("message.automatic", Automation::parse("reply"), Automation::parse("bounce"));
    walk.check("message.on-suppressed", OnSuppressed::parse("send"), OnSuppressed::parse("maybe"));
    walk.check("mail.automatic", automatic::Kind::parse("bounce"), automatic::Kind::parse("person"));
    walk.check("mail.action", Action::parse("failed"), Action::parse("lost"));
    walk.check("suppression.cause", Cause::parse("allowed"), Cause::parse("mood"));
    walk.check("message.on-doubt", OnDoubt::parse("resend"), OnDoubt::parse("maybe"));
    walk.check("message.when-unavailable", WhenUnavailable::parse("hold"), WhenUnavailable::parse("drop"));
    // Further limits of the rules above, and forms that are read as values too.
    walk.check("mailbox.server", Host::parse("::1"), Host::parse("http://x"));
    walk.check("mailbox.port", Port::new(65535), Port::new(65536));
    walk.check("outbox.tls", Tls::parse("none"), Tls::parse("ssl"));
    walk.check("mailbox.authority", Authority::parse(PEM), Authority::parse("PEM"));
    walk.check("outbox.sent-copy", SentCopy::parse("append:Sent"), SentCopy::parse("append:"));
}

fn walk_mailboxes(walk: &mut Walk) {
    walk.outbox("mailbox.description", |draft, _| draft.description = " ".into());
    walk.outbox("mailbox.description", |draft, _| draft.description = "é".repeat(201));
    walk.outbox("mailbox.server", |draft, _| draft.server = format!("{}a", "a.".repeat(127)));
    walk.outbox("mailbox.port", |draft, _| draft.port = Some(0));
    walk.outbox("mailbox.authority", |draft, _| draft.authority = Some(format!("{PEM} PRIVATE KEY")));
    walk.outbox("mailbox.max-message", |draft, _| draft.max_message = Some(1023));
    walk.outbox("mailbox.user", |_, form| form.user = Some("u".repeat(321)));
    walk.outbox("mailbox.user", |_, form| form.user = None);
    walk.outbox("mailbox.user-absent", |_, form| form.auth = "none".into());
    walk.outbox("mailbox.danger-plaintext", |_, form| form.tls = "none".into());
    walk.outbox("outbox.tls", |_, form| form.tls = "ssl".into());
    walk.outbox("outbox.auth", |_, form| form.auth = "kerberos".into());
    walk.outbox("outbox.senders", |_, form| form.senders.clear());
    walk.outbox("address.form", |_, form| form.senders[1] = "b".into());
    walk.outbox("outbox.sender-unique", |_, form| form.senders[1] = "A@ACME.example".into());
    walk.outbox("outbox.default-sender", |_, form| form.default_sender = Some("c@acme.example".into()));
    walk.outbox("outbox.max-connections", |_, form| form.max_connections = Some(101));
    walk.outbox("outbox.per-minute", |_, form| form.per_minute = Some(0));
    walk.outbox("outbox.recipients-per-day", |_, form| form.recipients_per_day = Some(0));
    walk.outbox("outbox.preset", |_, form| form.preset = Some("hotmale".into()));
    walk.outbox("outbox.sent-copy", |_, form| form.sent_copy = Some("yes".into()));
    walk.outbox("outbox.sent-copy-companion", |_, form| form.sent_copy = Some("append:Sent".into()));
    walk.outbox("outbox.ehlo-name", |_, form| form.ehlo_name = Some("a b".into()));
    walk.inbox("inbox.provider", |_, form| form.provider = "exchange".into());
    walk.inbox("inbox.folder", |_, form| form.folder = Some("a\n".into()));
    walk.inbox("inbox.folder-absent", |_, form| {
        (form.provider, form.folder) = ("pop3s".into(), Some("INBOX".into()));
    });
    walk.inbox("inbox.after", |_, form| form.after = Some("delete:0".into()));
    walk.inbox("inbox.after-pop3", |_, form| {
        (form.provider, form.after) = ("pop3s".into(), Some("seen".into()));
    });
    walk.inbox("inbox.after-same-folder", |_, form| form.after = Some("move:inbox".into()));
    walk.inbox("inbox.baseline", |_, form| form.baseline = Some("days:".into()));
    walk.inbox("inbox.per-round", |_, form| form.per_round = Some(0));
    walk.inbox("inbox.refused-extensions", |_, form| {
        form.refused_extensions = vec!["EXE".into(), ".exe".into()]
    });
    walk.inbox("inbox.max-attachment", |_, form| form.max_attachment = Some(0));
}

fn walk_secrets(walk: &mut Walk) {
    let (draft, open) = outbox();
    let open = MailboxDraft {
        settings: SettingsDraft::Outbox(OutboxDraft { auth: "none".into(), user: None, ..open }),
        ..draft.clone()
    };
    let old = draft.check().expect("a good form");
    let set = |text: &str| SecretChange::Set(SecretString::from(text.to_owned()));
    let kept = |draft: &MailboxDraft| {
        draft.check_with_secret(&SecretChange::Keep, Some((&old, SecretPresence::Stored)))
    };
    let good = || draft.check_with_secret(&set("secret"), None);
    for bad in ["", "a\nb", "a\0", &"a".repeat(4097)] {
        walk.check("mailbox.password", good(), draft.check_with_secret(&set(bad), None));
    }
    for bad in [SecretChange::Keep, SecretChange::Clear] {
        walk.check("mailbox.password-required", good(), draft.check_with_secret(&bad, None));
    }
    let none = open.check_with_secret(&SecretChange::Keep, None);
    walk.check("mailbox.password-absent", none, open.check_with_secret(&set("secret"), None));
    for elsewhere in [
        MailboxDraft { server: "evil.example".into(), ..draft.clone() },
        MailboxDraft { port: Some(25), ..draft.clone() },
        MailboxDraft { authority: Some(PEM.into()), ..draft.clone() },
    ] {
        walk.check("mailbox.password-again", kept(&draft), kept(&elsewhere));
    }
}

fn walk_links(walk: &mut Walk) {
    let (inbox_draft, inbox_form) = inbox();
    let (outbox_draft, outbox_form) = outbox();
    let pop = MailboxDraft {
        settings: SettingsDraft::Inbox(InboxDraft { provider: "pop3s".into(), ..inbox_form }),
        ..inbox_draft.clone()
    };
    let boxes = [mailbox(1, &inbox_draft), mailbox(2, &outbox_draft), mailbox(3, &pop)];
    let find = |id: MailboxId| boxes.iter().find(|mailbox| mailbox.id == id);
    let id = MailboxId::new;
    let sender = |text: &str| Some(Address::parse(text).expect("an address"));
    let linked = || {
        let mut contract = contract().with_outbox(id(2), sender("b@acme.example")).with_inbox(id(1));
        contract.allowed_outboxes = Some(vec![id(2)]);
        contract
    };
    let check = |change: &dyn Fn(&mut Contract)| {
        let mut contract = linked();
        change(&mut contract);
        contract.check_links(&find)
    };
    let good = || check(&|_| {});
    for wrong in [1, 9] {
        let bad = |contract: &mut Contract| *contract = contract.clone().with_outbox(id(wrong), None);
        walk.check("contract.outbox", good(), check(&bad));
        walk.check(
            "contract.allowed-outboxes",
            good(),
            check(&|c| c.allowed_outboxes = Some(vec![id(wrong)])),
        );
        let (bad, good) = (step().with_outbox(id(wrong)), step().with_outbox(id(2)));
        walk.check("step.outbox", good.check_links(&find), bad.check_links(&find));
    }
    let foreign =
        |contract: &mut Contract| *contract = contract.clone().with_outbox(id(2), sender("c@acme.example"));
    walk.check("contract.sender", good(), check(&foreign));
    walk.check("contract.inbox", good(), check(&|contract| contract.inboxes = vec![id(2)]));
    let with_companion = |companion, copy: Option<&str>| {
        let form = OutboxDraft {
            companion: Some(id(companion)),
            sent_copy: copy.map(ToOwned::to_owned),
            ..outbox_form.clone()
        };
        let draft = MailboxDraft { settings: SettingsDraft::Outbox(form), ..outbox_draft.clone() };
        draft.check().expect("a good form").check_companion(&find)
    };
    walk.check("outbox.companion", with_companion(3, None), with_companion(2, None));
    let copy = Some("append:Sent");
    walk.check("outbox.sent-copy-companion", with_companion(1, copy), with_companion(3, copy));
}

fn walk_contracts(walk: &mut Walk) {
    let check = |change: &dyn Fn(&mut Contract)| {
        let mut contract = contract();
        change(&mut contract);
        contract.check()
    };
    let good = || check(&|_| {});
    let id = MailboxId::new;
    walk.check(
        "contract.allowed-outboxes",
        good(),
        check(&|c| c.allowed_outboxes = Some(vec![id(1), id(1)])),
    );
    walk.check("contract.inbox", good(), check(&|c| c.inboxes = vec![id(1), id(1)]));
    let over = |contract: &mut Contract| {
        (contract.inboxes, contract.limits.boxes) = (vec![id(1), id(2)], Some(1));
    };
    walk.check("contract.inbox", good(), check(&over));
    let twice = vec![Address::parse("a@x.y").expect("an address"); 2];
    walk.check("contract.addresses", good(), check(&|c| c.addresses = twice.clone()));
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    let many: Vec<_> = (0..1001).map(|number| domain(&format!("d{number}.example"))).collect();
    walk.check("contract.domains", good(), check(&|c| c.domains = many.clone()));
    for public in ["gmail.com", "com.br"] {
        walk.check("contract.public-domain", good(), check(&|c| c.domains = vec![domain(public)]));
    }
    let named = |name: &str| {
        let mut step = step();
        step.name = name.into();
        step.check()
    };
    walk.check("step.name", named("Welcome"), named(""));
    let recipient = |text: &str| StepRecipient::parse(text);
    walk.check("step.recipients", recipient("requester"), recipient("a@"));
    let many = vec![StepRecipient::Name("a".into()); 101];
    walk.check("step.recipients", step().check(), step().with_recipients(many).check());
}

fn walk_submissions(walk: &mut Walk) {
    let check = |change: &dyn Fn(&mut Submission)| {
        let mut submission = submission();
        change(&mut submission);
        submission.check()
    };
    let good = || check(&|_| {});
    walk.check("message.recipients", good(), check(&|s| s.to.clear()));
    walk.check("message.recipients", good(), check(&|s| s.bcc = vec![s.to[0].clone(); 1000]));
    let parts = |subject: &str, text: Option<&str>, name: Option<&str>| Content::Parts {
        subject: subject.into(),
        text: text.map(Into::into),
        html: None,
        attachments: name
            .map(|name| Attachment {
                name: name.into(),
                media_type: "text/plain".into(),
                content: Vec::new(),
                content_id: None,
            })
            .into_iter()
            .collect(),
    };
    walk.check("message.subject", good(), check(&|s| s.content = parts("a\r\nBcc: x", Some("t"), None)));
    walk.check("message.content", good(), check(&|s| s.content = parts("a", None, None)));
    walk.check("message.content", good(), check(&|s| s.content = Content::Template(Values::default())));
    walk.check("message.attachment", good(), check(&|s| s.content = parts("a", Some("t"), Some("a/b"))));
    walk.check("message.header", good(), check(&|s| s.headers = vec![("Bcc".into(), "x@y".into())]));
    walk.check("message.header", good(), check(&|s| s.headers = vec![("X-A".into(), "b".into()); 101]));
    let times = |from, to| {
        move |s: &mut Submission| {
            let at = Timestamp::from_millis;
            (s.not_before, s.expires_at) = (Some(at(from)), Some(at(to)));
        }
    };
    walk.check("message.expiry", check(&times(1, 2)), check(&times(2, 2)));
    walk.check("message.size", check_size(10, 10), check_size(11, 10));
    walk.check("message.size", check_size(64 << 20, u64::MAX), check_size((64 << 20) + 1, u64::MAX));
    let raw = |text: &str| check_raw(text.as_bytes(), 1000);
    let bytes = "From: a@acme.example\r\n\r\nx\r\n";
    walk.check("message.raw", raw(bytes), raw("From: a@acme.example\n\nx\n"));
    let raw_with = |header: &[(String, String)]| {
        let mut raw = Submission::raw(contract().id, bytes.into()).with_to(submission().to[0].clone());
        raw.headers = header.to_vec();
        raw.check()
    };
    walk.check("message.raw", raw_with(&[]), raw_with(&[("X-A".into(), "b".into())]));
    let settings = outbox().0.check().expect("a good form");
    let from = |text: &str| {
        let facts = raw(text).expect("good bytes");
        facts.check_sender(settings.outbox().expect("an outbox")).cloned()
    };
    walk.check("message.raw-from", from(bytes), from("From: c@acme.example\r\n\r\nx\r\n"));
    let template = Template::parse("Subject: ${A}\n\n${A}");
    walk.check("step.template", template.clone(), Template::parse("Subject: ${A"));
    let fill = |values: &Values| template.clone().expect("a template").fill(values);
    walk.check("message.values", fill(&Values::default().with("A", "a")), fill(&Values::default()));
}

#[test]
fn every_rule_is_kept_by_a_good_value_and_broken_by_a_bad_one() {
    let mut walk = Walk::default();
    walk_values(&mut walk);
    walk_mailboxes(&mut walk);
    walk_secrets(&mut walk);
    oauth::walk(&mut walk);
    walk_links(&mut walk);
    walk_contracts(&mut walk);
    walk_submissions(&mut walk);
    let rules: Vec<_> = RULES.iter().map(|rule| rule.code).collect();
    let without: Vec<_> = rules.iter().filter(|code| !walk.0.contains_key(*code)).collect();
    assert!(without.is_empty(), "rules without a pair: {without:?}");
    let unknown: Vec<_> = walk.0.keys().filter(|code| !rules.contains(code)).collect();
    assert!(unknown.is_empty(), "pairs without a rule: {unknown:?}");
}

#[test]
fn every_violation_of_a_form_is_reported_at_once_with_field_code_and_parameters() {
    let (draft, form) = outbox();
    let bad = MailboxDraft {
        description: String::new(),
        server: "a b".into(),
        port: Some(70_000),
        settings: SettingsDraft::Outbox(OutboxDraft {
            tls: "x".into(),
            senders: vec!["a".into(), "b@x.y".into(), "B@x.y".into()],
            ehlo_name: Some("!".into()),
            ..form
        }),
        ..draft
    };
    let violations = bad.check().expect_err("a bad form");
    let fields: Vec<_> = violations.all().iter().map(|one| (one.field(), one.code())).collect();
    assert_eq!(
        fields,
        [
            ("description", "mailbox.description"),
            ("server", "mailbox.server"),
            ("port", "mailbox.port"),
            ("tls", "outbox.tls"),
            ("senders[0]", "address.form"),
            ("senders[2]", "outbox.sender-unique"),
            ("ehlo_name", "outbox.ehlo-name"),
        ]
    );
    let json = serde_json::to_value(&violations).expect("JSON");
    assert_eq!(json[2]["field"], "port");
    assert_eq!(json[2]["rule"], "mailbox.port");
    assert_eq!(json[2]["parameters"]["value"], "70000");
    assert!(json[2]["message"].as_str().is_some_and(|text| text.contains("65535")));
}

#[test]
fn the_form_of_valid_settings_gives_the_same_settings() {
    for draft in [inbox().0, outbox().0] {
        let settings = draft.check().expect("a good form");
        let again = MailboxDraft::from(&settings);
        assert_eq!(again.check().expect("its own form"), settings);
        let json = serde_json::to_string(&again).expect("JSON");
        let read: MailboxDraft = serde_json::from_str(&json).expect("its own JSON");
        assert_eq!(read, again);
    }
}
