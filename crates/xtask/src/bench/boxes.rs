//! The boxes that are fetched from: a Dovecot with mails of the size that users have, one mail of 30 MB, and one small mail beside which that is seen.

use std::net::SocketAddr;

use crate::outcome::Outcome;
use crate::peers::MailStore;

/// Who has the many mails, who has the large one, and who has one of usual size.
pub(super) const MANY: &str = "many";
pub(super) const LARGE: &str = "large";
pub(super) const SMALL: &str = "small";

/// About the mean size of a mail without attachments, and the size of a large one, in bytes.
const SIZE: usize = 5750;
pub(super) const LARGE_SIZE: usize = 30 * 1024 * 1024;

pub(super) struct Boxes {
    server: MailStore,
}

impl Boxes {
    /// Starts Dovecot and fills its boxes.
    pub(super) fn start(mails: u32) -> Outcome<Self> {
        let server = MailStore::start()?;
        for number in 0..mails {
            let mail = mail(number, SIZE);
            server.put(MANY, &name(number, &mail), &mail)?;
        }
        for (user, mail) in [(LARGE, attached(LARGE_SIZE)), (SMALL, mail(0, SIZE))] {
            server.put(user, &name(0, &mail), &mail)?;
        }
        Ok(Self { server })
    }

    pub(super) fn imap(&self) -> SocketAddr {
        self.server.imap()
    }

    pub(super) fn pop3(&self) -> SocketAddr {
        self.server.pop3()
    }

    pub(super) fn password(&self) -> &'static str {
        self.server.password()
    }
}

/// A file's name as Dovecot's own delivery gives it, with both sizes. Without them it reads a mail to list it, and names that
/// differ in a counter alone fall together in its table of names: opening a box of 20,000 took it 0.8 s.
fn name(number: u32, mail: &str) -> String {
    let (time, micros) = (1_790_000_000 + number, u64::from(number) * 7_919 % 1_000_000);
    let (size, lines) = (mail.len(), mail.matches('\n').count());
    format!("{time}.M{micros}P{}.mail,S={size},W={}", 4_000 + number / 10, size + lines)
}

fn header(number: u32) -> String {
    format!(
        "Return-Path: <ana{number}@customer.example>
Delivered-To: desk@acme.example
Received: from mx.customer.example (mx.customer.example [192.0.2.7])
	by mail.acme.example with ESMTPS id {number:08X}; Tue, 12 May 2026 10:00:00 +0000
From: Ana Lima {number} <ana{number}@customer.example>
To: Desk <desk@acme.example>
Subject: =?utf-8?Q?Impressora_n=C3=A3o_imprime?= {number}
Date: Tue, 12 May 2026 10:00:00 +0000
Message-ID: <{number}.fetch@customer.example>
MIME-Version: 1.0
"
    )
}

/// A mail with text and HTML, of about this size.
fn mail(number: u32, size: usize) -> String {
    let half = |line: &str| line.repeat(size.saturating_sub(900) / 2 / line.len());
    format!(
        "{}Content-Type: multipart/alternative; boundary=\"part{number}\"

--part{number}
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

{}
--part{number}
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<html><body>{}</body></html>
--part{number}--
",
        header(number),
        half("The printer on the second floor does n=C3=A3o print since this morning.\n"),
        half("<p>The printer on the second floor does n=C3=A3o print.</p>\n"),
    )
}

/// A mail of this size, nearly all of it one attachment.
fn attached(size: usize) -> String {
    let line = format!("{}\n", "QUJD".repeat(19));
    format!(
        "{}Content-Type: multipart/mixed; boundary=\"large\"

--large
Content-Type: text/plain

The scan.
--large
Content-Type: application/pdf
Content-Disposition: attachment; filename=\"scan.pdf\"
Content-Transfer-Encoding: base64

{}
--large--
",
        header(0),
        line.repeat(size / line.len()),
    )
}
