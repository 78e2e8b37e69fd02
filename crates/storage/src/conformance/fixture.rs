//! Rows and mails that the cases are made of.

use std::sync::Arc;

use bytes::Bytes;
use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{
    Actor, ContractId, FlowId, IdempotencyKey, LedgerId, MailboxId, QueueId, Revision, StepId, StepKey,
    WorkerId,
};
use postroom_core::ledger::{Place, RemoteKey, State as LedgerState};
use postroom_core::mailbox::{
    InboxDraft, Mailbox, MailboxDraft, MailboxSettings, OutboxDraft, SettingsDraft, Status,
};
use postroom_core::message::{OnDoubt, OnSuppressed, Priority, Submission};
use postroom_core::queue::{Basis, Prepared, Recipient, Role};
use postroom_core::resolve::{Question, WhenUnavailable, resolve};
use postroom_core::step::Step;
use postroom_core::time::Timestamp;

use crate::Store;
use crate::error::{ErrorKind, Result};
use crate::ledger::{LeftOut, RawMail, Received, Recognition, Stored};
use crate::queue::Enqueued;
use crate::registry::Change;

/// The beginning of time in the cases, noon of a day, and `seconds` later.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_800_014_400_000 + seconds * 1000)
}

pub(super) fn change() -> Change {
    Change::new(at(0), actor())
}

pub(super) fn actor() -> Actor {
    Actor::parse("ana").expect("a valid actor")
}

pub(super) fn contract_id(text: &str) -> ContractId {
    ContractId::parse(text).expect("a valid id")
}

pub(super) fn step_key(flow: &str, step: &str) -> StepKey {
    let flow = FlowId::parse(flow).expect("a valid id");
    StepKey::new(flow, StepId::parse(step).expect("a valid id"))
}

pub(super) fn address(text: &str) -> Address {
    Address::parse(text).expect("a valid address")
}

pub(super) fn worker(number: u8) -> WorkerId {
    WorkerId::new(at(0), [number; 10])
}

/// Outbox settings on `server`, with two senders.
pub(super) fn outbox_draft(server: &str) -> MailboxDraft {
    MailboxDraft {
        description: format!("Out by {server}"),
        server: server.to_owned(),
        port: None,
        authority: None,
        max_message: None,
        danger_plaintext: false,
        settings: SettingsDraft::Outbox(OutboxDraft {
            tls: "starttls".to_owned(),
            auth: "password".to_owned(),
            user: Some("desk".to_owned()),
            senders: vec!["Desk <desk@acme.example>".to_owned(), "news@acme.example".to_owned()],
            ..OutboxDraft::default()
        }),
    }
}

pub(super) fn outbox(server: &str) -> MailboxSettings {
    outbox_draft(server).check().expect("valid settings")
}

pub(super) fn inbox(server: &str) -> MailboxSettings {
    let draft = MailboxDraft {
        description: format!("In by {server}"),
        settings: SettingsDraft::Inbox(InboxDraft {
            provider: "imaps".to_owned(),
            user: "desk".to_owned(),
            folder: Some("Clientes São Paulo".to_owned()),
            ..InboxDraft::default()
        }),
        ..outbox_draft(server)
    };
    draft.check().expect("valid settings")
}

/// An outbox on `server` that sends to `companion` what comes back.
pub(super) fn outbox_with_companion(server: &str, companion: MailboxId) -> MailboxSettings {
    let mut draft = outbox_draft(server);
    if let SettingsDraft::Outbox(outbox) = &mut draft.settings {
        outbox.companion = Some(companion);
    }
    draft.check().expect("valid settings")
}

pub(super) fn mailbox(id: MailboxId, settings: MailboxSettings) -> Mailbox {
    Mailbox::new(id, settings, Status::Active, Revision::new(1), actor(), at(0))
}

/// Registers an active mailbox.
pub(super) async fn add(store: &Arc<dyn Store>, settings: MailboxSettings) -> MailboxId {
    let id = store.reserve().await.expect("reserve");
    store.add(&change(), &mailbox(id, settings), None).await.expect("add");
    id
}

/// Saves a contract by its stored revision.
pub(super) async fn save_contract(store: &Arc<dyn Store>, contract: &Contract) -> Revision {
    let mut contract = contract.clone();
    let stored = store.contract(&contract.id).await.expect("contract");
    contract.revision = stored.map_or(Revision::new(0), |stored| stored.revision);
    store.save_contract(&change(), &contract).await.expect("save a contract")
}

/// Saves a step by its stored revision.
pub(super) async fn save_step(store: &Arc<dyn Store>, step: &Step) -> Revision {
    let mut step = step.clone();
    let stored = store.step(&step.key).await.expect("step");
    step.revision = stored.map_or(Revision::new(0), |stored| stored.revision);
    store.save_step(&change(), &step).await.expect("save a step")
}

pub(super) fn queue_id(number: u32) -> QueueId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    QueueId::new(at(0), random)
}

pub(super) fn ledger_id(number: u32) -> LedgerId {
    LedgerId::from_uuid(queue_id(number).uuid())
}

