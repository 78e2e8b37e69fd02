//! How long the bytes of a mail take, beside lettre's own builder with the same parts in the same run. Ours also checks, encodes to 7
//! bits whatever the content, and takes Date, Message-ID and boundaries as given; what follows the composition is not measured.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lettre::message::header::ContentType;
use lettre::message::{Attachment as LettreAttachment, Mailbox, Message, MultiPart, SinglePart};
use postroom_core::address::NamedAddress;
use postroom_core::message::Attachment;
use postroom_core::mime::{Composition, compose, parse};
use postroom_core::time::Timestamp;

const FROM: &str = "Suporte <suporte@acme.example>";
const TO: &str = "Ana Sousa <ana@customer.example>";
const SUBJECT: &str = "Re: A impressora está em chamas [REQ-1001]";
const MESSAGE_ID: &str = "<odfe23jnopi69274ci4g000004fgl5m6tnrikrfn4ob493mm@acme.example>";

struct Case {
    name: &'static str,
    text: String,
    html: Option<String>,
    file: Option<Vec<u8>>,
}

fn cases() -> [Case; 3] {
    let text = "Olá, o seu pedido foi recebido e será atendido em breve.\r\n".repeat(20);
    let html = format!("<p>{}</p>", text.replace("\r\n", "<br>\r\n"));
    let file: Vec<u8> = (0..1_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    [
        Case { name: "text", text: text.clone(), html: None, file: None },
        Case { name: "text and HTML", text: text.clone(), html: Some(html.clone()), file: None },
        Case { name: "text, HTML and 1 MiB", text, html: Some(html), file: Some(file) },
    ]
}

fn ours(case: &Case) -> Composition {
    let named = |text| NamedAddress::parse(text).expect("an address");
    Composition {
        from: named(FROM),
        reply_to: None,
        to: vec![named(TO)],
        cc: Vec::new(),
        subject: SUBJECT.to_owned(),
        text: Some(case.text.clone()),
        html: case.html.clone(),
        attachments: case.file.iter().map(|content| attachment(content)).collect(),
        headers: Vec::new(),
        message_id: MESSAGE_ID.to_owned(),
        in_reply_to: None,
        references: Vec::new(),
    }
}

fn attachment(content: &[u8]) -> Attachment {
    Attachment {
        name: "report.bin".to_owned(),
        media_type: "application/octet-stream".to_owned(),
        content: content.to_vec(),
        content_id: None,
    }
}

/// As lettre's documentation builds a mail; the file is cloned, since its builder takes it.
fn lettres(case: &Case, from: &Mailbox, to: &Mailbox) -> Vec<u8> {
    let builder = Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(SUBJECT)
        .message_id(Some(MESSAGE_ID.to_owned()));
    let text = SinglePart::plain(case.text.clone());
    let message = match (&case.html, &case.file) {
        (None, _) => builder.singlepart(text),
        (Some(html), None) => builder
            .multipart(MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(html.clone()))),
        (Some(html), Some(file)) => {
            let bodies = MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(html.clone()));
            let media = ContentType::parse("application/octet-stream").expect("a media type");
            let file = LettreAttachment::new("report.bin".to_owned()).body(file.clone(), media);
            builder.multipart(MultiPart::mixed().multipart(bodies).singlepart(file))
        }
    };
    message.expect("a mail").formatted()
}

fn beside_lettre(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compose");
    let (from, to): (Mailbox, Mailbox) = (FROM.parse().expect("an address"), TO.parse().expect("an address"));
    let now = Timestamp::from_millis(1_763_832_664_000);
    for case in cases() {
        let composition = ours(&case);
        let (ours, theirs) =
            (compose(&composition, now, [7; 32]).expect("a mail"), lettres(&case, &from, &to));
        let (read, peer) = (parse(ours.clone()), parse(theirs));
        assert_eq!(
            (&read.subject, &read.text, read.attachments.len()),
            (&peer.subject, &peer.text, peer.attachments.len())
        );
        group.throughput(Throughput::Bytes(u64::try_from(ours.len()).expect("a size")));
        group.bench_function(BenchmarkId::new("postroom", case.name), |bencher| {
            bencher.iter(|| black_box(compose(black_box(&composition), now, [7; 32])));
        });
        group.bench_function(BenchmarkId::new("lettre", case.name), |bencher| {
            bencher.iter(|| black_box(lettres(black_box(&case), &from, &to)));
        });
    }
    group.finish();
}

criterion_group!(benches, beside_lettre);
criterion_main!(benches);
