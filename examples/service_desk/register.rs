//! Puts a site into the registry: mailboxes, contracts, the standard outbox, the step; tries each box; says which outbox every mail
//! will use, and why. Nothing is sent here.

use postroom::Postroom;
use postroom::core::address::NamedAddress;
use postroom::core::contract::Contract;
use postroom::core::id::{Actor, ContractId, MailboxId, StepKey};
use postroom::core::mailbox::{Mailbox, Status};
use postroom::core::step::{Step, StepRecipient};
use postroom::core::template::Template;
use postroom::transport::Outcome as Probed;

use crate::Outcome;
use crate::narrator::Narrator;
use crate::site::{Account, Client, Site};

/// A contract as it is registered.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) contract: ContractId,
    pub(crate) address: NamedAddress,
    pub(crate) inbox: Mailbox,
    /// The outbox that its mail must use: its own, or Standard.
    pub(crate) outbox: Mailbox,
    pub(crate) customer: NamedAddress,
    /// Whether his side of the journey can be made.
    pub(crate) customer_writes: bool,
}

/// What is registered.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) clients: Vec<Registered>,
    pub(crate) step: StepKey,
    /// The step's outbox.
    pub(crate) alerts: Mailbox,
}

struct Clerk<'a> {
    office: &'a Postroom,
    narrator: &'a Narrator,
    actor: Actor,
}

pub(crate) async fn register(office: &Postroom, site: &Site, narrator: &Narrator) -> Outcome<Registry> {
    let clerk = Clerk { office, narrator, actor: Actor::parse("service desk")? };
    let standard = clerk.mailbox(&site.standard).await?;
    office.set_standard(&clerk.actor, Some(standard.id)).await?;
    let alerts = clerk.mailbox(&site.step.outbox).await?;
    let step = clerk.step(alerts.id, &site.step.recipients).await?;
    let mut clients = Vec::new();
    for client in &site.contracts {
        clients.push(clerk.contract(client, &standard).await?);
    }
    clerk.explain(&clients, &step).await?;
    Ok(Registry { clients, step, alerts })
}

impl Clerk<'_> {
    /// Registers a mailbox and has every stage of a connection tried.
    async fn mailbox(&self, account: &Account) -> Outcome<Mailbox> {
        let mailbox =
            self.office.register(&self.actor, &account.form, account.secret()?, Status::Active).await?;
        self.narrator.call(mailbox.id, &account.form.description);
        let report = self.office.probe(mailbox.id).await?;
        let stages: Vec<String> = report
            .stages()
            .iter()
            .map(|(stage, outcome)| match outcome {
                Probed::Failed(error) => format!("{} FAILED: {error}; {}", stage.word(), error.remedy()),
                _ => stage.word().to_owned(),
            })
            .collect();
        let line = format!(
            "{} at {}: {}",
            self.narrator.name(mailbox.id),
            mailbox.settings.endpoint(),
            stages.join(", ")
        );
        self.narrator.say("probe", &line);
        for warning in mailbox.settings.warnings() {
            self.narrator.say("warning", format!("{}: {warning}", self.narrator.name(mailbox.id)));
        }
        if report.passed() { Ok(mailbox) } else { Err(line.into()) }
    }

    async fn contract(&self, client: &Client, standard: &Mailbox) -> Outcome<Registered> {
        let id = ContractId::parse(&client.id)?;
        let inbox = self.mailbox(&client.inbox).await?;
        let mut contract = Contract::new(id.clone()).with_inbox(inbox.id);
        let outbox = match &client.outbox {
            Some(account) => {
                let own = self.mailbox(account).await?;
                contract = contract.with_outbox(own.id, None);
                own
            }
            None => standard.clone(),
        };
        let saved = self.office.save_contract(&self.actor, &contract).await?;
        self.narrator.say(
            "contract",
            format!("{id}: sends by {}, reads {}", saved.outbox, self.narrator.name(inbox.id)),
        );
        Ok(Registered {
            contract: id,
            address: NamedAddress::parse(&client.address)?,
            inbox,
            outbox,
            customer: NamedAddress::parse(&client.customer.address)?,
            customer_writes: true,
        })
    }

    async fn step(&self, outbox: MailboxId, recipients: &[String]) -> Outcome<StepKey> {
        let key = StepKey::parse("request/opened")?;
        let text = "${contract} opened ${number}: ${subject}\n";
        let recipients =
            recipients.iter().map(|text| StepRecipient::parse(text)).collect::<Result<_, _>>()?;
        let step = Step::new(key.clone())
            .with_outbox(outbox)
            .with_template(Template::new("[${number}] A request of ${contract}", text, None)?)
            .with_recipients(recipients);
        self.office.save_step(&self.actor, &step).await?;
        self.narrator.say("step", format!("{key}: Specific, {}", self.narrator.name(outbox)));
        Ok(key)
    }

    async fn explain(&self, clients: &[Registered], step: &StepKey) -> Outcome<()> {
        self.narrator.chapter("Which outbox will send, as whom, and why");
        for client in clients {
            for step in [None, Some(step)] {
                let decision = self.office.explain(&client.contract, step, None).await?;
                let what = step.map_or_else(|| "a mail".to_owned(), |step| format!("step {step}"));
                let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
                let (outbox, sender) = (self.narrator.name(decision.outbox), &decision.sender);
                self.narrator.say(
                    "explain",
                    format!(
                        "{}, {what}: {outbox} as {sender}; because of: {}",
                        client.contract,
                        reasons.join(", ")
                    ),
                );
            }
        }
        Ok(())
    }
}