/// A mail number `number` of a contract to `a@client.example`, resolved by what is stored.
pub(super) async fn prepared(store: &Arc<dyn Store>, number: u32, contract: &str) -> Prepared {
    prepared_for(store, number, contract, None, WhenUnavailable::Refuse).await
}

/// The same with a step, and with what to do when the outbox can't be used.
pub(super) async fn prepared_for(
    store: &Arc<dyn Store>,
    number: u32,
    contract: &str,
    step: Option<StepKey>,
    when_unavailable: WhenUnavailable,
) -> Prepared {
    let contract = contract_id(contract);
    let links = store.contract(&contract).await.expect("contract");
    let row = match &step {
        Some(key) => store.step(key).await.expect("step"),
        None => None,
    };
    let mailboxes = store.search(&Default::default()).await.expect("search");
    let resolution = resolve(&Question {
        contract: links.as_ref(),
        step: row.as_ref(),
        standard: store.standard().await.expect("standard"),
        sender: None,
        when_unavailable,
        mailbox: &|id| mailboxes.iter().find(|mailbox| mailbox.id == id),
    });
    let resolution = resolution.expect("the case links an outbox");
    Prepared {
        id: queue_id(number),
        basis: Basis::new(
            resolution.revision,
            links.map(|contract| contract.revision),
            row.map(|step| step.revision),
        ),
        contract,
        step,
        resolution,
        message_id: format!("<{number}@acme.example>"),
        subject: format!("Mail {number}"),
        return_path: Some(address("desk@acme.example")),
        recipients: vec![Recipient::new(address("a@client.example"), Role::To)],
        raw: false,
        record: None,
        in_reply_to: None,
        priority: Priority::Normal,
        not_before: None,
        expires_at: at(5 * 24 * 3600),
        on_doubt: OnDoubt::Hold,
        on_suppressed: OnSuppressed::Refuse,
        automatic: None,
        idempotency: None,
    }
}

/// Gives a mail the idempotency key `key` with the fingerprint of `submission`.
pub(super) fn keyed(mut mail: Prepared, key: &str, submission: &Submission) -> Prepared {
    let key = IdempotencyKey::parse(key).expect("a valid key");
    mail.idempotency = Some((key, submission.fingerprint()));
    mail
}

/// Recipients `0@client.example` and so on.
pub(super) fn to_many(mut mail: Prepared, recipients: u32) -> Prepared {
    let recipient = |n| Recipient::new(address(&format!("{n}@client.example")), Role::To);
    mail.recipients = (0..recipients).map(recipient).collect();
    mail
}

pub(super) async fn enqueue(store: &Arc<dyn Store>, mail: &Prepared) -> Result<Enqueued> {
    store.enqueue(at(0), mail, content(mail)).await
}

pub(super) fn content(mail: &Prepared) -> Bytes {
    Bytes::from(format!("Subject: {}\r\n\r\nHello\r\n", mail.subject))
}

pub(super) fn place(mailbox: MailboxId, epoch: u64) -> Place {
    Place { mailbox, folder: "Clientes São Paulo".to_owned(), epoch }
}

/// A received mail with UID `uid`, whose bytes are told apart by `bytes`. No two arrive at the same moment.
pub(super) fn received(number: u32, place: &Place, uid: u32, bytes: &str) -> Received {
    let mut sha256 = [0; 32];
    let length = bytes.len().min(32);
    sha256[..length].copy_from_slice(&bytes.as_bytes()[..length]);
    Received {
        id: ledger_id(number),
        place: place.clone(),
        key: RemoteKey::Uid(uid),
        sha256,
        size: u64::try_from(bytes.len()).expect("a short text"),
        arrived: Some(at(-60 - i64::from(number))),
        state: LedgerState::Stored,
        contract: Some(contract_id("ACME")),
        reasons: vec!["box".to_owned()],
        record: None,
        message_id: Some(format!("<{number}@client.example>")),
        sender: "A Client <a@client.example>".to_owned(),
        subject: format!("Mail {number}"),
        settle_at: None,
        recognition: Recognition::OtherEpoch,
        raw: RawMail::Whole(Bytes::copy_from_slice(bytes.as_bytes())),
    }
}

/// What a baseline leaves out that goes back to `until`, by the settings that the inbox has.
pub(super) async fn left_out(
    store: &Arc<dyn Store>,
    place: &Place,
    until: Timestamp,
    keys: Vec<RemoteKey>,
) -> LeftOut {
    let mailbox = store.mailbox(place.mailbox).await.expect("mailbox").expect("it is registered");
    LeftOut { revision: mailbox.revision, until, has_undated: false, up_to: 0, keys }
}

/// Stores one mail in a call of its own.
pub(super) async fn store_one(store: &Arc<dyn Store>, now: Timestamp, mail: &Received) -> Result<Stored> {
    Ok(store.store(now, std::slice::from_ref(mail)).await?.remove(0))
}

/// The kind of an error that has to be one.
pub(super) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("an error is due").kind().clone()
}
