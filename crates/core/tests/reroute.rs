//! Which outboxes may take over a mail that is frozen, as whom it goes then, and where its answers go.

use postroom_core::address::{Address, NamedAddress};
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, FlowId, MailboxId, Revision, StepId, StepKey};
use postroom_core::mailbox::{Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::mime::Addressing;
use postroom_core::reroute::reroute;
use postroom_core::resolve::{Question, Reason, Unresolved, WhenUnavailable};
use postroom_core::step::{Step, StepOutbox};
use postroom_core::time::Timestamp;

fn named(text: &str) -> NamedAddress {
    text.parse().expect("an address")
}

/// Outbox `id`, which sends as `d{id}@acme.example` by default and as `all@acme.example`.
fn outbox(id: i64, status: Status) -> Mailbox {
    let senders = vec![format!("Desk {id} <d{id}@acme.example>"), "all@acme.example".into()];
    let (tls, auth) = ("starttls".into(), "none".into());
    let draft = OutboxDraft { tls, auth, senders, ..OutboxDraft::default() };
    let settings = MailboxDraft::new(format!("box {id}"), "mail.example", SettingsDraft::Outbox(draft));
    let actor = Actor::parse("test").expect("an actor");
    let settings = settings.check().expect("a good form");
    Mailbox::new(MailboxId::new(id), settings, status, Revision::new(1), actor, Timestamp::from_millis(0))
}

fn contract() -> Contract {
    Contract::new(ContractId::parse("ACME").expect("an id"))
}

fn step(outbox: i64) -> Step {
    let (flow, step) = (FlowId::parse("f").expect("an id"), StepId::parse("s").expect("an id"));
    let mut step = Step::new(StepKey::new(flow, step));
    step.outbox = StepOutbox::Specific(MailboxId::new(outbox));
    step
}

/// Of outboxes 1 to 4, the last not active; Standard is 1.
fn asked(
    contract: Option<&Contract>,
    step: Option<&Step>,
    was: &Addressing,
    to: i64,
) -> Result<(String, Option<String>, Vec<Reason>), Unresolved> {
    let mailboxes: Vec<Mailbox> =
        (1..=4).map(|id| outbox(id, if id == 4 { Status::Disabled } else { Status::Active })).collect();
    let question = Question {
        contract,
        step,
        standard: Some(MailboxId::new(1)),
        sender: None,
        when_unavailable: WhenUnavailable::Refuse,
        mailbox: &|id| mailboxes.iter().find(|mailbox| mailbox.id == id),
    };
    let to = reroute(&question, was, MailboxId::new(9), MailboxId::new(to))?;
    Ok((to.sender.address().to_string(), to.reply_to.map(|one| one.address().to_string()), to.reasons))
}

/// Promise P2: would miss an outbox that nobody linked.
#[test]
fn only_an_outbox_that_step_contract_or_standard_names_takes_a_mail_over() {
    let was = Addressing { from: named("old@acme.example"), reply_to: None };
    let reason = |contract: Option<&Contract>, step: Option<&Step>, to| {
        asked(contract, step, &was, to).map(|(_, _, reasons)| reasons[1].clone())
    };
    let not_named = |outbox| Err(Unresolved::NotNamed { outbox: MailboxId::new(outbox) });
    assert_eq!(reason(None, None, 1), Ok(Reason::Standard));
    assert_eq!(reason(None, None, 2), not_named(2));
    let linked = contract().with_outbox(MailboxId::new(2), None);
    assert_eq!(reason(Some(&linked), None, 2), Ok(Reason::Contract));
    assert_eq!(reason(Some(&linked), None, 3), not_named(3));
    assert_eq!(reason(Some(&linked), Some(&step(3)), 3), Ok(Reason::Step));
    let mut listing = contract();
    listing.allowed_outboxes = Some(vec![MailboxId::new(3)]);
    assert_eq!(reason(Some(&listing), None, 3), Ok(Reason::Contract));
    assert_eq!(
        reason(Some(&listing), Some(&step(2)), 2),
        not_named(2),
        "a step that its contract does not allow"
    );
    assert_eq!(reason(Some(&listing), None, 1), Ok(Reason::Standard));
    let disabled = contract().with_outbox(MailboxId::new(4), None);
    assert_eq!(reason(Some(&disabled), None, 4), Err(Unresolved::Unavailable { outbox: MailboxId::new(4) }));
    let inbox = contract().with_inbox(MailboxId::new(2));
    assert_eq!(reason(Some(&inbox), None, 2), not_named(2));
}

#[test]
fn it_goes_as_a_sender_of_the_new_outbox_and_answers_go_where_they_went() {
    let check = |from: &str, reply_to: Option<&str>, linked: Option<&str>, want: (&str, Option<&str>)| {
        let was = Addressing { from: named(from), reply_to: reply_to.map(named) };
        let sender = linked.map(|sender| Address::parse(sender).expect("an address"));
        let contract = contract().with_outbox(MailboxId::new(2), sender);
        let (sender, answers, reasons) = asked(Some(&contract), None, &was, 2).expect("it may");
        assert_eq!((sender.as_str(), answers.as_deref()), want, "{from} {reply_to:?}");
        assert_eq!(reasons, [Reason::Rerouted { from: MailboxId::new(9) }, Reason::Contract]);
    };
    check("old@acme.example", None, None, ("d2@acme.example", Some("old@acme.example")));
    check("all@acme.example", None, None, ("all@acme.example", None));
    check("old@acme.example", None, Some("all@acme.example"), ("all@acme.example", Some("old@acme.example")));
    check("d2@acme.example", None, Some("all@acme.example"), ("d2@acme.example", None));
    check(
        "old@acme.example",
        Some("ticket@acme.example"),
        None,
        ("d2@acme.example", Some("ticket@acme.example")),
    );
    // After a fallback the wanted sender is in Reply-To: its own outbox sends as it again.
    check("other@acme.example", Some("all@acme.example"), None, ("all@acme.example", None));
}
