//! A folder of a million mails with gaps between their UIDs: how much is asked of the server for a window anywhere in it. A
//! client that asks for all UIDs, or walks through the gaps, sends or reads too much here.

use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Endpoint, Host, Port, Tls};
use postroom_core::id::{MailboxId, Revision};
use postroom_core::ledger::RemoteKey;
use postroom_transport::imap::ImapTransport;
use postroom_transport::{Access, IncomingTransport, Protocol, Route};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const MAILS: u32 = 1_000_000;

/// The UID of the mail with this number.
fn uid(number: u32) -> u32 {
    u32::MAX - (MAILS - number) * 4000
}

/// Serves one session that only lists; tells how many FETCH commands there were and how many mails they asked for.
async fn serve(tcp: TcpStream) -> (u32, u32) {
    let (read, mut write) = tcp.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n").await.unwrap();
    let (mut commands, mut mails) = (0, 0);
    while let Some(line) = lines.next_line().await.unwrap() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut answer = String::new();
        match words[1] {
            "AUTHENTICATE" => answer.push_str("* CAPABILITY IMAP4rev1\r\n"),
            "EXAMINE" => answer.push_str(&format!("* {MAILS} EXISTS\r\n* OK [UIDVALIDITY 1]\r\n")),
            "FETCH" => {
                let (first, last) = words[2].split_once(':').unwrap_or((words[2], words[2]));
                let range = first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap();
                commands += 1;
                mails += range.end() - range.start() + 1;
                for number in range {
                    answer.push_str(&format!("* {number} FETCH (UID {} RFC822.SIZE 9)\r\n", uid(number)));
                }
            }
            _ => {}
        }
        answer.push_str(&format!("{} OK done\r\n", words[0]));
        write.write_all(answer.as_bytes()).await.unwrap();
    }
    (commands, mails)
}

/// Lists a window behind `after`, in a session of its own, and compares it with so many `mails` from the
/// number `first` on.
async fn check(after: u32, limit: usize, first: u32, mails: u32, commands: u32) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = async {
        let endpoint = Endpoint::new(Host::parse("127.0.0.1").unwrap(), Port::new(port.into()).unwrap());
        let route = Route::new(MailboxId::new(1), Revision::new(1), Protocol::Imap, endpoint, Tls::None)
            .with_credentials(Credentials::password("desk", "secret".into()))
            .with_danger_plaintext();
        let mut session = ImapTransport::new().open(&route).await.unwrap();
        assert_eq!(session.select(None, Access::ReadOnly).await.unwrap().exists, MAILS);
        session.list(Some(&RemoteKey::Uid(after)), limit).await.unwrap()
    };
    let (list, (asked, read)) =
        tokio::join!(client, async { serve(listener.accept().await.unwrap().0).await });
    let found: Vec<RemoteKey> = list.into_iter().map(|listed| listed.key).collect();
    assert_eq!(
        found,
        (first..first + mails).map(|number| RemoteKey::Uid(uid(number))).collect::<Vec<_>>(),
        "behind {after}"
    );
    assert!(asked <= commands, "behind {after}: {asked} commands");
    assert!(read as usize <= limit + 16 + commands as usize, "behind {after}: {read} mails were asked for");
}

#[tokio::test]
async fn a_window_anywhere_in_a_million_mails_takes_few_commands() {
    let at = |number| uid(number);
    // Nothing new, a few new, none of them read before.
    check(at(MAILS), 500, 1, 0, 1).await;
    check(at(MAILS - 3), 500, MAILS - 2, 3, 4).await;
    check(0, 500, 1, 500, 1).await;
    // Between two mails, in the middle, near the start, at its very end.
    check(at(500_000) + 1, 500, 500_001, 500, 26).await;
    check(at(3), 500, 4, 500, 26).await;
    check(at(1) - 1, 500, 1, 500, 26).await;
    check(at(MAILS) - 1, 500, MAILS, 1, 4).await;
    // More than one command may carry.
    check(at(10), 2500, 11, 2500, 29).await;
}
