//! The clauses of the registry's ports: mailboxes, links, switches, health, audit, vault.

use std::sync::Arc;
use std::time::Duration;

use postroom_core::address::Domain;
use postroom_core::contract::{Contract, ContractOutbox, Requesters};
use postroom_core::id::{EventNumber, MailboxId, Revision};
use postroom_core::mailbox::{Kind, Mailbox, SettingsDraft, Status};
use postroom_core::step::{Step, StepOutbox, StepRecipient};
use postroom_core::template::Template;

use super::fixture::{
    actor, add, address, at, change, contract_id, enqueue, inbox, kind, mailbox, outbox, outbox_draft,
    outbox_with_companion, place, prepared, received, save_contract, save_step, step_key, store_one,
};
use super::subject::Subject;
use crate::Store;
use crate::error::ErrorKind;
use crate::keyring::{Binding, Sealed};
use crate::ledger::LedgerWork;
use crate::registry::{
    Change, Cursor, Direction, Health, MailboxQuery, Scope, SecretWrite, Sign, Sort, Switch, Uses,
};
use crate::transition::registry::companion;

const NOBODY: MailboxId = MailboxId::new(9999);

async fn stored(store: &Arc<dyn Store>, id: MailboxId) -> Mailbox {
    store.mailbox(id).await.expect("mailbox").expect("the mailbox is registered")
}

async fn found(store: &Arc<dyn Store>, query: MailboxQuery) -> Vec<MailboxId> {
    let page = store.search(&query).await.expect("search");
    page.into_iter().map(|mailbox| mailbox.id).collect()
}

pub(super) async fn a_number_is_reserved_once(subject: Subject) {
    let store = subject.store;
    let mut numbers = Vec::new();
    for _ in 0..10 {
        let (a, b) = tokio::join!(store.reserve(), store.reserve());
        numbers.extend([a.expect("reserve"), b.expect("reserve")]);
    }
    numbers.sort_unstable();
    let mut once = numbers.clone();
    once.dedup();
    assert_eq!(once, numbers, "a number was reserved twice");
    assert!(numbers[0].number() >= 1, "people count from 1");
}

pub(super) async fn a_mailbox_is_kept_with_every_field(subject: Subject) {
    let store = subject.store;
    for settings in [outbox("mx.acme.example"), inbox("imap.acme.example")] {
        let id = store.reserve().await.expect("reserve");
        let mut given = mailbox(id, settings);
        given.status = Status::Draft;
        let by = Change::new(at(7), actor());
        store.add(&by, &given, Some(Sealed::from_bytes(vec![1, 2, 3]))).await.expect("add");
        given.changed_at = at(7);
        assert_eq!(stored(&store, id).await, given);
        assert_eq!(store.secret(id).await.expect("secret"), Some(Sealed::from_bytes(vec![1, 2, 3])));
    }
    assert_eq!(store.mailbox(NOBODY).await.expect("mailbox"), None);
    assert_eq!(store.secret(NOBODY).await.expect("secret"), None);
}

pub(super) async fn a_number_that_is_taken_is_a_conflict(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    let other = mailbox(id, outbox("evil.example"));
    assert_eq!(kind(store.add(&change(), &other, None).await), ErrorKind::Conflict);
    assert_eq!(stored(&store, id).await.settings, outbox("mx.acme.example"));
}

pub(super) async fn a_save_gives_the_next_revision_and_a_stale_one_is_a_conflict(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    let read = stored(&store, id).await;
    let mut mine = read.clone();
    mine.settings = outbox("mx2.acme.example");
    mine.status = Status::Disabled;
    let by = Change::new(at(9), actor());
    let revision = store.save(&by, &mine, SecretWrite::Keep).await.expect("save");
    assert!(revision > read.revision);
    mine.revision = revision;
    mine.changed_at = at(9);
    assert_eq!(stored(&store, id).await, mine);
    assert_eq!(kind(store.save(&by, &read, SecretWrite::Clear).await), ErrorKind::Conflict);
    assert_eq!(stored(&store, id).await, mine, "a refused save changed something");
}

pub(super) async fn a_save_does_not_change_the_kind_and_does_not_make_a_mailbox(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    let other = mailbox(id, inbox("imap.acme.example"));
    assert_eq!(kind(store.save(&change(), &other, SecretWrite::Keep).await), ErrorKind::Conflict);
    let nobody = mailbox(NOBODY, outbox("mx.acme.example"));
    assert_eq!(kind(store.save(&change(), &nobody, SecretWrite::Keep).await), ErrorKind::NotFound);
}

pub(super) async fn of_two_saves_at_once_one_is_a_conflict(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    let read = stored(&store, id).await;
    let by = change();
    let (a, b) =
        tokio::join!(store.save(&by, &read, SecretWrite::Keep), store.save(&by, &read, SecretWrite::Keep),);
    let refused = if a.is_ok() { b } else { a };
    assert_eq!(kind(refused), ErrorKind::Conflict);
}

