//! What an audit entry says: the subject's name and the changed fields, old and new. A secret appears as changed, never
//! with a value. The port to the entries is in `registry`.

use postroom_core::address::Address;
use postroom_core::contract::Contract;
use postroom_core::id::{ContractId, MailboxId, StepKey};
use postroom_core::mailbox::{Mailbox, MailboxDraft};
use postroom_core::step::Step;
use postroom_core::suppression::Suppression;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::forget::Forgotten;
use crate::registry::{Scope, SecretWrite, Switch};

/// `mailbox/7`.
#[must_use]
pub fn mailbox_subject(id: MailboxId) -> String {
    format!("mailbox/{id}")
}

/// `contract/ACME`.
#[must_use]
pub fn contract_subject(id: &ContractId) -> String {
    format!("contract/{id}")
}

/// `step/FLOW/STEP`.
#[must_use]
pub fn step_subject(key: &StepKey) -> String {
    format!("step/{key}")
}

/// The subject of the standard outbox.
pub const STANDARD_SUBJECT: &str = "standard";

/// `pause/system`, `pause/contract/ACME`, `pause/outbox/7`.
#[must_use]
pub fn switch_subject(scope: &Scope) -> String {
    match scope {
        Scope::System => "pause/system".to_owned(),
        Scope::Contract(id) => format!("pause/contract/{id}"),
        Scope::Outbox(id) => format!("pause/outbox/{id}"),
    }
}

/// `suppression/ACME/ana@client.example`.
#[must_use]
pub fn suppression_subject(contract: &ContractId, address: &Address) -> String {
    format!("suppression/{contract}/{address}")
}

/// The changes of an entry of a suppression list.
#[must_use]
pub fn suppression_changes(old: Option<&Suppression>, new: Option<&Suppression>) -> Value {
    let fields = |entry| fields(entry, &["contract", "address"]);
    Value::Object(changes(old.map(fields), Some(new.map(fields).unwrap_or_default())))
}

/// The changes of a mailbox that is added, saved or removed, and whether its secret is touched.
#[must_use]
pub fn mailbox_changes(old: Option<&Mailbox>, new: Option<&Mailbox>, secret: &SecretWrite) -> Value {
    let fields = |mailbox: &Mailbox| {
        let mut fields = fields(&MailboxDraft::from(&mailbox.settings), &[]);
        fields.insert("status".to_owned(), json!(mailbox.status));
        fields
    };
    let mut changes = changes(old.map(fields), new.map(fields));
    if !matches!(secret, SecretWrite::Keep) {
        changes.insert("secret".to_owned(), json!("changed"));
    }
    Value::Object(changes)
}

/// The changes of a contract.
#[must_use]
pub fn contract_changes(old: Option<&Contract>, new: &Contract) -> Value {
    let fields = |contract| fields(contract, &["id", "revision"]);
    Value::Object(changes(old.map(fields), Some(fields(new))))
}

/// The changes of a step.
#[must_use]
pub fn step_changes(old: Option<&Step>, new: &Step) -> Value {
    let fields = |step| fields(step, &["key", "revision"]);
    Value::Object(changes(old.map(fields), Some(fields(new))))
}

/// What was removed of a forgotten contract.
#[must_use]
pub fn forgotten_changes(forgotten: &Forgotten) -> Value {
    json!(forgotten)
}

/// The change of the standard outbox.
#[must_use]
pub fn standard_changes(old: Option<MailboxId>, new: Option<MailboxId>) -> Value {
    json!({ "outbox": { "old": old, "new": new } })
}

/// The change of a switch.
#[must_use]
pub fn switch_changes(to: Switch) -> Value {
    let paused = to == Switch::Paused;
    json!({ "paused": { "old": !paused, "new": paused } })
}

fn fields(row: &impl Serialize, without: &[&str]) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(row) else { return Map::new() };
    fields.retain(|name, _| !without.contains(&name.as_str()));
    fields
}

/// Each field that differs, as `{"old": .., "new": ..}`; an absent one is null.
fn changes(old: Option<Map<String, Value>>, new: Option<Map<String, Value>>) -> Map<String, Value> {
    let (old, mut new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let mut changes = Map::new();
    for (name, old) in old {
        let new = new.remove(&name).unwrap_or(Value::Null);
        if old != new {
            changes.insert(name, json!({ "old": old, "new": new }));
        }
    }
    for (name, new) in new.into_iter().filter(|(_, new)| !new.is_null()) {
        changes.insert(name, json!({ "old": null, "new": new }));
    }
    changes
}
