//! The names of things: numbers and UUIDs that postroom gives, and texts that the host brings.

use std::fmt;

use uuid::Uuid;

use crate::rules::{self, Rule};
use crate::text::text_form;
use crate::time::Timestamp;
use crate::violation::{Invalid, shown};

/// The greatest length of a host's id, in bytes.
pub const HOST_ID_LIMIT: usize = 200;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(i64);

        impl $name {
            /// The number as it stands in a row.
            #[must_use]
            pub const fn new(number: i64) -> Self {
                Self(number)
            }

            /// The number.
            #[must_use]
            pub const fn number(self) -> i64 {
                self.0
            }

            /// Reads the decimal form.
            ///
            /// # Errors
            /// [`rules::NUMBER`] when the text is no whole number from 0.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                match text.trim().parse() {
                    Ok(number) if number >= 0 => Ok(Self(number)),
                    _ => Err(Invalid::new(&rules::NUMBER).with("value", shown(text))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        text_form!($name);
    )+};
}

numbers! {
    /// A mailbox, of either kind: a sequential number, shown to people.
    MailboxId,
    /// How often a registry row has been changed; a stale one is refused (optimistic concurrency).
    Revision,
    /// The place of an event in the store's sequence.
    EventNumber,
}

macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, UUID version 7 (RFC 9562 section 5.7): it sorts by `now`, `random` makes it unique.
            #[must_use]
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// When it was made, by the clock of whoever made it.
            #[must_use]
            pub fn made_at(self) -> Timestamp {
                let (secs, nanos) = self.0.get_timestamp().map_or((0, 0), |time| time.to_unix());
                let millis = i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000);
                Timestamp::from_millis(millis.saturating_add(i64::from(nanos / 1_000_000)))
            }

            /// The id that a row holds.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// Reads the hyphenated form.
            ///
            /// # Errors
            /// [`rules::UUID`] when the text is none.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text.trim())
                    .map(Self)
                    .map_err(|_| Invalid::new(&rules::UUID).with("value", shown(text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        text_form!($name);
    )+};
}

uuids! {
    /// A submitted mail in the queue.
    QueueId,
    /// A received mail in the ledger.
    LedgerId,
    /// One claim of a queue or ledger row, the fence of every write that settles it.
    ClaimId,
    /// The content of a mail in the store.
    BodyId,
    /// A running worker.
    WorkerId,
}

macro_rules! host_ids {
    ($($(#[$doc:meta])* $name:ident => $rule:expr),+ $(,)?) => {$(
        $(#[$doc])*
        ///
        /// Any text of 1 to 200 bytes without control characters, compared byte by byte: `ACME`, `acme` and `acme `
        /// are three.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Takes the host's text as it is.
            ///
            /// # Errors
            /// The rule on host ids when it is empty, longer than 200 bytes, or has a control character.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                host_text(text, &$rule).map(Self)
            }

            /// The host's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_form!($name);
    )+};
}

host_ids! {
    /// A contract, by the host's own id.
    ContractId => rules::CONTRACT_ID,
    /// A flow, by the host's own id.
    FlowId => rules::FLOW_ID,
    /// A step of a flow, by the host's own id.
    StepId => rules::STEP_ID,
    /// What a mail is about, by the host's own id (a ticket, an order).
    RecordId => rules::RECORD_ID,
    /// The host's key for "this submission, once", unique within a contract.
    IdempotencyKey => rules::IDEMPOTENCY_KEY,
    /// Who changed something: a user of the host, `cli`, `system`.
    Actor => rules::ACTOR,
}

fn host_text(text: &str, rule: &'static Rule) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > HOST_ID_LIMIT || text.chars().any(char::is_control) {
        return Err(Invalid::new(rule).with("bytes", text.len().to_string()));
    }
    Ok(text.to_owned())
}

/// A step in its flow. Its text form is `FLOW/STEP`; a `/` or `%` inside of either is written `%2F`, `%25`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct StepKey {
    /// The flow.
    pub flow: FlowId,
    /// The step in it.
    pub step: StepId,
}

impl StepKey {
    /// The step `step` of `flow`.
    #[must_use]
    pub fn new(flow: FlowId, step: StepId) -> Self {
        Self { flow, step }
    }

    /// Reads `FLOW/STEP`.
    ///
    /// # Errors
    /// [`rules::STEP_KEY`] when there is not exactly one `/`; the rules of the two ids.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(&rules::STEP_KEY).with("value", shown(text));
        let (flow, step) = text.split_once('/').ok_or_else(invalid)?;
        if step.contains('/') {
            return Err(invalid());
        }
        let plain = |part: &str| part.replace("%2F", "/").replace("%25", "%");
        Ok(Self { flow: FlowId::parse(&plain(flow))?, step: StepId::parse(&plain(step))? })
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |part: &str| part.replace('%', "%25").replace('/', "%2F");
        write!(f, "{}/{}", escaped(self.flow.as_str()), escaped(self.step.as_str()))
    }
}

text_form!(StepKey);