pub(super) async fn a_secret_is_kept_cleared_or_replaced_by_a_save(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    let sealed = |byte| Sealed::from_bytes(vec![byte; 40]);
    for (write, after) in [
        (SecretWrite::Keep, None),
        (SecretWrite::Set(sealed(1)), Some(sealed(1))),
        (SecretWrite::Keep, Some(sealed(1))),
        (SecretWrite::Set(sealed(2)), Some(sealed(2))),
        (SecretWrite::Clear, None),
    ] {
        let read = stored(&store, id).await;
        store.save(&change(), &read, write).await.expect("save");
        assert_eq!(store.secret(id).await.expect("secret"), after);
    }
}

pub(super) async fn a_companion_that_is_gone_is_not_found(subject: Subject) {
    let store = subject.store;
    let orphan =
        mailbox(store.reserve().await.expect("reserve"), outbox_with_companion("mx.acme.example", NOBODY));
    assert_eq!(kind(store.add(&change(), &orphan, None).await), ErrorKind::NotFound);
    let id = add(&store, outbox("mx.acme.example")).await;
    let orphan = mailbox(id, outbox_with_companion("mx.acme.example", NOBODY));
    assert_eq!(kind(store.save(&change(), &orphan, SecretWrite::Keep).await), ErrorKind::NotFound);
}

/// Five mailboxes: their servers repeat, and sort otherwise than their numbers.
async fn five(store: &Arc<dyn Store>) -> Vec<MailboxId> {
    let mut ids = Vec::new();
    for settings in [
        outbox("mx.zeta.example"),
        inbox("imap.acme.example"),
        outbox("mx.acme.example"),
        outbox("mx.zeta.example"),
        inbox("mx.acme.example"),
    ] {
        ids.push(add(store, settings).await);
    }
    ids
}

pub(super) async fn a_search_filters_by_every_field(subject: Subject) {
    let store = subject.store;
    let ids = five(&store).await;
    let mut disabled = stored(&store, ids[3]).await;
    disabled.status = Status::Disabled;
    store.save(&change(), &disabled, SecretWrite::Keep).await.expect("save");
    let linked = Contract::new(contract_id("ACME")).with_outbox(ids[0], None).with_inbox(ids[4]);
    save_contract(&store, &linked).await;
    let of = |picked: &[usize]| picked.iter().map(|n| ids[*n]).collect::<Vec<_>>();
    let query = MailboxQuery::default;
    assert_eq!(found(&store, query()).await, ids);
    let by_server = MailboxQuery { server: Some("ACME.ex".to_owned()), ..query() };
    assert_eq!(found(&store, by_server.clone()).await, of(&[1, 2, 4]));
    let by_description = MailboxQuery { description: Some("OUT by MX".to_owned()), ..query() };
    assert_eq!(found(&store, by_description).await, of(&[0, 2, 3]));
    let by_kind = MailboxQuery { kind: Some(Kind::Inbox), ..query() };
    assert_eq!(found(&store, by_kind).await, of(&[1, 4]));
    let by_status = MailboxQuery { status: Some(Status::Disabled), ..query() };
    assert_eq!(found(&store, by_status).await, of(&[3]));
    let by_contract = MailboxQuery { contract: Some(contract_id("ACME")), ..query() };
    assert_eq!(found(&store, by_contract).await, of(&[0, 4]));
    let by_stranger = MailboxQuery { contract: Some(contract_id("acme")), ..query() };
    assert_eq!(found(&store, by_stranger).await, []);
    let by_both = MailboxQuery { kind: Some(Kind::Outbox), ..by_server };
    assert_eq!(found(&store, by_both).await, of(&[2]));
}

pub(super) async fn a_search_takes_wildcards_literally(subject: Subject) {
    let store = subject.store;
    add(&store, outbox("mx.acme.example")).await;
    for text in ["%", "_", "*", "?", "\\", "[m]x", "'"] {
        let by_server = MailboxQuery { server: Some(text.to_owned()), ..MailboxQuery::default() };
        assert_eq!(found(&store, by_server).await, [], "{text} is not part of any server");
        let by_description = MailboxQuery { description: Some(text.to_owned()), ..MailboxQuery::default() };
        assert_eq!(found(&store, by_description).await, [], "{text} is not part of any description");
    }
}

pub(super) async fn a_search_sorts_by_number_and_by_server_both_ways(subject: Subject) {
    let store = subject.store;
    let ids = five(&store).await;
    let mut check = Vec::new();
    for (sort, direction, order) in [
        (Sort::Id, Direction::Ascending, [0, 1, 2, 3, 4]),
        (Sort::Id, Direction::Descending, [4, 3, 2, 1, 0]),
        (Sort::Server, Direction::Ascending, [1, 2, 4, 0, 3]),
        (Sort::Server, Direction::Descending, [3, 0, 4, 2, 1]),
    ] {
        let query = MailboxQuery { sort, direction, ..MailboxQuery::default() };
        check.push((found(&store, query).await, order.map(|n| ids[n]).to_vec()));
    }
    for (got, want) in check {
        assert_eq!(got, want);
    }
}

