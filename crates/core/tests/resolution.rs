//! Resolution against a reference model that is written as the specification's table, and against its promises.

use std::collections::HashMap;

use postroom_core::address::Address;
use postroom_core::contract::{Contract, ContractOutbox};
use postroom_core::id::{Actor, ContractId, FlowId, MailboxId, Revision, StepId, StepKey};
use postroom_core::mailbox::{InboxDraft, Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::resolve::{Question, Reason, Resolution, Unresolved, WhenUnavailable, resolve};
use postroom_core::step::{Step, StepOutbox};
use postroom_core::time::Timestamp;
use proptest::prelude::*;

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn mailbox(id: i64, status: Status, settings: SettingsDraft) -> Mailbox {
    let draft = MailboxDraft::new(format!("box {id}"), "mail.example", settings);
    let settings = draft.check().expect("a good form");
    let actor = Actor::parse("test").expect("an actor");
    Mailbox::new(MailboxId::new(id), settings, status, Revision::new(1), actor, Timestamp::from_millis(0))
}

/// An outbox with a sender of its own, one that all have, and another of its own, which is the default.
fn outbox(id: i64, status: Status) -> Mailbox {
    let own = format!("box{id}@acme.example");
    let senders = vec![format!("a{id}@acme.example"), "all@acme.example".into(), own.clone()];
    let (tls, auth) = ("starttls".into(), "none".into());
    let draft = OutboxDraft { tls, auth, senders, default_sender: Some(own), ..OutboxDraft::default() };
    mailbox(id, status, SettingsDraft::Outbox(draft))
}

fn inbox(id: i64) -> Mailbox {
    let draft = InboxDraft { provider: "imaps".into(), user: "u".into(), ..InboxDraft::default() };
    mailbox(id, Status::Active, SettingsDraft::Inbox(draft))
}

fn key(number: usize) -> StepKey {
    let part = number.to_string();
    StepKey::new(FlowId::parse("flow").expect("id"), StepId::parse(&part).expect("id"))
}

fn contract(number: usize) -> Contract {
    Contract::new(ContractId::parse(&format!("contract {number}")).expect("id"))
}

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(most).expect("small")).expect("small")
    }

    fn id(&mut self, most: usize) -> MailboxId {
        MailboxId::new(i64::try_from(self.below(most)).expect("small"))
    }
}

/// The rows of the specification's table (section 2), with what a reader looks up in them: the step's link, the
/// contract's link, whether there is a standard outbox; the outbox and the first reason.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("specific", "specific", "any", "step"),
    ("specific", "standard", "any", "step"),
    ("specific", "none", "any", "step"),
    ("contract", "specific", "any", "contract"),
    ("none", "specific", "any", "contract"),
    ("contract", "standard", "set", "standard"),
    ("contract", "none", "set", "standard"),
    ("none", "standard", "set", "standard"),
    ("none", "none", "set", "standard"),
    ("contract", "standard", "unset", "no-outbox"),
    ("contract", "none", "unset", "no-outbox"),
    ("none", "standard", "unset", "no-outbox"),
    ("none", "none", "unset", "no-outbox"),
];

