//! Tells the journey as it happens: the observer of the desk's postroom, and the voice of everything else. It decides nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use postroom::core::id::MailboxId;
use postroom::engine::{Event, Observer};
use tokio::time::Instant;

/// Prints each line with the time since the start.
#[derive(Debug)]
pub(crate) struct Narrator {
    start: Instant,
    boxes: Mutex<HashMap<MailboxId, String>>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), boxes: Mutex::default() }
    }

    /// From now on this mailbox is called by its description.
    pub(crate) fn call(&self, id: MailboxId, description: &str) {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, description.to_owned());
    }

    pub(crate) fn name(&self, id: MailboxId) -> String {
        let boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
        boxes.get(&id).map_or_else(|| format!("box {id}"), |name| format!("{name} (box {id})"))
    }

    pub(crate) fn chapter(&self, title: &str) {
        println!("\n{title}");
    }

    pub(crate) fn say(&self, who: &str, line: impl AsRef<str>) {
        println!("{:7.3} s  {who:<9} {}", self.start.elapsed().as_secs_f64(), line.as_ref());
    }
}

impl Observer for Narrator {
    fn observe(&self, event: &Event) {
        let line = match event {
            Event::Queued { id, outbox } => format!("mail {id} is in the queue of {}", self.name(*outbox)),
            Event::Sent { id, outbox, results } => {
                let results: Vec<String> = results.iter().map(ToString::to_string).collect();
                format!("mail {id} by {}: {}", self.name(*outbox), results.join(", "))
            }
            Event::Stored { id, mailbox, contract, state } => {
                let contract = contract.as_ref().map_or("no contract".to_owned(), ToString::to_string);
                format!("mail {id} from {}: {state}, for {contract}", self.name(*mailbox))
            }
            Event::Failed { mailbox, error, .. } => format!("{} failed: {error}", self.name(*mailbox)),
            other => other.to_string(),
        };
        self.say("postroom", line);
    }
}