pub(super) async fn pages_by_key_are_complete_and_without_doubles(subject: Subject) {
    let store = subject.store;
    five(&store).await;
    for sort in [Sort::Id, Sort::Server] {
        for direction in [Direction::Ascending, Direction::Descending] {
            let all = MailboxQuery { sort, direction, ..MailboxQuery::default() };
            let whole = found(&store, all.clone()).await;
            for limit in 1..=6 {
                let mut pages = Vec::new();
                let mut after = None;
                loop {
                    let query = MailboxQuery { after, limit: Some(limit), ..all.clone() };
                    let page = store.search(&query).await.expect("search");
                    assert!(page.len() <= usize::try_from(limit).expect("small"), "a page is too long");
                    let Some(last) = page.last() else { break };
                    after = Some(Cursor::new(last.settings.endpoint().host.as_str(), last.id));
                    pages.extend(page.into_iter().map(|mailbox| mailbox.id));
                    assert!(
                        pages.len() <= whole.len(),
                        "{sort:?} {direction:?} by {limit} has doubles: {pages:?}"
                    );
                }
                assert_eq!(pages, whole, "{sort:?} {direction:?} by {limit}");
            }
        }
    }
}

fn full_contract(id: &str, outbox: MailboxId, inbox: MailboxId) -> Contract {
    let mut contract = Contract::new(contract_id(id)).with_inbox(inbox);
    contract = contract.with_outbox(outbox, Some(address("news@acme.example")));
    contract.allowed_outboxes = Some(vec![outbox]);
    contract.addresses = vec![address("help@acme.example")];
    contract.domains = vec![Domain::parse("client.example").expect("a valid domain")];
    contract.requesters = Requesters::Ask;
    contract.limits.queued = Some(10);
    contract.retention.raw = 7;
    contract
}

fn full_step(outbox: MailboxId) -> Step {
    let template =
        Template::new("Hi ${NAME}", "Dear ${NAME}", Some("<p>${NAME}</p>")).expect("a valid template");
    let recipients = ["requester", "Boss <boss@client.example>"];
    let recipients = recipients.map(|text| StepRecipient::parse(text).expect("a valid recipient"));
    Step::new(step_key("open/close", "50%"))
        .with_outbox(outbox)
        .with_template(template)
        .with_recipients(recipients.to_vec())
}

