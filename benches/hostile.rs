//! What mail that is made to hurt costs to read, each beside its size, and what a mail of 30 MB costs on its way from the folder to
//! the handler. `cargo bench --bench hostile` prints a table and fails where a bound is broken: 100 ms and 64 MiB beside the mail's
//! own size, twice the size for the way. Of five runs the shortest counts, since others use the machine.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a program that measures and prints")]

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use peak_alloc::PeakAlloc;
use postroom_core::contract::Contract;
use postroom_core::id::{Actor, ContractId};
use postroom_core::mailbox::{InboxDraft, MailboxDraft, SettingsDraft, Status};
use postroom_core::mime::parse;
use postroom_core::secret::SecretChange;
use postroom_engine::{Answer, Delivery, MessageHandler, Postroom, Work};
use postroom_storage::SqliteStore;
use postroom_storage::keyring::aead::{AeadKeyring, Key};
use postroom_testkit::HostileMail;
use postroom_transport::memory::MemoryIncoming;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SIZE: usize = 20 << 20;
const MOST: usize = 64 << 20;
const LONGEST: Duration = Duration::from_millis(100);
const LARGE: usize = 30 << 20;

fn main() {
    // Once and in the profile of the tests: whether it works is asked then, and what memory it takes; not how fast it is.
    let runs = if std::env::args().any(|argument| argument == "--test") { 1 } else { 5 };
    let mut slow = Vec::new();
    println!("{:>9}  {:>9}  a hostile mail of {} MiB", "ms", "KiB", SIZE >> 20);
    for hostile in HostileMail::all() {
        let bytes = Bytes::from(hostile.bytes(SIZE));
        let (mut shortest, mut most) = (Duration::MAX, 0);
        for _ in 0..runs {
            let copy = bytes.clone();
            MEMORY.reset_peak_usage();
            let (before, begun) = (MEMORY.current_usage(), Instant::now());
            let mail = parse(copy);
            shortest = shortest.min(begun.elapsed());
            most = most.max(MEMORY.peak_usage().saturating_sub(before));
            drop(mail);
        }
        println!("{:>9.1}  {:>9}  {}", shortest.as_secs_f64() * 1e3, most >> 10, hostile.name());
        assert!(most <= MOST, "{}: {most} bytes", hostile.name());
        if shortest > LONGEST {
            slow.push(hostile.name());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let peak = runtime.block_on(the_whole_way());
    let hundredths = peak * 100 / LARGE;
    println!("a mail of {} MiB from the folder to the handler: {hundredths} % of its size", LARGE >> 20);
    assert!(peak <= 2 * LARGE, "{peak} bytes");
    assert!(runs == 1 || slow.is_empty(), "longer than {LONGEST:?}: {slow:?}");
}

/// Reads each attachment as a stream, as a host does that keeps it elsewhere.
#[derive(Default)]
struct Host(AtomicUsize);

#[async_trait]
impl MessageHandler for Host {
    async fn handle(&self, delivery: Delivery) -> Answer {
        let mut piece = [0; 4096];
        for file in &delivery.mail.attachments {
            let mut reader = file.reader();
            loop {
                match reader.read(&mut piece).expect("a content") {
                    0 => break,
                    read => _ = self.0.fetch_add(read, Ordering::SeqCst),
                }
            }
        }
        Answer::Done
    }
}

/// The most memory that is taken beside the mail in the folder, which is the server's.
async fn the_whole_way() -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        SqliteStore::open(&folder.path().join("large.db").display().to_string()).await.expect("a store");
    let (incoming, host) = (Arc::new(MemoryIncoming::new()), Arc::new(Host::default()));
    let postroom = Postroom::builder(Arc::new(store))
        .with_keyring(Arc::new(AeadKeyring::new(Key::generate("1").expect("a key"))))
        .with_incoming(Arc::clone(&incoming) as _)
        .with_handler(Arc::clone(&host) as _)
        .build();
    let actor = Actor::parse("bench").expect("an actor");
    let form = SettingsDraft::Inbox(InboxDraft {
        provider: "imaps".to_owned(),
        user: "ana".to_owned(),
        baseline: Some("all".to_owned()),
        max_attachment: Some(64 << 20),
        ..InboxDraft::default()
    });
    let form =
        MailboxDraft { max_message: Some(64 << 20), ..MailboxDraft::new("in", "imap.acme.example", form) };
    let secret = SecretChange::Set("secret".into());
    let inbox = postroom.register(&actor, &form, secret, Status::Active).await.expect("an inbox");
    let contract = Contract::new(ContractId::parse("C").expect("an id")).with_inbox(inbox.id);
    postroom.save_contract(&actor, &contract).await.expect("a contract");
    incoming.create_folder(inbox.id, "INBOX");

    let head = "From: ana@customer.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee the file.\r\n--b\r\n\
        Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let line = format!("{}\r\n", "QUJD".repeat(19));
    let lines = LARGE / line.len();
    incoming.deliver(inbox.id, "INBOX", [head, &line.repeat(lines), "--b--\r\n"].concat());
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    postroom.run_with(Work::all().until_idle(), std::future::pending()).await.expect("the worker works");
    assert_eq!(host.0.load(Ordering::SeqCst), lines * 57, "bytes of the file that the handler has read");
    MEMORY.peak_usage().saturating_sub(before)
}
