//! The reply in a mail's text: what common programs write in seven languages, and what must be kept since it is not sure.
//! What no table shows: programs and languages that are not in it. The full text is always beside the reply.

use std::time::Duration;

use postroom_core::mime::parse;
use postroom_core::reply::reply;
use proptest::prelude::*;

/// What is cut off: the text, and the reply in it.
const CUT: &[(&str, &str, &str)] = &[
    ("a plain quote", "Yes.\n\n> Shall we?\n> Ana\n", "Yes."),
    (
        "a quote with its attribution",
        "Yes.\n\nOn 12 May 2026 at 10:00, Ana <ana@acme.example> wrote:\n\n> Shall we?\n",
        "Yes.",
    ),
    (
        "an attribution that was wrapped",
        "Yes.\n\nOn Tue, May 12, 2026 at 10:00 AM The Service Desk of Acme\n<desk@acme.example> wrote:\n\n> Shall we?\n",
        "Yes.",
    ),
    (
        "wrapped over three lines",
        "Yes.\r\n\r\nOn Tue, May 12, 2026 at 10:00\r\nAM The Service Desk\r\n<desk@acme.example> wrote:\r\n> Shall we?\r\n",
        "Yes.",
    ),
    ("no blank line between", "Yes.\nOn 12/05/2026 10:00, Ana wrote:\n> Shall we?", "Yes."),
    (
        "a program that puts the name first",
        "Yes.\n\nAna Lima <ana@acme.example> wrote on 12.05.2026:\n> Shall we?",
        "Yes.",
    ),
    (
        "Portuguese",
        "Sim.\n\nEm ter., 12 de mai. de 2026 às 10:00, Ana <ana@acme.example>\nescreveu:\n\n> Vamos?\n",
        "Sim.",
    ),
    (
        "Spanish",
        "Sí.\n\nEl mar, 12 may 2026 a las 10:00, Ana (<ana@acme.example>) escribió:\n\n> ¿Vamos?\n",
        "Sí.",
    ),
    ("German", "Ja.\n\nAm 12.05.2026 um 10:00 schrieb Ana Lima <ana@acme.example>:\n> Sollen wir?\n", "Ja."),
    (
        "German with the name first",
        "Ja.\n\nAna Lima <ana@acme.example> schrieb am Di., 12. Mai 2026, 10:00:\n\n> Sollen wir?\n",
        "Ja.",
    ),
    (
        "French, with its space before the colon",
        "Oui.\n\nLe mar. 12 mai 2026 à 10:00, Ana <ana@acme.example> a écrit\u{a0}:\n\n> On y va ?\n",
        "Oui.",
    ),
    (
        "Italian",
        "Sì.\n\nIl giorno mar 12 mag 2026 alle ore 10:00 Ana <ana@acme.example> ha scritto:\n\n> Andiamo?\n",
        "Sì.",
    ),
    ("Dutch", "Ja.\n\nOp 12 mei 2026 om 10:00 schreef Ana <ana@acme.example>:\n\n> Gaan we?\n", "Ja."),
    (
        "text made of HTML, which has lost its marks",
        "Yes.\n\nOn 12 May 2026, at 10:00, Ana <ana@acme.example> wrote:\n\nShall we?\nAna\n",
        "Yes.",
    ),
    (
        "Outlook",
        "Approved.\n\nFrom: Desk <desk@acme.example>\nSent: Tuesday, 12 May 2026 10:00\nTo: Bob\nSubject: Order 7\n\nMay we?\n",
        "Approved.",
    ),
    (
        "Outlook with its rule and bold names",
        "Approved.\n\n________________________________\n*From:* Desk <desk@acme.example>\n*Sent:* Tuesday, 12 May 2026 10:00\n*To:* Bob\n*Cc:* Eve;\n eve2@acme.example\n*Subject:* Order 7\n\nMay we?\n",
        "Approved.",
    ),
    (
        "Outlook, Portuguese",
        "Aprovado.\n\nDe: Mesa <mesa@acme.example>\nEnviada em: terça-feira, 12 de maio de 2026 10:00\nPara: Bob\nAssunto: Pedido 7\n\nPodemos?\n",
        "Aprovado.",
    ),
    (
        "Outlook, Spanish",
        "Aprobado.\n\nDe: Mesa <mesa@acme.example>\nEnviado el: martes, 12 de mayo de 2026 10:00\nPara: Bob\nAsunto: Pedido 7\n\n¿Podemos?\n",
        "Aprobado.",
    ),
    (
        "Outlook, German",
        "Genehmigt.\n\nVon: Desk <desk@acme.example>\nGesendet: Dienstag, 12. Mai 2026 10:00\nAn: Bob\nBetreff: Auftrag 7\n\nDürfen wir?\n",
        "Genehmigt.",
    ),
    (
        "Outlook, French",
        "Approuvé.\n\nDe : Desk <desk@acme.example>\nEnvoyé : mardi 12 mai 2026 10:00\nÀ : Bob\nObjet : Commande 7\n\nOn peut ?\n",
        "Approuvé.",
    ),
    (
        "Outlook, Italian",
        "Approvato.\n\nDa: Desk <desk@acme.example>\nInviato: martedì 12 maggio 2026 10:00\nA: Bob\nOggetto: Ordine 7\n\nPossiamo?\n",
        "Approvato.",
    ),
    (
        "Outlook, Dutch",
        "Goedgekeurd.\n\nVan: Desk <desk@acme.example>\nVerzonden: dinsdag 12 mei 2026 10:00\nAan: Bob\nOnderwerp: Order 7\n\nMogen we?\n",
        "Goedgekeurd.",
    ),
    ("a separator", "Yes.\n\n-----Original Message-----\nFrom: Desk\nShall we?\n", "Yes."),
    ("a separator in German", "Ja.\n\n-----Ursprüngliche Nachricht-----\nVon: Desk\nSollen wir?\n", "Ja."),
    ("a separator in Portuguese", "Sim.\n\n----- Mensagem original -----\nDe: Mesa\nVamos?\n", "Sim."),
    (
        "an old quote within the quote",
        "Yes.\n\nOn 12 May 2026, Ana <ana@acme.example> wrote:\n> Shall we?\n>\n> On 11 May 2026, Bob <bob@acme.example> wrote:\n>> I ask you.\n",
        "Yes.",
    ),
    (
        "a signature above the quote",
        "Yes.\n-- \nBob\nSales\n\nOn 12 May 2026, Ana <ana@acme.example> wrote:\n> Shall we?\n",
        "Yes.",
    ),
    ("a signature", "Yes.\n\nRegards\n-- \nBob\n+55 11 5555\n", "Yes.\n\nRegards"),
    ("a signature that lost its space", "Yes.\n--\nBob\n", "Yes."),
    (
        "a telephone",
        "Yes.\n\nSent from my iPhone\n\nOn 12 May 2026, at 10:00, Ana <ana@acme.example> wrote:\n\n> Shall we?\n",
        "Yes.",
    ),
    ("a telephone in Portuguese", "Sim.\n\nEnviado do meu iPhone\n", "Sim."),
    (
        "a telephone in German",
        "Ja.\n\nVon meinem iPhone gesendet\n\n> Am 12.05.2026 um 10:00 schrieb Ana <ana@acme.example>:\n> \n> Sollen wir?\n",
        "Ja.",
    ),
    (
        "the reply below the quote",
        "On 12 May 2026, Ana <ana@acme.example> wrote:\n> Shall we?\n> Ana\n\nYes, do.\nBob\n",
        "Yes, do.\nBob",
    ),
    ("paragraphs", "First.\n\nSecond.\n\n> quoted\n\n\n", "First.\n\nSecond."),
];

