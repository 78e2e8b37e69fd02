//! The main job, end to end: three contracts with mailboxes of their own, a standard outbox, and a flow step with a specific one.
//! A customer of each contract writes; each mail becomes a ticket of the right contract; the answer leaves by the right outbox as
//! the right sender; the reply is found in the ticket's thread. Without arguments everything runs in this process, and nothing has
//! to be installed. This file is the order of events; the host is in `desk`, the checks are in `proof`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that tells what it does")]

mod customers;
mod desk;
mod journey;
mod loopback;
mod narrator;
mod proof;
mod register;
mod site;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId};
use postroom::core::mailbox::Status;
use postroom::engine::{Options, Work};
use postroom::storage::Store;
use postroom::storage::keyring::Keyring;
use postroom::storage::keyring::aead::{AeadKeyring, Key};
use postroom::storage::memory::MemoryStore;
use postroom::storage::sql::sqlite::SqliteStore;
use postroom::transport::by_protocol::ByProtocol;
use postroom::transport::smtp::SmtpTransport;
use postroom::{Builder, Postroom};
use tokio::sync::watch;

use customers::{Correspondents, Customers, Pigeonhole, Sorter};
use desk::{Desk, FrontDoor, Staff};
use journey::{Journey, Trip};
use loopback::Servers;
use narrator::Narrator;
use proof::Proof;
use register::{Registry, register};
use site::Site;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Three contracts, their mailboxes, and a service desk.
#[derive(Debug, Parser)]
struct Arguments {
    /// Real servers to use instead of those in this process: TOML or JSON, like examples/service_desk/real.example.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().config.as_deref()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Goes through everything; gives whether every fact holds.
async fn run(config: Option<&Path>) -> Outcome<bool> {
    let narrator = Arc::new(Narrator::new());
    let servers = match config {
        Some(_) => None,
        None => Some(Arc::new(Servers::start().await?)),
    };
    let (site, patience, poll) = match (config, &servers) {
        (Some(file), _) => (Site::read(file)?, Duration::from_secs(180), Duration::from_secs(3)),
        (None, Some(servers)) => (servers.site(), Duration::from_secs(20), Duration::from_millis(100)),
        (None, None) => return Err("there are neither servers nor a file that names them".into()),
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("desk.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&format!("sqlite://{}", file.display())).await?);
    // One key for both handles: what one seals, the other opens.
    let keyring: Arc<dyn Keyring> = Arc::new(AeadKeyring::new(Key::generate("desk")?));
    let open = || {
        postroom_over(Arc::clone(&store), Arc::clone(&keyring), poll)
            .with_recipients(Arc::new(Staff))
            .with_observer(Arc::clone(&narrator) as _)
    };

    narrator.chapter("The mailboxes are tried and registered, and linked to contracts and step");
    let office = open().build();
    let mut registry = register(&office, &site, &narrator).await?;
    let addresses =
        registry.clients.iter().map(|client| (client.contract.clone(), client.address.clone())).collect();
    let desk = Arc::new(Desk::new(office.clone(), addresses, registry.step.clone(), Arc::clone(&narrator)));
    let worker = open().with_handler(Arc::new(FrontDoor(Arc::clone(&desk)))).build();
    let customers = match &servers {
        Some(servers) => Customers::Loopback(Arc::clone(servers)),
        None => Customers::Real(correspondents(&site, &mut registry, poll).await?),
    };
    // The boxes' baseline is "new": what lies there before this first round is left alone.
    worker.run_with(Work::all().until_idle(), std::future::pending()).await?;

    let journey =
        Journey { office: &office, desk: &desk, customers: &customers, narrator: &narrator, patience };
    let trips = while_working(&worker, &customers, journey.travel(&registry.clients)).await?;
    // What the workers have not sent yet goes out now.
    worker.run_with(Work::all().only_sending().until_idle(), std::future::pending()).await?;

    let mut proof = Proof::default();
    proof::of_rows(&mut proof, &office, &registry, &trips).await?;
    match &servers {
        Some(servers) => proof::of_servers(&mut proof, servers, &registry, &trips),
        None => proof.skipped.push(
            "the servers' own records (login, TLS, envelope) can be read of servers in this process only"
                .to_owned(),
        ),
    }
    narrator.chapter("What became of it");
    println!("{}", table(&registry, &trips, &narrator));
    Ok(verdict(&proof))
}

/// The same ports for every handle: SMTP, IMAP and POP3 over a store.
fn postroom_over(store: Arc<dyn Store>, keyring: Arc<dyn Keyring>, poll: Duration) -> Builder {
    Postroom::builder(store)
        .with_keyring(keyring)
        .with_outgoing(Arc::new(SmtpTransport::new()))
        .with_incoming(Arc::new(ByProtocol::new()))
        .with_options(Options { poll, look: poll, ..Options::default() })
}

/// Runs the workers for as long as `travel` takes.
async fn while_working<T>(
    worker: &Postroom,
    customers: &Customers,
    travel: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let (stop, stopped) = watch::channel(false);
    let until_stopped = || {
        let mut stopped = stopped.clone();
        async move { drop(stopped.wait_for(|stopped| *stopped).await) }
    };
    let mail_programs = async {
        match customers {
            Customers::Loopback(_) => Ok(()),
            Customers::Real(correspondents) => correspondents.postroom.run(until_stopped()).await,
        }
    };
    let travel = async {
        let travelled = travel.await;
        stop.send_replace(true);
        travelled
    };
    let (worked, read, travelled) = tokio::join!(worker.run(until_stopped()), mail_programs, travel);
    worked?;
    read?;
    travelled
}

/// The customers' mail programs, for those whose mailboxes are configured.
async fn correspondents(site: &Site, registry: &mut Registry, poll: Duration) -> Outcome<Correspondents> {
    let read = Arc::new(Pigeonhole::default());
    let postroom = postroom_over(
        Arc::new(MemoryStore::new()),
        Arc::new(AeadKeyring::new(Key::generate("customers")?)),
        poll,
    )
    .with_handler(Arc::new(Sorter(Arc::clone(&read))))
    .build();
    let actor = Actor::parse("customer")?;
    for (client, registered) in site.contracts.iter().zip(&mut registry.clients) {
        let (Some(outbox), Some(inbox)) = (&client.customer.outbox, &client.customer.inbox) else {
            registered.customer_writes = false;
            continue;
        };
        let outbox = postroom.register(&actor, &outbox.form, outbox.secret()?, Status::Active).await?;
        let inbox = postroom.register(&actor, &inbox.form, inbox.secret()?, Status::Active).await?;
        let contract =
            Contract::new(ContractId::parse(&client.id)?).with_outbox(outbox.id, None).with_inbox(inbox.id);
        postroom.save_contract(&actor, &contract).await?;
    }
    postroom.run_with(Work::all().until_idle(), std::future::pending()).await?;
    Ok(Correspondents { postroom, read })
}

fn table(registry: &Registry, trips: &[Trip], narrator: &Narrator) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "contract",
        "request",
        "came in by",
        "answered by",
        "as",
        "because of",
        "notice by",
        "reply",
    ]);
    for (client, trip) in registry.clients.iter().zip(trips) {
        let ticket = trip.ticket.as_ref();
        let answer = ticket.and_then(|ticket| ticket.answer.as_ref());
        let notice = ticket.and_then(|ticket| ticket.notice.as_ref());
        let missing = || "-".to_owned();
        let filed = ticket.is_some_and(|ticket| {
            ticket.thread.iter().any(|entry| trip.reply.is_some() && entry.message_id == trip.reply)
        });
        let reasons = |mail: &postroom::engine::Submitted| {
            mail.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let provider =
            client.inbox.settings.inbox().map_or_else(missing, |inbox| inbox.provider().to_string());
        table.add_row([
            client.contract.to_string(),
            ticket.map_or_else(missing, |ticket| ticket.number.to_string()),
            provider,
            answer.map_or_else(missing, |mail| narrator.name(mail.outbox)),
            answer.map_or_else(missing, |mail| mail.sender.address().to_string()),
            answer.map_or_else(missing, reasons),
            notice.map_or_else(missing, |mail| narrator.name(mail.outbox)),
            if filed { "in the ticket".to_owned() } else { missing() },
        ]);
    }
    table
}

fn verdict(proof: &Proof) -> bool {
    for missing in &proof.missing {
        println!("MISSING  {missing}");
    }
    for skipped in &proof.skipped {
        println!("skipped  {skipped}");
    }
    let all = proof.held + proof.missing.len();
    println!("{} of {all} facts hold, {} skipped", proof.held, proof.skipped.len());
    // A journey that nobody made proves nothing.
    proof.missing.is_empty() && proof.held > 0
}
