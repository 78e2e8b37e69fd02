//! Good dialogues, cut at every byte of the server's side: the client never hangs, never takes a mailbox for emptier than it
//! is, and never takes the beginning of a mail for the mail.

use std::time::Duration;

use postroom_core::ledger::RemoteKey;
use postroom_testkit::script::ScriptedServer;
use postroom_transport::by_protocol::ByProtocol;
use postroom_transport::{Access, IncomingTimeouts, IncomingTransport, Result};

use crate::scripted::{PATIENCE, fetch, route};

const IMAP: &str = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready
C~ <tag> AUTHENTICATE PLAIN
S: <tag> OK [CAPABILITY IMAP4rev1] welcome
C: <tag> EXAMINE \"INBOX\"
S: * 2 EXISTS
S: * OK [UIDVALIDITY 7] valid
S: <tag> OK [READ-ONLY] examined
C: <tag> NOOP
S: <tag> OK
C: <tag> FETCH 1:2 (UID RFC822.SIZE INTERNALDATE)
S: * 1 FETCH (UID 10 RFC822.SIZE 4)
S: * 2 FETCH (UID 20 RFC822.SIZE 8)
S: <tag> OK done
C: <tag> UID FETCH 20 (RFC822.SIZE BODY.PEEK[]<0.262144>)
S: * 2 FETCH (UID 20 RFC822.SIZE 8 BODY[]<0> {8}
S: ab
S: cd
S: )
S: <tag> OK done
";

const POP3: &str = "S: +OK ready
C: CAPA
S: -ERR
C: USER desk
S: +OK
C~ PASS
S: +OK
C: LIST
S: +OK
S: 10 4
S: 20 8
S: .
C: UIDL
S: +OK
S: 10 a
S: 20 b
S: .
C: RETR 20
S: +OK
S: ab
S: cd
S: .
";

const MAIL: &[u8] = b"ab\r\ncd\r\n";

/// The dialogue up to `cut` bytes of what the server says, and then the end; none when it has fewer.
fn cut(script: &str, cut: usize) -> Option<String> {
    let (mut out, mut left) = (String::new(), cut);
    for line in script.lines() {
        let Some(said) = line.strip_prefix("S: ") else {
            out.push_str(&format!("{line}\n"));
            continue;
        };
        if left < said.len() + 2 {
            let said = format!("{said}\r\n")[..left].replace('\r', "\\r");
            out.push_str(&format!("S<< {said}\nCUT\n"));
            return Some(out);
        }
        left -= said.len() + 2;
        out.push_str(&format!("{line}\n"));
    }
    None
}

/// How many mails were listed, and the second of them.
async fn talk(name: &str, script: &str) -> (Option<usize>, Result<Vec<u8>>) {
    let server = ScriptedServer::start(script).await.unwrap();
    let transport = ByProtocol::new().with_timeouts(IncomingTimeouts::all(PATIENCE));
    let mut session = match transport.open(&route(name, script, &server)).await {
        Ok(session) => session,
        Err(error) => return (None, Err(error)),
    };
    if let Err(error) = session.select(None, Access::ReadOnly).await {
        return (None, Err(error));
    }
    let list = match session.list(None, 9).await {
        Ok(list) => list,
        Err(error) => return (None, Err(error)),
    };
    let key = list.get(1).map_or(RemoteKey::Uid(20), |listed| listed.key.clone());
    (Some(list.len()), fetch(session.as_mut(), &key, 100).await)
}

async fn check(name: &str, script: &str, bytes: usize) {
    let (listed, mail) = talk(name, script).await;
    assert_eq!((listed, mail.unwrap().as_slice()), (Some(2), MAIL), "{name}: whole");
    let mut at = 0;
    while let Some(cut) = cut(script, at) {
        let talked = tokio::time::timeout(Duration::from_secs(20), talk(name, &cut)).await;
        let (listed, mail) = talked.unwrap_or_else(|_| panic!("{name}: hangs when cut at byte {at}"));
        assert!(matches!(listed, None | Some(2)), "{name}: {listed:?} mails when cut at byte {at}");
        assert!(mail.is_err(), "{name}: {mail:?} when cut at byte {at}");
        at += 1;
    }
    assert_eq!(at, bytes, "{name}: as many cuts as the server says bytes");
}

#[tokio::test]
async fn imap_cut_at_every_byte_is_an_error() {
    check("imap/cut", IMAP, 332).await;
}

#[tokio::test]
async fn pop3_cut_at_every_byte_is_an_error() {
    check("pop3/cut", POP3, 83).await;
}
