//! The registry whose inboxes are watched, in a SQLite file. It is filled by another process: what filling costs is no part of what
//! watching costs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId, MailboxId};
use postroom_core::mailbox::{InboxDraft, MailboxDraft, SettingsDraft, Status};
use postroom_core::secret::{SecretChange, SecretString};
use postroom_engine::{Builder, Postroom};
use postroom_storage::SqliteStore;
use postroom_storage::keyring::aead::AeadKeyring;

use super::Arguments;
use super::server::{PASSWORD, Server, login};

/// How many inboxes a contract has.
const OF_A_CONTRACT: usize = 10;

/// How many are registered at the same time.
const AT_ONCE: usize = 16;

/// Has another process register the server's boxes.
pub(crate) fn fill(arguments: &Arguments, server: &Server, file: &Path, key: &str) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(format!("--fill={}", file.display())).arg(format!("--key={key}"));
    command.arg(format!("--boxes={}", arguments.boxes));
    command.args(arguments.tls.then_some("--tls"));
    let port = server.ports[usize::from(arguments.tls)];
    command.arg(format!("--port={port}")).arg(format!("--authority={}", server.authority));
    assert!(command.status().expect("it runs").success(), "the registry is filled");
}

/// A postroom over the file, its ports still to be given.
pub(crate) async fn open(file: &str, key: &str) -> Builder {
    let store = SqliteStore::open(file).await.expect("a store");
    Postroom::builder(Arc::new(store)).with_keyring(Arc::new(AeadKeyring::parse(key).expect("a key")))
}

/// What the other process does.
pub(crate) async fn register(arguments: &Arguments, file: &str) {
    let postroom = open(file, &arguments.key).await.build();
    let actor = Actor::parse("bench").expect("an actor");
    let registered =
        stream::iter(0..arguments.boxes).map(|number| inbox(&postroom, &actor, arguments, number));
    let ids: Vec<MailboxId> = registered.buffer_unordered(AT_ONCE).collect().await;
    for (number, own) in ids.chunks(OF_A_CONTRACT).enumerate() {
        let contract = Contract::new(ContractId::parse(&format!("C{number}")).expect("an id"));
        let contract = own.iter().fold(contract, |contract, id| contract.with_inbox(*id));
        postroom.save_contract(&actor, &contract).await.expect("a contract");
    }
}

async fn inbox(postroom: &Postroom, actor: &Actor, arguments: &Arguments, number: usize) -> MailboxId {
    let form = SettingsDraft::Inbox(InboxDraft {
        provider: if arguments.tls { "imaps" } else { "imap" }.to_owned(),
        user: login(number),
        ..InboxDraft::default()
    });
    let form = MailboxDraft {
        port: Some(arguments.port.into()),
        authority: arguments.tls.then(|| arguments.authority.clone()),
        danger_plaintext: !arguments.tls,
        ..MailboxDraft::new(format!("Box {number}"), "127.0.0.1", form)
    };
    let secret = SecretChange::Set(SecretString::from(PASSWORD));
    postroom.register(actor, &form, secret, Status::Active).await.expect("an inbox").id
}