/// What is kept, since it is not sure, or since it is what the author wants to say.
const KEPT: &[(&str, &str)] = &[
    ("nothing is quoted", "Hello,\nplease help.\nAna"),
    (
        "answers between quoted lines",
        "On 12 May 2026, Ana <ana@acme.example> wrote:\n> One?\nYes.\n> Two?\nNo.",
    ),
    ("an answer above and one below", "Hi,\n> One?\nYes."),
    ("a quote alone", "> Shall we?"),
    ("a sentence that is no attribution", "He told me what she wrote:\nit is broken."),
    ("a verb without date or address", "On Monday the vendor wrote:\nit is broken."),
    ("a form with From and To", "From: Berlin\nTo: Paris\nDate: 12 May\nTwo seats, please."),
    ("a form below a greeting", "Hello\nFrom: Berlin\nTo: Paris\nDate: 12 May"),
    (
        "answers further down, announced",
        "See my answers inline.\n\nFrom: Desk <desk@acme.example>\nSent: 12 May 2026\nTo: Bob\nSubject: Order 7\n\nMay we? Yes.",
    ),
    (
        "a mail that is passed on",
        "FYI\n\n---------- Forwarded message ---------\nFrom: Ana <ana@acme.example>\nDate: Tue, 12 May 2026\nSubject: Broken\nTo: Bob\n\nIt is broken.",
    ),
    (
        "a header with nothing above it",
        "From: Ana <ana@acme.example>\nSent: 12 May 2026\nSubject: Broken\n\nIt is broken.",
    ),
    ("a list with dashes", "We need\n--\n1\n2\n3\n4\n5\n6\n7\n8\n9\nof them"),
    ("a signature alone", "-- \nBob"),
    ("a mark inside a line", "if a > b then"),
    ("arrows", "-> look here\n--> and here"),
];

