//! What is said of one mail before its content: MAIL, each RCPT and DATA, and what is known of each recipient. Nothing is
//! sent here.

use postroom_core::address::Address;

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::outgoing::{Job, Reply};
use crate::smtp::content::{Needs, examine};
use crate::smtp::session::Extensions;

/// How many commands are written before their replies are read. More could fill the buffers of both sides, each waiting
/// for the other to read (RFC 2920 section 3.1).
pub(super) const BATCH: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Mail,
    Rcpt(usize),
    Data,
}

/// What is known of each recipient.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Nothing,
    Accepted,
    Ended(Result<Reply>),
}

#[derive(Debug)]
pub(super) struct Envelope {
    mail: String,
    commands: Vec<Command>,
    /// One for each recipient of the job.
    pub(super) known: Vec<Known>,
}

impl Envelope {
    /// For a server that offers this. What it can't take of single recipients is known already.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] and [`ErrorKind::TooLarge`] at [`Stage::Prepare`], when it can't take the mail.
    pub(super) fn new(job: &Job, offers: &Extensions) -> Result<Self> {
        let mail = mail_command(offers, job, examine(&job.content)?)?;
        let mut known = Vec::with_capacity(job.recipients.len());
        let mut commands = vec![Command::Mail];
        for (at, recipient) in job.recipients.iter().enumerate() {
            if recipient.needs_smtputf8() && !offers.smtputf8 {
                known.push(Known::Ended(Err(unsupported("5.6.7 the address needs SMTPUTF8"))));
            } else {
                known.push(Known::Nothing);
                commands.push(Command::Rcpt(at));
            }
        }
        match commands.len() {
            1 => commands.clear(),
            _ => commands.push(Command::Data),
        }
        Ok(Self { mail, commands, known })
    }

    /// MAIL, each RCPT, DATA; none when there is nobody to ask for.
    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Whether the commands may be written all at once.
    pub(super) fn is_one_write(&self) -> bool {
        (1..=BATCH).contains(&self.commands.len())
    }

    /// Some of the commands as they are written.
    pub(super) fn lines(&self, job: &Job, batch: &[Command]) -> String {
        let mut lines = String::new();
        for command in batch {
            match command {
                Command::Mail => lines.push_str(&self.mail),
                Command::Rcpt(at) => lines.push_str(&rcpt_command(&job.recipients[*at])),
                Command::Data => lines.push_str("DATA\r\n"),
            }
        }
        lines
    }

    /// Whether the server has accepted a recipient.
    pub(super) fn any_accepted(&self) -> bool {
        self.known.iter().any(|one| matches!(one, Known::Accepted))
    }
}

/// MAIL with the parameters that the mail needs, or why the server can't take it.
fn mail_command(offers: &Extensions, job: &Job, needs: Needs) -> Result<String> {
    let in_sender = job.mail_from.as_ref().is_some_and(Address::needs_smtputf8);
    let in_recipient = job.recipients.iter().any(Address::needs_smtputf8);
    if (in_sender || needs.smtputf8) && !offers.smtputf8 {
        return Err(unsupported("5.6.7 the sender or a header field needs SMTPUTF8"));
    }
    if needs.eight_bit && !offers.eight_bit {
        return Err(unsupported("5.6.3 the mail needs 8BITMIME"));
    }
    if let Some(limit) = offers.size.flatten()
        && needs.size > limit
    {
        let text = format!("5.3.4 the mail has {} bytes, the server takes {limit}", needs.size);
        return Err(Error::new(ErrorKind::TooLarge, Stage::Prepare).with_reply(&text));
    }
    let mut line = sender_command(job.mail_from.as_ref());
    if offers.size.is_some() {
        line.push_str(&format!(" SIZE={}", needs.size));
    }
    if needs.eight_bit {
        line.push_str(" BODY=8BITMIME");
    }
    if offers.smtputf8 && (needs.smtputf8 || in_sender || in_recipient) {
        line.push_str(" SMTPUTF8");
    }
    line.push_str("\r\n");
    Ok(line)
}

pub(super) fn sender_command(sender: Option<&Address>) -> String {
    format!("MAIL FROM:<{}>", sender.map_or("", Address::as_str))
}

pub(super) fn rcpt_command(recipient: &Address) -> String {
    format!("RCPT TO:<{recipient}>\r\n")
}

pub(super) fn unsupported(why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, Stage::Prepare).with_reply(why)
}
