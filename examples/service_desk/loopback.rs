//! The desk's world on one machine: five mail servers in this process, each with a throw-away authority of its own, so that their
//! records tell by which server and as whom a mail left. Here are no checks.

use postroom::core::mailbox::{InboxDraft, MailboxDraft, OutboxDraft, SettingsDraft};
use postroom_testkit::{Accepted, MailServer, Relay};

use crate::Outcome;
use crate::site::{Account, Client, Customer, Site, StepSite};

const PASSWORD: &str = "correct horse";

/// The servers, each with the name by which the journey calls it.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) acme: MailServer,
    pub(crate) borealis: MailServer,
    pub(crate) cobalt: MailServer,
    /// The desk's own mail: Standard.
    pub(crate) desk: MailServer,
    /// Inside the house; it asks for neither TLS nor sign-in.
    pub(crate) relay: MailServer,
}

impl Servers {
    pub(crate) async fn start() -> Outcome<Self> {
        let own = |login| MailServer::builder().account(login, PASSWORD).relay(Relay::SignedIn).start();
        Ok(Self {
            acme: own("support@acme.example").await?,
            borealis: own("help@borealis.example").await?,
            cobalt: own("it@cobalt.example").await?,
            desk: own("service@desk.example").await?,
            relay: MailServer::start().await?,
        })
    }

    pub(crate) fn all(&self) -> [(&'static str, &MailServer); 5] {
        [
            ("Acme's server", &self.acme),
            ("Borealis' server", &self.borealis),
            ("Cobalt's server", &self.cobalt),
            ("the desk's server", &self.desk),
            ("the house relay", &self.relay),
        ]
    }

    /// The server that takes mail for a contract.
    pub(crate) fn of(&self, contract: &str) -> &MailServer {
        match contract {
            "Acme" => &self.acme,
            "Borealis" => &self.borealis,
            _ => &self.cobalt,
        }
    }

    /// Every mail that any of the servers took, with the server's name.
    pub(crate) fn accepted(&self) -> Vec<(&'static str, Accepted)> {
        let of = |(name, server): (&'static str, &MailServer)| {
            server.accepted().into_iter().map(move |mail| (name, mail)).collect::<Vec<_>>()
        };
        self.all().into_iter().flat_map(of).collect()
    }

    /// What the desk registers: Acme by IMAP and SMTP with STARTTLS, Borealis with TLS from the first byte, Cobalt by POP3 and
    /// with no outbox of its own.
    pub(crate) fn site(&self) -> Site {
        let (acme, borealis, cobalt, desk) = (&self.acme, &self.borealis, &self.cobalt, &self.desk);
        Site {
            standard: outbox(
                "Standard",
                desk,
                desk.smtps_port(),
                "implicit",
                "Service Desk <service@desk.example>",
            ),
            step: StepSite {
                outbox: relay("Alerts", &self.relay, "Desk Alerts <alerts@desk.example>"),
                recipients: vec!["Duty <duty@desk.example>".to_owned(), "account-manager".to_owned()],
            },
            contracts: vec![
                Client {
                    id: "Acme".to_owned(),
                    address: "support@acme.example".to_owned(),
                    inbox: inbox("Acme inbox", acme, acme.imap_port(), "imap", "support@acme.example"),
                    outbox: Some(outbox(
                        "Acme outbox",
                        acme,
                        acme.smtp_port(),
                        "starttls",
                        "Acme Support <support@acme.example>",
                    )),
                    customer: customer("Ana Sousa <ana@acme.example>"),
                },
                Client {
                    id: "Borealis".to_owned(),
                    address: "help@borealis.example".to_owned(),
                    inbox: inbox(
                        "Borealis inbox",
                        borealis,
                        borealis.imaps_port(),
                        "imaps",
                        "help@borealis.example",
                    ),
                    outbox: Some(outbox(
                        "Borealis outbox",
                        borealis,
                        borealis.smtps_port(),
                        "implicit",
                        "Borealis Help <help@borealis.example>",
                    )),
                    customer: customer("Björn Åkesson <bjorn@borealis.example>"),
                },
                Client {
                    id: "Cobalt".to_owned(),
                    address: "it@cobalt.example".to_owned(),
                    inbox: inbox("Cobalt inbox", cobalt, cobalt.pop3s_port(), "pop3s", "it@cobalt.example"),
                    outbox: None,
                    customer: customer("Chloé Martin <chloe@cobalt.example>"),
                },
            ],
        }
    }
}

fn customer(address: &str) -> Customer {
    Customer { address: address.to_owned(), outbox: None, inbox: None }
}

fn draft(description: &str, server: &MailServer, port: u16, settings: SettingsDraft) -> MailboxDraft {
    MailboxDraft {
        description: description.to_owned(),
        server: "localhost".to_owned(),
        port: Some(port.into()),
        authority: Some(server.ca_pem().to_owned()),
        max_message: None,
        danger_plaintext: false,
        settings,
    }
}

fn inbox(description: &str, server: &MailServer, port: u16, provider: &str, user: &str) -> Account {
    let (provider, user) = (provider.to_owned(), user.to_owned());
    let settings = SettingsDraft::Inbox(InboxDraft { provider, user, ..InboxDraft::default() });
    Account::new(draft(description, server, port, settings), Some(PASSWORD))
}

/// An outbox that signs in as its only sender.
fn outbox(description: &str, server: &MailServer, port: u16, tls: &str, sender: &str) -> Account {
    let user = sender.split(['<', '>']).nth(1).map(ToOwned::to_owned);
    let settings = SettingsDraft::Outbox(OutboxDraft {
        tls: tls.to_owned(),
        auth: "password".to_owned(),
        user,
        senders: vec![sender.to_owned()],
        ..OutboxDraft::default()
    });
    Account::new(draft(description, server, port, settings), Some(PASSWORD))
}

fn relay(description: &str, server: &MailServer, sender: &str) -> Account {
    let settings = SettingsDraft::Outbox(OutboxDraft {
        tls: "none".to_owned(),
        auth: "none".to_owned(),
        senders: vec![sender.to_owned()],
        ..OutboxDraft::default()
    });
    let form = draft(description, server, server.smtp_port(), settings);
    Account::new(MailboxDraft { authority: None, ..form }, None)
}
