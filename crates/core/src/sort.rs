//! Which contract a received mail belongs to, and why: a pure function of the mail, the contracts of its box and the
//! thread that it answers. Nothing is looked up here; what a person decides in triage is not here either.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{Address, Domain};
use crate::contract::{Contract, Requesters};
use crate::id::{ContractId, QueueId, RecordId};
use crate::mail::Mail;
use crate::thread::Thread;

/// What a decision is made by.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the arguments of one pure function")]
pub struct Question<'a> {
    /// The mail.
    pub mail: &'a Mail,
    /// The contracts that have the box among their inboxes.
    pub contracts: &'a [Contract],
    /// The sent mail that it answers, if one of ours was found.
    pub thread: Option<&'a Thread>,
}

/// Where a mail goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "every caller must decide on each of the four")]
pub enum Destination {
    /// To this contract's handler.
    Contract(ContractId),
    /// To a person, who names the contract.
    Triage,
    /// To a person: it answers a mail of a contract that it did not reach by its box or address.
    Quarantine {
        /// The contract whose mail it answers.
        of: ContractId,
    },
    /// Nowhere: this contract refuses unknown requesters. It is kept in the ledger.
    Ignore(ContractId),
}

/// Why a mail goes where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SortReason {
    /// The box is linked to this contract only.
    Box,
    /// It was sent to an address of the contract.
    Recipient {
        /// The address.
        address: Address,
    },
    /// It answers a mail of the contract.
    Thread {
        /// The sent mail.
        message: QueueId,
    },
    /// Its sender is an address of the contract.
    SenderAddress {
        /// The address.
        address: Address,
    },
    /// Its sender's domain is the contract's.
    SenderDomain {
        /// The domain.
        domain: Domain,
    },
    /// The box is linked to no contract.
    NoContract,
    /// The box is linked to several contracts, and neither address nor thread nor sender tells them apart.
    Undecided,
    /// It answers a mail of another contract.
    OtherContract {
        /// The contract whose mail it answers.
        contract: ContractId,
        /// The sent mail.
        message: QueueId,
    },
    /// The contract does not know its sender.
    UnknownRequester,
}

impl SortReason {
    /// The word that stands for it, stable over releases.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Recipient { .. } => "recipient",
            Self::Thread { .. } => "thread",
            Self::SenderAddress { .. } => "sender-address",
            Self::SenderDomain { .. } => "sender-domain",
            Self::NoContract => "no-contract",
            Self::Undecided => "undecided",
            Self::OtherContract { .. } => "other-contract",
            Self::UnknownRequester => "unknown-requester",
        }
    }
}

impl fmt::Display for SortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::Recipient { address } | Self::SenderAddress { address } => write!(f, " {address}"),
            Self::SenderDomain { domain } => write!(f, " {domain}"),
            Self::Thread { message } => write!(f, " {message}"),
            Self::OtherContract { contract, message } => write!(f, " {contract}, {message}"),
            Self::Box | Self::NoContract | Self::Undecided | Self::UnknownRequester => Ok(()),
        }
    }
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sorting {
    /// Where it goes.
    pub destination: Destination,
    /// Why, the reason for the contract first.
    pub reasons: Vec<SortReason>,
    /// What it is about: the record of the thread, when it goes to the thread's contract.
    pub record: Option<RecordId>,
    /// Whether the host's requester directory must be asked first: the contract says so and does not know the sender.
    pub ask: bool,
}

impl Sorting {
    fn to_person(destination: Destination, reason: SortReason) -> Self {
        Self { destination, reasons: vec![reason], record: None, ask: false }
    }
}

/// Decides which contract a mail belongs to, and why.
///
/// A box of one contract gives that contract. Among several, the address that it was delivered to decides (what the
/// servers say, then To and Cc), then the thread, then the
/// sender's address, then the sender's domain; each narrows the contracts that are left until one is. An answer to a
/// mail of a contract that is not among them is quarantined, so that a reply never crosses from one contract into
/// another.
#[must_use]
pub fn sort(question: &Question<'_>) -> Sorting {
    let Question { mail, contracts, thread } = *question;
    let mut left: Vec<&Contract> = contracts.iter().collect();
    let mut reasons = Vec::new();
    match contracts {
        [] => return Sorting::to_person(Destination::Triage, SortReason::NoContract),
        [_] => reasons.push(SortReason::Box),
        _ => {
            narrow(&mut left, &mut reasons, |contract| recipient(&mail.delivered_to, contract));
            narrow(&mut left, &mut reasons, |contract| recipient(header_recipients(mail), contract));
        }
    }
    if let Some(thread) = thread {
        if !left.iter().any(|contract| contract.id == thread.contract) {
            let (contract, message) = (thread.contract.clone(), thread.message);
            let destination = Destination::Quarantine { of: contract.clone() };
            return Sorting::to_person(destination, SortReason::OtherContract { contract, message });
        }
        left.retain(|contract| contract.id == thread.contract);
        reasons.push(SortReason::Thread { message: thread.message });
    }
    narrow(&mut left, &mut reasons, |contract| sender_address(mail, contract));
    narrow(&mut left, &mut reasons, |contract| sender_domain(mail, contract));
    let [contract] = left[..] else {
        return Sorting::to_person(Destination::Triage, SortReason::Undecided);
    };
    let known = thread.is_some()
        || sender_address(mail, contract).or_else(|| sender_domain(mail, contract)).is_some();
    let mut destination = Destination::Contract(contract.id.clone());
    if !known && contract.requesters == Requesters::Refuse {
        destination = Destination::Ignore(contract.id.clone());
        reasons.push(SortReason::UnknownRequester);
    }
    Sorting {
        destination,
        reasons,
        record: thread.and_then(|thread| thread.record.clone()),
        ask: !known && contract.requesters == Requesters::Ask,
    }
}

/// Leaves the contracts for which there is a reason, if there are any and more than one is left.
fn narrow(
    left: &mut Vec<&Contract>,
    reasons: &mut Vec<SortReason>,
    reason: impl Fn(&Contract) -> Option<SortReason>,
) {
    if left.len() < 2 {
        return;
    }
    let found: Vec<_> = left.iter().filter_map(|contract| Some((*contract, reason(contract)?))).collect();
    if let [(_, first), ..] = &found[..] {
        reasons.push(first.clone());
        *left = found.into_iter().map(|(contract, _)| contract).collect();
    }
}

fn header_recipients(mail: &Mail) -> impl Iterator<Item = &Address> {
    mail.to.iter().chain(&mail.cc).map(|named| named.address())
}

fn recipient<'a>(all: impl IntoIterator<Item = &'a Address>, contract: &Contract) -> Option<SortReason> {
    let found = all.into_iter().find(|address| is_of(address, contract))?;
    Some(SortReason::Recipient { address: found.clone() })
}

fn sender_address(mail: &Mail, contract: &Contract) -> Option<SortReason> {
    let found = mail.from.iter().map(|from| from.address()).find(|address| is_of(address, contract))?;
    Some(SortReason::SenderAddress { address: found.clone() })
}

fn sender_domain(mail: &Mail, contract: &Contract) -> Option<SortReason> {
    let domains = mail.from.iter().map(|from| from.address().domain());
    let domain = domains
        .into_iter()
        .find(|domain| !domain.is_public_provider() && contract.domains.contains(domain))?;
    Some(SortReason::SenderDomain { domain })
}

fn is_of(address: &Address, contract: &Contract) -> bool {
    contract.addresses.iter().any(|own| own.same_mailbox(address))
}
