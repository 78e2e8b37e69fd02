//! `postroom run`: the worker on the command line, its signals, and what it tells while it works and at its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::ProgressBar;
use postroom::Options as EngineOptions;
use postroom::core::{ledger, queue};
use postroom::engine::{Event, MessageHandler, Observer, Work};
use serde_json::{Map, Value};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::deliver::Folder;
use crate::failure::{Failure, Result};
use crate::output::note;
use crate::session::Shared;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// End when queue and boxes have nothing due and no worker's claim is open. What waits for a later try stays for later.
    #[arg(long)]
    until_idle: bool,
    /// Write each received mail to a folder, durably, as ID.eml (the raw bytes) and ID.json. Without it received mail stays
    /// stored.
    #[arg(long, value_name = "DIR")]
    deliver_to: Option<PathBuf>,
    /// Do a part of the work.
    #[arg(long)]
    only: Option<Part>,
    /// How long a worker holds what it claimed without renewing.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease: Option<u64>,
    /// Tell on stderr everything that happens, not only failures.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Send,
    Receive,
}

impl Options {
    pub(crate) async fn perform(&self, shared: &Shared) -> Result<()> {
        let output = shared.output();
        let handler = match &self.deliver_to {
            Some(path) => Some(Arc::new(Folder::open(path)?) as Arc<dyn MessageHandler>),
            None => None,
        };
        let teller = Arc::new(Teller::new(output.spinner(), self.verbose));
        let mut options = EngineOptions::default();
        if let Some(seconds) = self.lease {
            options.lease = Duration::from_secs(seconds);
        }
        let observer = Arc::clone(&teller);
        let session = shared
            .open_with(|builder| {
                let builder = builder.with_observer(observer).with_options(options);
                handler.into_iter().fold(builder, |builder, handler| builder.with_handler(handler))
            })
            .await?;
        let mut signals = Signals::listen()?;
        let mut again = Signals::listen()?;
        let stop = async {
            signals.next().await;
            note("stopping: what is in hand is finished first; a second signal ends it at once");
        };
        let ended = tokio::select! {
            ended = session.postroom.run_with(self.work(), stop) => ended,
            // Each listener hears every signal.
            () = async { again.next().await; again.next().await } => Ok(()),
        };
        teller.line.finish_and_clear();
        session.close().await;
        ended?;
        let counts = teller.counts();
        output.document(&counts, || summary(&counts))
    }

    fn work(&self) -> Work {
        let work = match self.only {
            None => Work::all(),
            Some(Part::Send) => Work::all().only_sending(),
            Some(Part::Receive) => Work::all().only_receiving(),
        };
        if self.until_idle { work.until_idle() } else { work }
    }
}

/// The two signals that ask for an end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let failed = |error: std::io::Error| Failure::unreachable("system", format!("no signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Counts what happens, and tells it.
struct Teller {
    line: ProgressBar,
    verbose: bool,
    accepted: AtomicU64,
    refused: AtomicU64,
    deferred: AtomicU64,
    in_doubt: AtomicU64,
    stored: AtomicU64,
    handled: AtomicU64,
    dead: AtomicU64,
    failures: AtomicU64,
}

impl Teller {
    fn new(line: ProgressBar, verbose: bool) -> Self {
        let zero = AtomicU64::default;
        Self {
            line,
            verbose,
            accepted: zero(),
            refused: zero(),
            deferred: zero(),
            in_doubt: zero(),
            stored: zero(),
            handled: zero(),
            dead: zero(),
            failures: zero(),
        }
    }

    fn counters(&self) -> [(&'static str, &AtomicU64); 8] {
        [
            ("accepted", &self.accepted),
            ("refused", &self.refused),
            ("deferred", &self.deferred),
            ("in_doubt", &self.in_doubt),
            ("stored", &self.stored),
            ("handled", &self.handled),
            ("dead", &self.dead),
            ("failures", &self.failures),
        ]
    }

    fn counts(&self) -> Value {
        let counts =
            self.counters().map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed).into()));
        Value::Object(Map::from_iter(counts))
    }
}

fn summary(counts: &Value) -> String {
    let words = counts.as_object().into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
    let words: Vec<String> =
        words.map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    if words.is_empty() { "nothing happened".into() } else { words.join(", ") }
}

impl Observer for Teller {
    fn observe(&self, event: &Event) {
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let mut bad = false;
        match event {
            Event::Sent { results, .. } => {
                for result in results {
                    match result {
                        queue::Event::Accept => add(&self.accepted),
                        queue::Event::Refuse => add(&self.refused),
                        queue::Event::Defer => add(&self.deferred),
                        queue::Event::Doubt => add(&self.in_doubt),
                        queue::Event::Die => add(&self.dead),
                        _ => {}
                    }
                    bad |= matches!(result, queue::Event::Refuse | queue::Event::Doubt | queue::Event::Die);
                }
            }
            Event::Stored { .. } => add(&self.stored),
            Event::Handled { event: ledger::Event::Handle, .. } => add(&self.handled),
            Event::Handled { event: ledger::Event::Die, .. } => {
                add(&self.dead);
                bad = true;
            }
            Event::Failed { .. }
            | Event::Withheld { .. }
            | Event::Unanswered { .. }
            | Event::StoreFailed { .. } => {
                add(&self.failures);
                bad = true;
            }
            _ => {}
        }
        if bad || self.verbose {
            self.line.suspend(|| note(&event.to_string()));
        }
        if !self.line.is_hidden() {
            self.line.set_message(summary(&self.counts()));
            self.line.tick();
        }
    }
}