/// What the table says: the outbox and the word, or the word of the refusal.
fn reference(
    contract: Option<&Contract>,
    step: Option<&Step>,
    standard: Option<MailboxId>,
    boxes: &HashMap<MailboxId, Mailbox>,
) -> Result<(MailboxId, &'static str), &'static str> {
    let step_word = match step {
        Some(step) if matches!(step.outbox, StepOutbox::Specific(_)) => "specific",
        Some(_) => "contract",
        None => "none",
    };
    let contract_word = match contract {
        Some(contract) if contract.outbox != ContractOutbox::Standard => "specific",
        Some(_) => "standard",
        None => "none",
    };
    let standard_word = if standard.is_some() { "set" } else { "unset" };
    let row = TABLE
        .iter()
        .find(|row| {
            row.0 == step_word && row.1 == contract_word && (row.2 == "any" || row.2 == standard_word)
        })
        .expect("the table is complete");
    let outbox = match row.3 {
        "step" => match step.map(|step| step.outbox) {
            Some(StepOutbox::Specific(outbox)) => {
                if let Some(allowed) = contract.and_then(|contract| contract.allowed_outboxes.as_ref())
                    && !allowed.contains(&outbox)
                {
                    return Err("outbox-not-allowed");
                }
                outbox
            }
            _ => unreachable!("the row says so"),
        },
        "contract" => match contract.map(|contract| contract.outbox.clone()) {
            Some(ContractOutbox::Specific { outbox, .. }) => outbox,
            _ => unreachable!("the row says so"),
        },
        "standard" => standard.expect("the row says so"),
        refusal => return Err(refusal),
    };
    let usable = |found: &Mailbox| found.status == Status::Active && found.settings.outbox().is_some();
    if boxes.get(&outbox).is_some_and(usable) { Ok((outbox, row.3)) } else { Err("outbox-unavailable") }
}

#[test]
fn a_hundred_thousand_pairs_over_ten_thousand_links_resolve_as_the_table_says() {
    let mut random = Random(2026);
    let mut boxes = HashMap::new();
    for id in 0..1000 {
        let status = [Status::Active, Status::Active, Status::Active, Status::Disabled, Status::Draft]
            [random.below(5)];
        // Some numbers are free: a link may be to a box that is gone.
        let found = match random.below(20) {
            0 => continue,
            1 => inbox(id),
            _ => outbox(id, status),
        };
        boxes.insert(MailboxId::new(id), found);
    }
    let contracts: Vec<Contract> = (0..5000)
        .map(|number| {
            let contract = contract(number);
            let mut contract = match random.below(3) {
                0 => contract,
                _ => contract.with_outbox(random.id(1000), None),
            };
            if random.below(4) == 0 {
                contract.allowed_outboxes = Some((0..50).map(|_| random.id(1000)).collect());
            }
            contract
        })
        .collect();
    let steps: Vec<Step> = (0..5000)
        .map(|number| {
            let step = Step::new(key(number));
            if random.below(2) == 0 { step } else { step.with_outbox(random.id(1000)) }
        })
        .collect();
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for _ in 0..100_000 {
        let contract = (random.below(10) > 0).then(|| &contracts[random.below(5000)]);
        let step = (random.below(10) > 3).then(|| &steps[random.below(5000)]);
        let standard = (random.below(10) > 1).then(|| random.id(1000));
        let question = Question {
            contract,
            step,
            standard,
            sender: None,
            when_unavailable: WhenUnavailable::Refuse,
            mailbox: &|id| boxes.get(&id),
        };
        let decided = resolve(&question)
            .map(|resolution| (resolution.outbox, word(&resolution.reasons[0])))
            .map_err(|unresolved| unresolved.code());
        assert_eq!(decided, reference(contract, step, standard, &boxes), "{question:?}");
        *seen.entry(decided.map_or_else(|code| code, |(_, word)| word)).or_default() += 1;
    }
    // Would prove little if the random links missed a row of the table.
    for outcome in ["step", "contract", "standard", "no-outbox", "outbox-not-allowed", "outbox-unavailable"] {
        assert!(seen.get(outcome).is_some_and(|count| *count > 300), "{outcome}: {seen:?}");
    }
}

fn word(reason: &Reason) -> &'static str {
    match reason {
        Reason::Step => "step",
        Reason::Contract => "contract",
        Reason::Standard => "standard",
        _ => "none of the three",
    }
}

/// What the links name: the only outboxes that may send.
fn named(question: &Question<'_>) -> Vec<MailboxId> {
    let step = match question.step.map(|step| step.outbox) {
        Some(StepOutbox::Specific(outbox)) => Some(outbox),
        _ => None,
    };
    let contract = match question.contract.map(|contract| &contract.outbox) {
        Some(ContractOutbox::Specific { outbox, .. }) => Some(*outbox),
        _ => None,
    };
    step.into_iter().chain(contract).chain(question.standard).collect()
}

fn check_promises(question: &Question<'_>, resolution: &Resolution) {
    assert!(named(question).contains(&resolution.outbox), "{question:?} gave {resolution:?}");
    let mailbox = (question.mailbox)(resolution.outbox).expect("a registered box");
    let outbox = mailbox.settings.outbox().expect("an outbox");
    assert!(outbox.senders().contains(&resolution.sender), "{resolution:?}");
    assert_eq!(resolution.revision, mailbox.revision);
    let fell_back = resolution.reasons.iter().any(|reason| matches!(reason, Reason::Fallback { .. }));
    assert!(!fell_back || question.when_unavailable == WhenUnavailable::Standard);
    assert!(resolution.reply_to.is_none() || fell_back);
    assert_eq!(resolution.held, resolution.reasons.contains(&Reason::Held));
    assert!(!resolution.held || question.when_unavailable == WhenUnavailable::Hold);
    assert!(mailbox.is_active() || resolution.held, "{resolution:?}");
    if let (Some(asked), false) = (question.sender, fell_back) {
        assert_eq!(resolution.sender.address(), asked);
    }
}