#[test]
fn the_reply_is_found_in_what_common_programs_write() {
    for (what, text, expected) in CUT {
        assert_eq!(reply(text), *expected, "{what}: {text}");
        let crlf = text.replace("\r\n", "\n").replace('\n', "\r\n");
        assert_eq!(reply(&crlf).replace("\r\n", "\n"), *expected, "{what}, with CRLF");
    }
}

#[test]
fn what_is_not_sure_is_kept() {
    for (what, text) in KEPT {
        assert_eq!(reply(text), *text, "{what}");
    }
}

#[test]
fn a_mail_that_is_passed_on_by_its_subject_is_kept_whole() {
    let text = "Please look.\r\n\r\nFrom: Ana <ana@acme.example>\r\nSent: 12 May 2026\r\nSubject: Broken\r\n\r\nIt is broken.";
    let mail = |subject: &str| parse(format!("From: b@acme.example\r\nSubject: {subject}\r\n\r\n{text}"));
    assert_eq!(mail("RE: Broken").reply(), Some("Please look."));
    for subject in ["FW: Broken", "Fwd: Broken", "ENC: Broken", "WG: Broken"] {
        assert_eq!(mail(subject).reply(), Some(text), "{subject}");
    }
    assert_eq!(parse("From: b@acme.example\r\nContent-Type: image/png\r\n\r\nx").reply(), None);
}

/// A liveness bound: a text of a megabyte in which each line looks like the beginning of something takes well under it,
/// while work that grows with the square of the lines would take hours.
#[test]
#[expect(clippy::disallowed_methods, reason = "the time that reading takes is what is tested")]
fn texts_that_look_like_quotes_everywhere_cost_no_more_than_their_size() {
    for line in [
        "From: a@b.example\n",
        "On 12 May 2026 a@b.example\n",
        "On 12 May 2026 a@b.example wrote:\n",
        "> \n",
        "-----Original Message\n",
        "--\n",
        "\n",
        "De: a\nEnviado: b\n",
        "________\n\n",
    ] {
        let text = line.repeat(1_000_000 / line.len());
        let begun = std::time::Instant::now();
        assert!(reply(&text).len() <= text.len());
        assert!(begun.elapsed() < Duration::from_secs(20), "{line:?}: {:?}", begun.elapsed());
    }
    let long = "On ".repeat(1_000_000);
    assert_eq!(reply(&long), long.trim());
}

proptest! {
    /// Nothing is invented, nothing is rewritten, and nobody's mail becomes empty.
    #[test]
    fn a_reply_is_a_piece_of_the_text_and_never_empty(pieces in proptest::collection::vec(
        prop_oneof![
            Just("> quoted\n"), Just("\n"), Just("On 12 May 2026, a@b.example wrote:\n"), Just("Yes.\r\n"), Just("-- \n"), Just("--\n"),
            Just("From: a@b.example\nSent: x\nSubject: y\n"), Just("-----Original Message-----\n"), Just("Sent from my iPhone\n"),
            Just("____________\n"), Just(" \u{a0}\n"), Just("é"),
        ], 0..12))
    {
        let text = pieces.concat();
        let found = reply(&text);
        prop_assert!(text.contains(found));
        prop_assert_eq!(found.is_empty(), text.trim().is_empty());
        // It begins at the beginning of a line.
        let begins = |(at, _): (usize, &str)| at == 0 || text.as_bytes()[at - 1] == b'\n';
        prop_assert!(found.is_empty() || text.match_indices(found).any(begins));
    }
}