pub(super) async fn a_contract_and_a_step_are_kept_with_every_field(subject: Subject) {
    let store = subject.store;
    let (out, r#in) =
        (add(&store, outbox("mx.acme.example")).await, add(&store, inbox("imap.acme.example")).await);
    let mut contract = full_contract("ACME", out, r#in);
    contract.revision = save_contract(&store, &contract).await;
    assert_eq!(contract.revision, Revision::new(1), "the first save gives revision 1");
    assert_eq!(store.contract(&contract.id).await.expect("contract"), Some(contract));
    let mut step = full_step(out);
    step.revision = save_step(&store, &step).await;
    assert_eq!(step.revision, Revision::new(1), "the first save gives revision 1");
    assert_eq!(store.step(&step.key).await.expect("step"), Some(step));
}

pub(super) async fn a_stale_contract_or_step_is_a_conflict(subject: Subject) {
    let store = subject.store;
    let mut contract = Contract::new(contract_id("ACME"));
    let mut step = Step::new(step_key("F", "S"));
    save_contract(&store, &contract).await;
    save_step(&store, &step).await;
    for stale in [0, 2] {
        contract.revision = Revision::new(stale);
        contract.requesters = Requesters::Refuse;
        assert_eq!(kind(store.save_contract(&change(), &contract).await), ErrorKind::Conflict);
        step.revision = Revision::new(stale);
        assert_eq!(kind(store.save_step(&change(), &step).await), ErrorKind::Conflict);
    }
    let kept = store.contract(&contract.id).await.expect("contract").expect("the contract is stored");
    assert_eq!((kept.revision, kept.requesters), (Revision::new(1), Requesters::Accept));
}

pub(super) async fn a_link_to_a_mailbox_that_is_gone_is_not_found(subject: Subject) {
    let store = subject.store;
    let mut allowed = Contract::new(contract_id("ACME"));
    allowed.allowed_outboxes = Some(vec![NOBODY]);
    let plain = || Contract::new(contract_id("ACME"));
    for contract in [plain().with_outbox(NOBODY, None), plain().with_inbox(NOBODY), allowed] {
        assert_eq!(kind(store.save_contract(&change(), &contract).await), ErrorKind::NotFound);
    }
    assert_eq!(store.contract(&contract_id("ACME")).await.expect("contract"), None);
    let step = Step::new(step_key("F", "S")).with_outbox(NOBODY);
    assert_eq!(kind(store.save_step(&change(), &step).await), ErrorKind::NotFound);
}

pub(super) async fn host_ids_are_compared_byte_by_byte(subject: Subject) {
    let store = subject.store;
    let ids = ["ACME", "Acme", "acme", "acme ", "acmé", "acme\u{301}"];
    for (limit, id) in (1..).zip(ids) {
        let mut contract = Contract::new(contract_id(id));
        contract.limits.queued = Some(limit);
        save_contract(&store, &contract).await;
        save_step(&store, &Step::new(step_key("F", id))).await;
        save_step(&store, &Step::new(step_key(id, "S"))).await;
    }
    for (limit, id) in (1..).zip(ids) {
        let contract = store.contract(&contract_id(id)).await.expect("contract").expect("each has its row");
        assert_eq!((contract.limits.queued, contract.revision), (Some(limit), Revision::new(1)), "{id:?}");
    }
    assert_eq!(store.contracts(None, 100).await.expect("contracts").len(), ids.len());
    assert_eq!(store.steps(None, 100).await.expect("steps").len(), 2 * ids.len());
}

pub(super) async fn contracts_and_steps_are_listed_in_byte_order_by_pages(subject: Subject) {
    let store = subject.store;
    let mut ids = ["b", "a", "B", "é", "a ", "aa", "~"];
    for id in ids {
        save_contract(&store, &Contract::new(contract_id(id))).await;
        save_step(&store, &Step::new(step_key(id, "2"))).await;
        save_step(&store, &Step::new(step_key(id, "10"))).await;
    }
    ids.sort_unstable();
    let (mut contracts, mut steps) = (Vec::new(), Vec::new());
    loop {
        let page = store.contracts(contracts.last(), 2).await.expect("contracts");
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        contracts.extend(page.into_iter().map(|contract| contract.id));
        assert!(contracts.len() <= ids.len(), "doubles: {contracts:?}");
    }
    loop {
        let page = store.steps(steps.last(), 3).await.expect("steps");
        if page.is_empty() {
            break;
        }
        steps.extend(page.into_iter().map(|step| step.key));
        assert!(steps.len() <= 2 * ids.len(), "doubles: {steps:?}");
    }
    assert_eq!(contracts, ids.map(contract_id));
    assert_eq!(steps, ids.iter().flat_map(|id| [step_key(id, "10"), step_key(id, "2")]).collect::<Vec<_>>());
}

pub(super) async fn the_contracts_of_an_inbox_are_those_that_list_it(subject: Subject) {
    let store = subject.store;
    let (a, b) = (add(&store, inbox("a.example")).await, add(&store, inbox("b.example")).await);
    for (id, inboxes) in [("two", vec![a, b]), ("Two", vec![a]), ("none", vec![])] {
        let mut contract = Contract::new(contract_id(id));
        contract.inboxes = inboxes;
        save_contract(&store, &contract).await;
    }
    for (inbox, want) in [(a, vec!["Two", "two"]), (b, vec!["two"]), (NOBODY, vec![])] {
        let of = store.contracts_of(inbox).await.expect("contracts_of");
        let ids: Vec<_> = of.iter().map(|contract| contract.id.as_str()).collect();
        assert_eq!(ids, want);
    }
}

pub(super) async fn uses_name_everything_that_links_to_a_mailbox(subject: Subject) {
    let store = subject.store;
    let (out, r#in) =
        (add(&store, outbox("mx.acme.example")).await, add(&store, inbox("imap.acme.example")).await);
    assert_eq!(store.uses(out).await.expect("uses"), Uses::default());
    assert!(store.uses(out).await.expect("uses").is_empty());
    assert_eq!(kind(store.uses(NOBODY).await), ErrorKind::NotFound);
    save_contract(&store, &full_contract("ACME", out, r#in)).await;
    let mut allowed = Contract::new(contract_id("allowed"));
    allowed.allowed_outboxes = Some(vec![out]);
    save_contract(&store, &allowed).await;
    save_step(&store, &full_step(out)).await;
    let sender = add(&store, outbox_with_companion("mx.zeta.example", r#in)).await;
    store.set_standard(&change(), Some(out)).await.expect("set_standard");
    enqueue(&store, &prepared(&store, 1, "ACME").await).await.expect("enqueue");
    let box_place = place(r#in, 1);
    for uid in 1..=2 {
        store_one(&store, at(0), &received(uid, &box_place, uid, &format!("bytes {uid}")))
            .await
            .expect("store");
    }
    let claimed =
        LedgerWork::claim(&*store, at(1), 1, super::fixture::worker(1), at(30)).await.expect("claim");
    let done = crate::ledger::HandlerResult {
        id: claimed[0].item.id,
        claim: claimed[0].claim,
        event: postroom_core::ledger::Event::Handle,
        due_at: at(1),
        detail: String::new(),
    };
    assert!(store.finish(at(2), &done).await.expect("finish"));
    let of_out = Uses {
        contracts: vec![contract_id("ACME"), contract_id("allowed")],
        steps: vec![full_step(out).key],
        standard: true,
        queued: 1,
        ..Uses::default()
    };
    assert_eq!(store.uses(out).await.expect("uses"), of_out);
    let of_in = Uses {
        contracts: vec![contract_id("ACME")],
        companion_of: vec![sender],
        unhandled: 1,
        ..Uses::default()
    };
    assert_eq!(store.uses(r#in).await.expect("uses"), of_in);
}

pub(super) async fn a_mailbox_in_use_is_not_removed(subject: Subject) {
    let store = subject.store;
    let by_contract = add(&store, outbox("mx.acme.example")).await;
    save_contract(&store, &Contract::new(contract_id("ACME")).with_outbox(by_contract, None)).await;
    let by_step = add(&store, outbox("mx.acme.example")).await;
    save_step(&store, &full_step(by_step)).await;
    let by_standard = add(&store, outbox("mx.acme.example")).await;
    store.set_standard(&change(), Some(by_standard)).await.expect("set_standard");
    let by_outbox = add(&store, inbox("imap.acme.example")).await;
    add(&store, outbox_with_companion("mx.acme.example", by_outbox)).await;
    for id in [by_contract, by_step, by_standard, by_outbox] {
        assert_eq!(kind(store.remove(&change(), id, None).await), ErrorKind::InUse);
        stored(&store, id).await;
    }
    assert_eq!(kind(store.remove(&change(), NOBODY, None).await), ErrorKind::NotFound);
    assert_eq!(kind(store.remove(&change(), by_step, Some(NOBODY)).await), ErrorKind::NotFound);
    stored(&store, by_step).await;
}

pub(super) async fn a_removed_mailbox_leaves_nothing_and_its_number_is_not_given_again(subject: Subject) {
    let store = subject.store;
    let id = store.reserve().await.expect("reserve");
    let sealed = Sealed::from_bytes(vec![7; 40]);
    store.add(&change(), &mailbox(id, outbox("mx.acme.example")), Some(sealed)).await.expect("add");
    let sign = Sign::Suspended { error: "sign-in refused".to_owned() };
    store.record(at(1), id, &sign).await.expect("record");
    store.set_switch(&change(), &Scope::Outbox(id), Switch::Paused).await.expect("set_switch");
    store.remove(&change(), id, None).await.expect("remove");
    assert_eq!(store.mailbox(id).await.expect("mailbox"), None);
    assert_eq!(store.secret(id).await.expect("secret"), None);
    assert_eq!(store.health(id).await.expect("health"), Health::unknown(id));
    assert_eq!(store.all_health().await.expect("all_health"), []);
    assert_eq!(store.paused().await.expect("paused"), []);
    assert_eq!(found(&store, MailboxQuery::default()).await, []);
    assert!(store.reserve().await.expect("reserve") > id, "a number was given again");
}

pub(super) async fn a_replacement_takes_over_every_link(subject: Subject) {
    let store = subject.store;
    let (old, new) = (add(&store, outbox("old.example")).await, add(&store, outbox("new.example")).await);
    let (old_in, new_in) = (add(&store, inbox("old.example")).await, add(&store, inbox("new.example")).await);
    let sender = add(&store, outbox_with_companion("mx.zeta.example", old_in)).await;
    save_contract(&store, &full_contract("ACME", old, old_in)).await;
    let mut both = Contract::new(contract_id("both")).with_inbox(old_in).with_inbox(new_in);
    both.allowed_outboxes = Some(vec![new, old]);
    save_contract(&store, &both).await;
    save_contract(&store, &Contract::new(contract_id("neither"))).await;
    save_step(&store, &full_step(old)).await;
    store.set_standard(&change(), Some(old)).await.expect("set_standard");
    store.remove(&change(), old, Some(new)).await.expect("remove an outbox");
    store.remove(&change(), old_in, Some(new_in)).await.expect("remove an inbox");

    let acme = store.contract(&contract_id("ACME")).await.expect("contract").expect("it is stored");
    let sender_kept = ContractOutbox::Specific { outbox: new, sender: Some(address("news@acme.example")) };
    assert_eq!(
        (acme.outbox, acme.inboxes, acme.allowed_outboxes),
        (sender_kept, vec![new_in], Some(vec![new]))
    );
    assert_eq!(acme.revision, Revision::new(3), "each of the two moves is a change");
    let both = store.contract(&both.id).await.expect("contract").expect("it is stored");
    assert_eq!((both.inboxes, both.allowed_outboxes), (vec![new_in], Some(vec![new])), "each once");
    let neither = store.contract(&contract_id("neither")).await.expect("contract").expect("it is stored");
    assert_eq!(neither.revision, Revision::new(1), "nothing moved there");
    let step = store.step(&full_step(old).key).await.expect("step").expect("it is stored");
    assert_eq!((step.outbox, step.revision), (StepOutbox::Specific(new), Revision::new(2)));
    assert_eq!(store.standard().await.expect("standard"), Some(new));
    let sender = stored(&store, sender).await;
    assert_eq!((companion(&sender.settings), sender.revision), (Some(new_in), Revision::new(2)));
    assert_eq!(store.mailbox(old).await.expect("mailbox"), None);
    let uses = store.uses(new).await.expect("uses");
    assert_eq!((uses.contracts.len(), uses.steps.len(), uses.standard), (2, 1, true));
    for subject in ["contract/ACME", "contract/both", "step/open%2Fclose/50%25", "standard"] {
        let entries = store.entries(Some(subject), EventNumber::new(0), 100).await.expect("entries");
        assert!(entries.len() >= 2, "the move of {subject} was not audited");
    }
}

pub(super) async fn a_sender_that_the_replacement_does_not_have_becomes_its_default(subject: Subject) {
    let store = subject.store;
    let old = add(&store, outbox("old.example")).await;
    let mut draft = outbox_draft("new.example");
    if let SettingsDraft::Outbox(outbox) = &mut draft.settings {
        outbox.senders.truncate(1);
    }
    let new = add(&store, draft.check().expect("valid settings")).await;
    let sender = Some(address("news@acme.example"));
    save_contract(&store, &Contract::new(contract_id("ACME")).with_outbox(old, sender)).await;
    store.remove(&change(), old, Some(new)).await.expect("remove");
    let acme = store.contract(&contract_id("ACME")).await.expect("contract").expect("it is stored");
    assert_eq!(acme.outbox, ContractOutbox::Specific { outbox: new, sender: None });
}

pub(super) async fn a_replacement_of_another_kind_or_the_mailbox_itself_is_a_conflict(subject: Subject) {
    let store = subject.store;
    let (out, r#in) =
        (add(&store, outbox("mx.acme.example")).await, add(&store, inbox("imap.acme.example")).await);
    for replacement in [out, r#in] {
        assert_eq!(kind(store.remove(&change(), out, Some(replacement)).await), ErrorKind::Conflict);
    }
    stored(&store, out).await;
}

pub(super) async fn a_mailbox_whose_mail_waits_is_not_removed_even_with_a_replacement(subject: Subject) {
    let store = subject.store;
    let (out, other) = (add(&store, outbox("mx.acme.example")).await, add(&store, outbox("b.example")).await);
    save_contract(&store, &Contract::new(contract_id("ACME")).with_outbox(out, None)).await;
    enqueue(&store, &prepared(&store, 1, "ACME").await).await.expect("enqueue");
    assert_eq!(kind(store.remove(&change(), out, Some(other)).await), ErrorKind::InUse);
    let acme = store.contract(&contract_id("ACME")).await.expect("contract").expect("it is stored");
    assert_eq!(
        acme.outbox,
        ContractOutbox::Specific { outbox: out, sender: None },
        "a refused removal moved a link"
    );
    let (r#in, other) =
        (add(&store, inbox("imap.acme.example")).await, add(&store, inbox("b.example")).await);
    store_one(&store, at(0), &received(1, &place(r#in, 1), 1, "bytes")).await.expect("store");
    assert_eq!(kind(store.remove(&change(), r#in, Some(other)).await), ErrorKind::InUse);
}

pub(super) async fn the_standard_outbox_is_a_registered_outbox(subject: Subject) {
    let store = subject.store;
    let (out, r#in) =
        (add(&store, outbox("mx.acme.example")).await, add(&store, inbox("imap.acme.example")).await);
    assert_eq!(store.standard().await.expect("standard"), None);
    for wrong in [r#in, NOBODY] {
        assert_eq!(kind(store.set_standard(&change(), Some(wrong)).await), ErrorKind::NotFound);
    }
    for outbox in [Some(out), None] {
        store.set_standard(&change(), outbox).await.expect("set_standard");
        assert_eq!(store.standard().await.expect("standard"), outbox);
    }
}

pub(super) async fn switches_stand_as_they_were_set(subject: Subject) {
    let store = subject.store;
    let mut scopes = vec![Scope::System, Scope::Outbox(MailboxId::new(3))];
    scopes.extend(["ACME", "acme", "acme "].map(|id| Scope::Contract(contract_id(id))));
    assert_eq!(store.paused().await.expect("paused"), []);
    for scope in scopes.iter().chain(&scopes) {
        store.set_switch(&change(), scope, Switch::Paused).await.expect("set_switch");
    }
    let mut paused = store.paused().await.expect("paused");
    paused.sort_unstable();
    scopes.sort_unstable();
    assert_eq!(paused, scopes);
    let entries = store.entries(None, EventNumber::new(0), 100).await.expect("entries");
    assert_eq!(entries.len(), scopes.len(), "a switch that stands so already is no change");
    for _ in 0..2 {
        store
            .set_switch(&change(), &Scope::Contract(contract_id("acme")), Switch::Running)
            .await
            .expect("set_switch");
    }
    let paused = store.paused().await.expect("paused");
    assert_eq!(paused.len(), scopes.len() - 1);
    assert!(!paused.contains(&Scope::Contract(contract_id("acme"))));
}

pub(super) async fn health_counts_failures_and_a_success_forgets_them(subject: Subject) {
    let store = subject.store;
    let id = add(&store, outbox("mx.acme.example")).await;
    let wait = Duration::from_secs(60);
    let fail = |error: &str| Sign::Failure { error: error.to_owned(), wait };
    assert_eq!(store.health(id).await.expect("health"), Health::unknown(id));
    store.record(at(1), id, &Sign::Success).await.expect("record");
    store.record(at(2), id, &fail("refused")).await.expect("record");
    store.record(at(3), id, &fail("timeout")).await.expect("record");
    let failing = Health {
        last_success: Some(at(1)),
        failures: 2,
        last_error: Some("timeout".to_owned()),
        failed_at: Some(at(3)),
        next_attempt: Some(at(63)),
        ..Health::unknown(id)
    };
    assert_eq!(store.health(id).await.expect("health"), failing);
    assert_eq!(store.all_health().await.expect("all_health").as_slice(), std::slice::from_ref(&failing));
    let sign = Sign::Suspended { error: "sign-in refused".to_owned() };
    store.record(at(4), id, &sign).await.expect("record");
    let suspended = Health {
        failures: 3,
        last_error: Some("sign-in refused".to_owned()),
        failed_at: Some(at(4)),
        next_attempt: None,
        suspended: true,
        ..failing
    };
    assert_eq!(store.health(id).await.expect("health"), suspended);
    store.clear(at(0), id).await.expect("clear");
    let cleared = Health { last_success: Some(at(1)), ..Health::unknown(id) };
    assert_eq!(store.health(id).await.expect("health"), cleared, "cleared");
    store.record(at(5), id, &fail("refused")).await.expect("record");
    store.record(at(120), id, &Sign::Success).await.expect("record");
    let well = Health { last_success: Some(at(120)), ..Health::unknown(id) };
    assert_eq!(store.health(id).await.expect("health"), well, "a success forgets failures");
    store.record(at(121), id, &sign).await.expect("record");
    store.record(at(122), id, &Sign::Success).await.expect("record");
    assert!(!store.health(id).await.expect("health").suspended, "a success lifts a suspension at once");
}

pub(super) async fn health_of_a_mailbox_that_is_gone_is_not_recorded(subject: Subject) {
    let store = subject.store;
    store.record(at(1), NOBODY, &Sign::Success).await.expect("record");
    store.clear(at(0), NOBODY).await.expect("clear");
    assert_eq!(store.all_health().await.expect("all_health"), []);
}

pub(super) async fn every_change_is_audited_in_order_and_without_secrets(subject: Subject) {
    const CANARY: &str = "canary-0123456789";
    let store = subject.store;
    let sealed = || Sealed::from_bytes(CANARY.as_bytes().to_vec());
    let id = store.reserve().await.expect("reserve");
    let by = Change::new(at(5), actor());
    store.add(&by, &mailbox(id, outbox("a.example")), Some(sealed())).await.expect("add");
    let mut read = stored(&store, id).await;
    read.settings = outbox("b.example");
    store.save(&by, &read, SecretWrite::Set(sealed())).await.expect("save");
    let refused = store.save(&by, &read, SecretWrite::Keep).await;
    assert_eq!(kind(refused), ErrorKind::Conflict);
    save_contract(&store, &Contract::new(contract_id("ACME")).with_outbox(id, None)).await;
    save_step(&store, &Step::new(step_key("F", "S"))).await;
    store.set_standard(&by, Some(id)).await.expect("set_standard");
    store.set_switch(&by, &Scope::Contract(contract_id("ACME")), Switch::Paused).await.expect("set_switch");
    let other = add(&store, outbox("c.example")).await;
    store.remove(&by, other, None).await.expect("remove");
    let entries = store.entries(None, EventNumber::new(0), 100).await.expect("entries");
    let said: Vec<_> = entries.iter().map(|entry| format!("{} {}", entry.action, entry.subject)).collect();
    let want = [
        format!("add mailbox/{id}"),
        format!("save mailbox/{id}"),
        "add contract/ACME".to_owned(),
        "add step/F/S".to_owned(),
        "set standard".to_owned(),
        "set pause/contract/ACME".to_owned(),
        format!("add mailbox/{other}"),
        format!("remove mailbox/{other}"),
    ];
    assert_eq!(said, want);
    assert!(entries.windows(2).all(|pair| pair[0].number < pair[1].number), "numbers grow");
    assert!(entries.iter().all(|entry| entry.actor == actor()));
    assert_eq!(entries[0].at, at(5));
    let save = &entries[1].changes;
    assert_eq!(save["server"], serde_json::json!({ "old": "a.example", "new": "b.example" }));
    assert_eq!(save["secret"], serde_json::json!("changed"));
    assert!(save.get("user").is_none(), "what did not change is not told");
    let text = serde_json::to_string(&entries).expect("entries are JSON");
    let bytes: Vec<String> = CANARY.bytes().map(|byte| byte.to_string()).collect();
    assert!(!text.contains(CANARY) && !text.contains(&bytes.join(",")), "an entry holds a secret");
}

pub(super) async fn the_audit_is_read_by_subject_and_by_pages(subject: Subject) {
    let store = subject.store;
    for _ in 0..3 {
        for id in ["ACME", "acme"] {
            save_contract(&store, &Contract::new(contract_id(id))).await;
        }
    }
    let mut after = EventNumber::new(0);
    let mut numbers = Vec::new();
    loop {
        let page = store.entries(None, after, 2).await.expect("entries");
        let Some(last) = page.last() else { break };
        after = last.number;
        numbers.extend(page.iter().map(|entry| entry.number));
        assert!(numbers.len() <= 6, "doubles: {numbers:?}");
    }
    assert_eq!(numbers.len(), 6);
    let acme = store.entries(Some("contract/acme"), EventNumber::new(0), 100).await.expect("entries");
    assert_eq!(acme.len(), 3);
    assert!(acme.iter().all(|entry| entry.subject == "contract/acme"));
}

pub(super) async fn the_first_writer_of_the_vault_wins(subject: Subject) {
    let store = subject.store;
    let sealed = |byte| Sealed::from_bytes(vec![byte; 40]);
    let key = Binding::new("token", "1");
    let (a, b) = tokio::join!(store.put_if_absent(&key, sealed(1)), store.put_if_absent(&key, sealed(2)));
    let (a, b) = (a.expect("put"), b.expect("put"));
    assert_eq!(a, b, "both must use the one that is stored");
    assert_eq!(store.put_if_absent(&key, sealed(3)).await.expect("put"), a);
    let second = Binding::new("token", "2");
    store.put_if_absent(&second, sealed(4)).await.expect("put");
    store.put_if_absent(&Binding::new("Token", "1"), sealed(5)).await.expect("put");
    let mut values = store.values("token").await.expect("values");
    values.sort_by(|one, other| one.0.field.cmp(&other.0.field));
    assert_eq!(values, [(key, a), (second, sealed(4))]);
    assert_eq!(store.values("tok").await.expect("values"), []);
}

pub(super) async fn a_value_of_the_vault_is_replaced_by_who_read_it_last(subject: Subject) {
    let store = subject.store;
    let sealed = |byte| Sealed::from_bytes(vec![byte; 40]);
    let key = Binding::new("oauth/7", "grant");
    assert!(!store.replace(&key, &sealed(0), Some(sealed(1))).await.expect("replace"), "there was none");
    store.put_if_absent(&key, sealed(1)).await.expect("put");
    let one = sealed(1);
    let replace = |to| store.replace(&key, &one, Some(to));
    let (a, b) = tokio::join!(replace(sealed(2)), replace(sealed(3)));
    let (a, b) = (a.expect("replace"), b.expect("replace"));
    assert!(a != b, "one of two has its way: {a} {b}");
    let stands = if a { sealed(2) } else { sealed(3) };
    assert_eq!(store.values("oauth/7").await.expect("values"), [(key.clone(), stands.clone())]);
    assert!(!store.replace(&key, &sealed(1), None).await.expect("replace"), "it is another one by now");
    assert!(store.replace(&key, &stands, None).await.expect("replace"));
    assert_eq!(store.values("oauth/7").await.expect("values"), []);
}

pub(super) async fn the_registry_survives_a_reopening(subject: Subject) {
    let store = &subject.store;
    let id = store.reserve().await.expect("reserve");
    let sealed = Sealed::from_bytes(vec![9; 40]);
    let given = mailbox(id, outbox("mx.acme.example"));
    store.add(&change(), &given, Some(sealed.clone())).await.expect("add");
    let unused = store.reserve().await.expect("reserve");
    save_contract(store, &Contract::new(contract_id("ACME")).with_outbox(id, None)).await;
    store.set_switch(&change(), &Scope::System, Switch::Paused).await.expect("set_switch");
    let store = subject.restarted().await;
    assert_eq!(stored(&store, id).await, given);
    assert_eq!(store.secret(id).await.expect("secret"), Some(sealed));
    assert!(store.contract(&contract_id("ACME")).await.expect("contract").is_some());
    assert_eq!(store.paused().await.expect("paused"), [Scope::System]);
    assert!(store.reserve().await.expect("reserve") > unused, "a reserved number was given again");
}