fn link() -> impl Strategy<Value = Option<i64>> {
    proptest::option::of(0i64..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn only_a_named_outbox_sends_and_only_as_one_of_its_senders(
        kinds in proptest::collection::vec(0usize..5, 6),
        contract_link in proptest::option::of((link(), proptest::option::of(0i64..6), proptest::option::of(proptest::collection::vec(0i64..6, 0..4)))),
        step_link in proptest::option::of(link()),
        standard in link(),
        sender in proptest::option::of(0i64..7),
        policy in 0usize..3,
    ) {
        let boxes: HashMap<MailboxId, Mailbox> = kinds
            .iter()
            .zip(0..)
            .filter_map(|(kind, id)| match kind {
                0 => None,
                1 => Some(inbox(id)),
                2 => Some(outbox(id, Status::Disabled)),
                _ => Some(outbox(id, Status::Active)),
            })
            .map(|mailbox| (mailbox.id, mailbox))
            .collect();
        let sender_of = |id: i64| address(&if id == 6 { "all@acme.example".into() } else { format!("a{id}@acme.example") });
        let contract = contract_link.map(|(link, sender, allowed)| {
            let mut contract = contract(0);
            if let Some(id) = link {
                contract = contract.with_outbox(MailboxId::new(id), sender.map(sender_of));
            }
            contract.allowed_outboxes = allowed.map(|all| all.into_iter().map(MailboxId::new).collect());
            contract
        });
        let step = step_link.map(|link| {
            let step = Step::new(key(0));
            link.map_or(step.clone(), |id| step.with_outbox(MailboxId::new(id)))
        });
        let sender = sender.map(sender_of);
        let question = Question {
            contract: contract.as_ref(),
            step: step.as_ref(),
            standard: standard.map(MailboxId::new),
            sender: sender.as_ref(),
            when_unavailable: WhenUnavailable::ALL[policy],
            mailbox: &|id| boxes.get(&id),
        };
        match resolve(&question) {
            Ok(resolution) => check_promises(&question, &resolution),
            Err(Unresolved::NoOutbox) => prop_assert!(named(&question).is_empty()),
            Err(Unresolved::NotAllowed { outbox } | Unresolved::Unavailable { outbox } | Unresolved::ForeignSender { outbox, .. }) => {
                prop_assert!(named(&question).contains(&outbox));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn a_fallback_keeps_the_wanted_sender_as_reply_to() {
    let boxes: HashMap<_, _> =
        [outbox(1, Status::Disabled), outbox(2, Status::Active)].map(|one| (one.id, one)).into();
    let contract = contract(0).with_outbox(MailboxId::new(1), Some(address("a1@acme.example")));
    let ask = |sender: Option<&Address>, when_unavailable| {
        resolve(&Question {
            contract: Some(&contract),
            step: None,
            standard: Some(MailboxId::new(2)),
            sender,
            when_unavailable,
            mailbox: &|id| boxes.get(&id),
        })
    };
    let fallback = ask(None, WhenUnavailable::Standard).expect("a fallback");
    assert_eq!(fallback.sender.to_string(), "box2@acme.example");
    assert_eq!(fallback.reply_to.map(|one| one.to_string()).as_deref(), Some("a1@acme.example"));
    assert_eq!(fallback.reasons[..2], [Reason::Contract, Reason::Fallback { from: MailboxId::new(1) }]);
    // A sender that the standard outbox has too needs no Reply-To.
    let shared = address("all@acme.example");
    let fallback = ask(Some(&shared), WhenUnavailable::Standard).expect("a fallback");
    assert_eq!((fallback.sender.address(), fallback.reply_to), (&shared, None));
    // The policy changes who sends, not who may be asked for.
    let foreign = address("x@evil.example");
    let refusal = ask(Some(&foreign), WhenUnavailable::Standard).expect_err("a foreign sender");
    assert_eq!(refusal.code(), "foreign-sender");
    let unavailable = Err(Unresolved::Unavailable { outbox: MailboxId::new(1) });
    assert_eq!(ask(None, WhenUnavailable::Refuse), unavailable);
    assert!(ask(None, WhenUnavailable::Hold).expect("held").held);
}
