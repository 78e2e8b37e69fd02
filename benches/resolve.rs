//! How long the decision which outbox sends a mail takes, over a registry of 10,000 contracts, steps and outboxes that is in memory
//! already. Reading it from a store is not measured. The goal is less than a microsecond.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, MailboxId, Revision, StepKey};
use postroom_core::mailbox::{Mailbox, MailboxDraft, OutboxDraft, SettingsDraft, Status};
use postroom_core::resolve::{Question, Reason, WhenUnavailable, resolve};
use postroom_core::step::Step;
use postroom_core::time::Timestamp;

const LINKS: i64 = 10_000;
const STANDARD: MailboxId = MailboxId::new(0);

struct Registry {
    mailboxes: HashMap<MailboxId, Mailbox>,
    contracts: Vec<Contract>,
    steps: Vec<Step>,
}

fn outbox(number: i64) -> Mailbox {
    let form = SettingsDraft::Outbox(OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: (0..3).map(|sender| format!("Desk <desk{sender}@c{number}.example>")).collect(),
        ..OutboxDraft::default()
    });
    let settings = MailboxDraft::new("An outbox", "127.0.0.1", form).check().expect("a valid form");
    let actor = Actor::parse("bench").expect("an actor");
    Mailbox::new(
        MailboxId::new(number),
        settings,
        Status::Active,
        Revision::new(1),
        actor,
        Timestamp::from_millis(0),
    )
}

impl Registry {
    fn new() -> Self {
        let contract =
            |number: i64| Contract::new(ContractId::parse(&format!("contract {number}")).expect("an id"));
        let step = |number: i64| Step::new(StepKey::parse(&format!("flow/{number}")).expect("a key"));
        Self {
            mailboxes: (0..=LINKS).map(|number| (MailboxId::new(number), outbox(number))).collect(),
            // Every third contract is linked to Standard, every second step is set to Contract.
            contracts: (1..=LINKS)
                .map(|number| match number % 3 {
                    0 => contract(number),
                    _ => contract(number).with_outbox(MailboxId::new(number), None),
                })
                .collect(),
            steps: (1..=LINKS)
                .map(|number| match number % 2 {
                    0 => step(number),
                    _ => step(number).with_outbox(MailboxId::new(LINKS - number)),
                })
                .collect(),
        }
    }
}

fn by_links(criterion: &mut Criterion) {
    let registry = Registry::new();
    let mailbox = |id: MailboxId| registry.mailboxes.get(&id);
    let mut pairs = registry.contracts.iter().zip(registry.steps.iter()).cycle();
    let question = |contract, step| Question {
        contract,
        step,
        standard: Some(STANDARD),
        sender: None,
        when_unavailable: WhenUnavailable::Refuse,
        mailbox: &mailbox,
    };
    let first =
        |contract, step| resolve(&question(contract, step)).expect("every link is good").reasons[0].clone();
    assert_eq!(first(Some(&registry.contracts[0]), Some(&registry.steps[0])), Reason::Step);
    assert_eq!(first(Some(&registry.contracts[0]), None), Reason::Contract);
    assert_eq!(first(Some(&registry.contracts[2]), None), Reason::Standard);

    criterion.bench_function("resolve/one contract and step", |bencher| {
        let question = question(Some(&registry.contracts[0]), Some(&registry.steps[0]));
        bencher.iter(|| black_box(resolve(black_box(&question))));
    });
    criterion.bench_function("resolve/10,000 contracts and steps, in turn", |bencher| {
        bencher.iter(|| {
            let (contract, step) = pairs.next().expect("they come round again");
            black_box(resolve(black_box(&question(Some(contract), Some(step)))))
        });
    });
}

criterion_group!(benches, by_links);
criterion_main!(benches);
