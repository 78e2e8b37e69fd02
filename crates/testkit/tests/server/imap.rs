//! The IMAP side: sign-in, folders, reading, changing, and what a client is told of other clients.

use crate::client::Client;
use postroom_testkit::{MailServer, PartialFetch, Protocol};
use std::time::{Duration, SystemTime};

const ANA: &str = "ana@acme.example";
const DEEP: &str = "Suporte/Clientes São Paulo";
const DEEP_WIRE: &str = "\"Suporte/Clientes S&AOM-o Paulo\"";
const MAIL: &str = "Subject: Hi\r\nFrom: rui@host.example\r\nMessage-ID: <1@host.example>\r\n\r\nHello\r\n";

async fn server() -> MailServer {
    let server = MailServer::builder().account(ANA, "secret").start().await.unwrap();
    server.create_folder(ANA, DEEP);
    server
}

async fn sign_in(server: &MailServer) -> Client {
    let mut client = Client::connect(server, Protocol::Imaps).await;
    let answer = client.imap(&format!("LOGIN {ANA} secret")).await;
    assert!(answer.starts_with("A1 OK "), "{answer}");
    client
}

async fn select(server: &MailServer) -> Client {
    let mut client = sign_in(server).await;
    assert!(client.imap("SELECT INBOX").await.ends_with("A1 OK [READ-WRITE] selected\r\n"));
    client
}

#[tokio::test]
async fn sign_in_waits_for_tls_and_takes_each_mechanism() {
    let server = server().await;
    let mut client = Client::connect(&server, Protocol::Imap).await;
    let offer = client.imap("CAPABILITY").await;
    assert!(offer.contains(" STARTTLS LOGINDISABLED\r\n") && !offer.contains("AUTH="), "{offer}");
    assert!(client.imap(&format!("LOGIN {ANA} secret")).await.starts_with("A1 NO [PRIVACYREQUIRED]"));
    let plain = "AUTHENTICATE PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0";
    assert!(client.imap(plain).await.starts_with("A1 NO [PRIVACYREQUIRED]"));
    assert!(client.imap("SELECT INBOX").await.starts_with("A1 BAD "));
    assert!(client.imap("STARTTLS").await.starts_with("A1 OK "));
    client.begin_tls("localhost", server.ca_pem()).await.unwrap();
    let offer = client.imap("CAPABILITY").await;
    assert!(offer.contains(" AUTH=PLAIN AUTH=LOGIN\r\n") && !offer.contains("STARTTLS"), "{offer}");
    assert!(client.imap(&format!("LOGIN {ANA} wrong")).await.starts_with("A1 NO [AUTHENTICATIONFAILED]"));
    assert_eq!(client.imap("AUTHENTICATE LOGIN").await, "+ VXNlcm5hbWU6\r\n");
    client.write(b"YW5hQGFjbWUuZXhhbXBsZQ==\r\n").await;
    assert_eq!(client.line().await, "+ UGFzc3dvcmQ6\r\n");
    client.write(b"d3Jvbmc=\r\n").await;
    assert!(client.line().await.starts_with("A1 NO [AUTHENTICATIONFAILED]"));
    assert!(client.imap(plain).await.starts_with("A1 OK [CAPABILITY IMAP4rev1 "));
    assert!(client.imap(plain).await.starts_with("A1 BAD "), "once is enough");
    assert_eq!(
        (server.sessions()[0].refused_sign_ins, server.sessions()[0].login.as_deref()),
        (2, Some(ANA))
    );
    assert!(client.imap("LOGOUT").await.starts_with("* BYE "));
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn credentials_may_come_as_literals_and_after_a_challenge() {
    let server = MailServer::builder().account("ana", "sécret \"x\"").start().await.unwrap();
    let mut client = Client::connect(&server, Protocol::Imaps).await;
    assert_eq!(client.imap("LOGIN ana {11}").await, "+ go on\r\n");
    client.write("sécret \"x\"\r\n".as_bytes()).await;
    assert!(client.line().await.starts_with("A1 OK "));
    let mut client = Client::connect(&server, Protocol::Imaps).await;
    assert!(client.imap("LOGIN {3+}\r\nana {11+}\r\nsécret \"x\"").await.starts_with("A1 OK "));
    let mut client = Client::connect(&server, Protocol::Imaps).await;
    assert_eq!(client.imap("AUTHENTICATE PLAIN").await, "+ \r\n");
    client.write(b"AGFuYQBzw6ljcmV0ICJ4Ig==\r\n").await;
    assert!(client.line().await.starts_with("A1 OK "));
}

#[tokio::test]
async fn folders_are_listed_in_modified_utf7() {
    let server = server().await;
    let mut client = sign_in(&server).await;
    for (arguments, names) in [
        ("\"\" *", vec!["\"INBOX\"", "\"Suporte\"", DEEP_WIRE]),
        ("\"\" %", vec!["\"INBOX\"", "\"Suporte\""]),
        ("Suporte/ %", vec![DEEP_WIRE]),
        ("\"\" inbox", vec!["\"INBOX\""]),
        ("\"\" suporte", vec![]),
    ] {
        let listed: String = names.iter().map(|name| format!("* LIST () \"/\" {name}\r\n")).collect();
        assert_eq!(client.imap(&format!("LIST {arguments}")).await, listed + "A1 OK listed\r\n");
    }
    assert!(client.imap("LIST \"\" \"\"").await.starts_with("* LIST (\\Noselect) \"/\" \"\"\r\n"));
    assert!(client.imap("CREATE \"Suporte/&U,BTFw-\"").await.starts_with("A1 OK"));
    server.deliver_to_folder(ANA, "Suporte/台北", MAIL);
    assert_eq!(
        client.imap("STATUS \"Suporte/&U,BTFw-\" (MESSAGES UIDNEXT UNSEEN)").await,
        "* STATUS \"Suporte/&U,BTFw-\" (MESSAGES 1 UIDNEXT 2 UNSEEN 1)\r\nA1 OK status told\r\n"
    );
    assert!(client.imap("CREATE Suporte").await.starts_with("A1 NO [ALREADYEXISTS]"));
    assert!(client.imap("SELECT Missing").await.starts_with("A1 NO [NONEXISTENT]"));
    assert!(client.imap("SELECT &AOM").await.starts_with("A1 BAD "));
    assert!(client.imap("RENAME Suporte Apoio").await.starts_with("A1 OK"));
    assert_eq!(server.messages(ANA, "Apoio/台北").len(), 1);
    assert!(client.imap("DELETE \"Apoio/&U,BTFw-\"").await.starts_with("A1 OK"));
    assert!(client.imap("STATUS \"Apoio/&U,BTFw-\" (MESSAGES)").await.starts_with("A1 NO [NONEXISTENT]"));
}

#[tokio::test]
async fn selecting_tells_what_a_client_needs() {
    let server = server().await;
    server.deliver(ANA, MAIL);
    server.deliver(ANA, MAIL);
    server.set_flags(ANA, "INBOX", 1, &["\\Seen"]);
    let mut client = sign_in(&server).await;
    assert_eq!(
        client.imap("EXAMINE INBOX").await,
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* 2 EXISTS\r\n* 0 RECENT\r\n\
         * OK [UNSEEN 2] first unseen\r\n* OK [PERMANENTFLAGS ()] nothing can be changed\r\n\
         * OK [UIDVALIDITY 1] valid\r\n* OK [UIDNEXT 3] next\r\nA1 OK [READ-ONLY] examined\r\n"
    );
    for command in ["STORE 1 FLAGS ()", "EXPUNGE", "MOVE 1 Suporte"] {
        assert!(client.imap(command).await.starts_with("A1 NO [READ-ONLY]"), "{command}");
    }
    client.imap("FETCH 2 BODY[]").await;
    assert!(server.messages(ANA, "INBOX")[1].flags.is_empty());
    client.imap("SELECT Missing").await;
    assert!(
        client.imap("FETCH 1 UID").await.starts_with("A1 BAD "),
        "a failed SELECT leaves nothing selected"
    );
}

#[tokio::test]
async fn each_data_item_is_served() {
    let server = server().await;
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    server.deliver_dated(ANA, "INBOX", MAIL, received);
    let mut client = select(&server).await;
    let header = "Subject: Hi\r\nFrom: rui@host.example\r\nMessage-ID: <1@host.example>\r\n\r\n";
    for (items, data) in [
        ("RFC822.SIZE", format!("RFC822.SIZE {}", MAIL.len())),
        ("FAST", format!("FLAGS () INTERNALDATE \" 9-Sep-2001 01:46:40 +0000\" RFC822.SIZE {}", MAIL.len())),
        ("(UID BODY.PEEK[])", format!("UID 1 BODY[] {{{}}}\r\n{MAIL}", MAIL.len())),
        ("BODY.PEEK[]<8.5>", "BODY[]<8> {5}\r\n Hi\r\n".to_owned()),
        ("BODY.PEEK[]<70.100>", format!("BODY[]<70> {{{}}}\r\n{}", MAIL.len() - 70, &MAIL[70..])),
        ("BODY.PEEK[]<900.100>", "BODY[]<900> {0}\r\n".to_owned()),
        ("BODY.PEEK[HEADER]", format!("BODY[HEADER] {{{}}}\r\n{header}", header.len())),
        ("BODY.PEEK[TEXT]", "BODY[TEXT] {7}\r\nHello\r\n".to_owned()),
        (
            "BODY.PEEK[HEADER.FIELDS (message-id X-None)]",
            "BODY[HEADER.FIELDS (MESSAGE-ID X-NONE)] {32}\r\nMessage-ID: <1@host.example>\r\n\r\n".to_owned(),
        ),
        (
            "BODY.PEEK[HEADER.FIELDS.NOT (From Message-ID)]",
            "BODY[HEADER.FIELDS.NOT (FROM MESSAGE-ID)] {15}\r\nSubject: Hi\r\n\r\n".to_owned(),
        ),
    ] {
        let answer = client.imap(&format!("FETCH 1 {items}")).await;
        assert_eq!(answer, format!("* 1 FETCH ({data})\r\nA1 OK fetched\r\n"));
    }
    assert!(client.imap("FETCH 1 BODYSTRUCTURE").await.starts_with("A1 NO [CANNOT]"));
    assert!(client.imap("FETCH 2 UID").await.starts_with("A1 BAD "));
    assert!(
        client
            .imap("FETCH 1 BODY[TEXT]")
            .await
            .ends_with("* 1 FETCH (UID 1 FLAGS (\\Seen))\r\nA1 OK fetched\r\n")
    );
    assert!(server.messages(ANA, "INBOX")[0].flags.contains("\\Seen"));
}

#[tokio::test]
async fn a_server_may_give_all_where_a_part_is_asked_for() {
    for (parts, part) in [
        (PartialFetch::Served, format!("BODY[]<1> {{2}}\r\n{}", &MAIL[1..3])),
        (PartialFetch::Whole, format!("BODY[] {{{}}}\r\n{MAIL}", MAIL.len())),
        (PartialFetch::WholeAsPart, format!("BODY[]<1> {{{}}}\r\n{MAIL}", MAIL.len())),
    ] {
        let server = MailServer::builder().account(ANA, "secret").partial_fetch(parts).start().await.unwrap();
        server.deliver(ANA, MAIL);
        let answer = select(&server).await.imap("FETCH 1 BODY.PEEK[]<1.2>").await;
        assert_eq!(answer, format!("* 1 FETCH ({part})\r\nA1 OK fetched\r\n"));
    }
}

#[tokio::test]
async fn uids_are_sparse_and_sets_are_read_as_the_standard_says() {
    let server = server().await;
    for uid in [1, 5, 4_294_967_290] {
        server.skip_to_uid(ANA, "INBOX", uid);
        server.deliver(ANA, MAIL);
    }
    let mut client = select(&server).await;
    for (set, uids) in [
        ("1:*", "1 5 4294967290"),
        ("2:4", ""),
        ("*", "4294967290"),
        ("9:5", "5"),
        ("4294967295:*", "4294967290"),
        ("5,1,1:2", "1 5"),
    ] {
        let answer = client.imap(&format!("UID FETCH {set} UID")).await;
        let told: Vec<_> = answer
            .lines()
            .filter_map(|line| Some(line.split_once("(UID ")?.1.trim_end_matches(')')))
            .collect();
        assert_eq!(told.join(" "), uids, "{set}");
        let found = client.imap(&format!("UID SEARCH UID {set}")).await;
        assert_eq!(found, format!("* SEARCH {uids}\r\nA1 OK searched\r\n").replace("SEARCH \r", "SEARCH\r"));
    }
    assert!(
        client.imap("FETCH 2:* UID").await.starts_with("* 2 FETCH (UID 5)\r\n* 3 FETCH (UID 4294967290)\r\n")
    );
    server.create_folder(ANA, "Empty");
    client.imap("SELECT Empty").await;
    assert_eq!(client.imap("UID FETCH 1:* UID").await, "A1 OK fetched\r\n");
    assert_eq!(client.imap("UID SEARCH ALL").await, "* SEARCH\r\nA1 OK searched\r\n");
}

#[tokio::test]
async fn searches_find_what_fits_every_key() {
    let server = server().await;
    let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
    server.deliver_dated(ANA, "INBOX", MAIL, day(10_000));
    server.deliver_dated(ANA, "INBOX", MAIL.replace("1@", "2@"), day(10_001));
    server.deliver_dated(ANA, "INBOX", MAIL.replace("Hi", "Olá"), day(10_002));
    server.set_flags(ANA, "INBOX", 2, &["\\Seen", "work"]);
    let mut client = select(&server).await;
    for (keys, found) in [
        ("ALL", "1 2 3"),
        ("UNSEEN", "1 3"),
        ("SEEN KEYWORD Work", "2"),
        ("HEADER Message-ID <2@HOST.example>", "2"),
        ("HEADER Subject \"\"", "1 2 3"),
        ("HEADER X-None \"\"", ""),
        ("SINCE 20-May-1997", "2 3"),
        ("BEFORE 20-May-1997", "1"),
        ("ON 20-May-1997", "2"),
        ("OR 1 UID 3", "1 3"),
        ("NOT (UNSEEN SUBJECT hi)", "2 3"),
        ("CHARSET UTF-8 BODY hello LARGER 10 2:3", "2 3"),
        ("RECENT", ""),
    ] {
        let answer = client.imap(&format!("SEARCH {keys}")).await;
        assert_eq!(
            answer,
            format!("* SEARCH {found}\r\nA1 OK searched\r\n").replace("SEARCH \r", "SEARCH\r"),
            "{keys}"
        );
    }
    assert_eq!(client.imap("SEARCH SUBJECT {4+}\r\nOlá").await, "* SEARCH 3\r\nA1 OK searched\r\n");
    assert!(client.imap("SEARCH SENTON 20-May-1997").await.starts_with("A1 NO [CANNOT]"));
    assert!(client.imap("SEARCH 4").await.starts_with("A1 BAD "));
}

#[tokio::test]
async fn flags_are_stored_told_and_silent() {
    let server = server().await;
    server.deliver(ANA, MAIL);
    server.deliver(ANA, MAIL);
    let mut client = select(&server).await;
    assert_eq!(
        client.imap("UID STORE 1:2 +FLAGS (\\Flagged work)").await,
        "* 1 FETCH (UID 1 FLAGS (\\Flagged work))\r\n* 2 FETCH (UID 2 FLAGS (\\Flagged work))\r\nA1 OK flags stored\r\n"
    );
    assert_eq!(client.imap("STORE 1 -FLAGS.SILENT (work)").await, "A1 OK flags stored\r\n");
    assert_eq!(
        client.imap("STORE 2 FLAGS (\\Seen)").await,
        "* 2 FETCH (FLAGS (\\Seen))\r\nA1 OK flags stored\r\n"
    );
    assert_eq!(client.imap("NOOP").await, "A1 OK nothing done\r\n");
    let flags: Vec<_> = server.messages(ANA, "INBOX").into_iter().flat_map(|kept| kept.flags).collect();
    assert_eq!(flags, ["\\Flagged", "\\Seen"]);
}

#[tokio::test]
async fn messages_are_copied_moved_appended_and_expunged_with_their_new_uids() {
    let server = server().await;
    for _ in 0..4 {
        server.deliver(ANA, MAIL);
    }
    let validity = server.uid_validity(ANA, DEEP);
    let mut client = select(&server).await;
    let copied = client.imap(&format!("UID COPY 1:2 {DEEP_WIRE}")).await;
    assert_eq!(copied, format!("A1 OK [COPYUID {validity} 1:2 1:2] copied\r\n"));
    let moved = client.imap(&format!("UID MOVE 2,4 {DEEP_WIRE}")).await;
    assert_eq!(
        moved,
        format!("* OK [COPYUID {validity} 2,4 3:4] moved\r\n* 4 EXPUNGE\r\n* 2 EXPUNGE\r\nA1 OK moved\r\n")
    );
    assert_eq!(
        client.imap("UID MOVE 99 Suporte").await,
        "A1 OK no such message\r\n".replace("no such message", "moved")
    );
    assert!(client.imap("COPY 1 Missing").await.starts_with("A1 NO [TRYCREATE]"));
    client.imap("STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(client.imap("UID EXPUNGE 3").await, "* 2 EXPUNGE\r\nA1 OK expunged\r\n");
    assert_eq!(client.imap("EXPUNGE").await, "* 1 EXPUNGE\r\nA1 OK expunged\r\n");
    let size = MAIL.len();
    let append = format!("APPEND {DEEP_WIRE} (\\Seen) \"09-Sep-2001 01:46:40 +0000\" {{{size}}}");
    assert_eq!(client.imap(&append).await, "+ go on\r\n");
    client.write(format!("{MAIL}\r\n").as_bytes()).await;
    assert_eq!(client.line().await, format!("A1 OK [APPENDUID {validity} 5] appended\r\n"));
    assert!(
        client.imap(&format!("APPEND Missing {{{size}+}}\r\n{MAIL}")).await.starts_with("A1 NO [TRYCREATE]")
    );
    let kept = server.messages(ANA, DEEP);
    assert_eq!(kept.len(), 5);
    assert_eq!((kept[4].bytes.as_ref(), kept[4].flags.contains("\\Seen")), (MAIL.as_bytes(), true));
    assert_eq!(kept[4].received, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    client.imap(&format!("SELECT {DEEP_WIRE}")).await;
    client.imap("STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
    client.imap("UNSELECT").await;
    assert_eq!(server.messages(ANA, DEEP).len(), 5);
    client.imap(&format!("SELECT {DEEP_WIRE}")).await;
    assert_eq!(client.imap("CLOSE").await, "A1 OK closed\r\n");
    assert_eq!(server.messages(ANA, DEEP).len(), 3);
}

// Telling an EXPUNGE during FETCH would renumber what the client is reading (RFC 3501 section 7.4.1).
#[tokio::test]
async fn what_other_clients_do_is_told_when_it_may_be() {
    let server = server().await;
    for _ in 0..3 {
        server.deliver(ANA, MAIL);
    }
    let mut client = select(&server).await;
    server.expunge(ANA, "INBOX", 1);
    server.set_flags(ANA, "INBOX", 3, &["\\Answered"]);
    server.deliver(ANA, MAIL);
    assert_eq!(
        client.imap("FETCH 1:2 UID").await,
        "* 2 FETCH (UID 2)\r\n* 4 EXISTS\r\n* 3 FETCH (UID 3 FLAGS (\\Answered))\r\n\
         A1 NO [EXPUNGEISSUED] some of these messages are gone\r\n"
    );
    assert_eq!(client.imap("SEARCH ALL").await, "* SEARCH 2 3 4\r\nA1 OK searched\r\n");
    assert_eq!(
        client.imap("UID FETCH 1:2 UID").await,
        "* 2 FETCH (UID 2)\r\n* 1 EXPUNGE\r\nA1 OK fetched\r\n"
    );
    assert_eq!(client.imap("NOOP").await, "A1 OK nothing done\r\n");
    assert_eq!(client.imap("FETCH 3 UID").await, "* 3 FETCH (UID 4)\r\nA1 OK fetched\r\n");
    server.reset_uid_validity(ANA, "INBOX");
    assert!(client.imap("NOOP").await.starts_with("* BYE "));
    assert_eq!(client.line().await, "");
    assert_eq!(server.messages(ANA, "INBOX").iter().map(|kept| kept.uid).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(server.uid_validity(ANA, "INBOX") > 1);
}

#[tokio::test]
async fn an_idle_client_is_told_at_once() {
    let server = server().await;
    let mut client = select(&server).await;
    assert_eq!(client.imap("IDLE").await, "+ idling\r\n");
    server.deliver(ANA, MAIL);
    assert_eq!(client.line().await, "* 1 EXISTS\r\n");
    server.set_flags(ANA, "INBOX", 1, &["\\Seen"]);
    assert_eq!(client.line().await, "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n");
    server.expunge(ANA, "INBOX", 1);
    assert_eq!(client.line().await, "* 1 EXPUNGE\r\n");
    client.write(b"DONE\r\n").await;
    assert_eq!(client.line().await, "A1 OK idled\r\n");
    client.imap("IDLE").await;
    client.write(b"A2 NOOP\r\n").await;
    assert!(client.line().await.starts_with("A1 BAD "));
}

#[tokio::test]
async fn what_is_withheld_is_neither_offered_nor_served() {
    let withheld = [
        "LITERAL+",
        "SASL-IR",
        "IDLE",
        "UIDPLUS",
        "MOVE",
        "UNSELECT",
        "ID",
        "NAMESPACE",
        "LOGIN",
        "AUTH=LOGIN",
    ];
    let mut builder = MailServer::builder().account(ANA, "secret").danger_plaintext_auth();
    for capability in withheld {
        builder = builder.without(Protocol::Imap, capability);
    }
    let server = builder.start().await.unwrap();
    server.deliver(ANA, MAIL);
    let mut client = Client::connect(&server, Protocol::Imap).await;
    assert_eq!(
        client.imap("CAPABILITY").await,
        "* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN LOGINDISABLED\r\nA1 OK that is all\r\n"
    );
    assert!(client.imap(&format!("LOGIN {ANA} secret")).await.starts_with("A1 NO "));
    assert!(client.imap("AUTHENTICATE LOGIN").await.starts_with("A1 NO "));
    assert!(client.imap("AUTHENTICATE PLAIN AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0").await.starts_with("A1 BAD "));
    client.imap("AUTHENTICATE PLAIN").await;
    client.write(b"AGFuYUBhY21lLmV4YW1wbGUAc2VjcmV0\r\n").await;
    assert!(client.line().await.starts_with("A1 OK "));
    client.imap("SELECT INBOX").await;
    assert_eq!(client.imap("COPY 1 INBOX").await, "* 2 EXISTS\r\nA1 OK copied\r\n");
    for command in ["IDLE", "UID EXPUNGE 1", "MOVE 1 INBOX", "UNSELECT", "ID NIL", "NAMESPACE"] {
        assert!(client.imap(command).await.starts_with("A1 BAD "), "{command}");
    }
    assert!(client.imap("SEARCH SUBJECT {2+}\r\nHi").await.starts_with("A1 BAD LITERAL+"));
    assert!(client.line().await.starts_with("* BYE "));
}

#[tokio::test]
async fn a_literal_over_the_limit_is_refused_before_it_is_sent() {
    let server = MailServer::builder().account(ANA, "secret").size_limit(10).start().await.unwrap();
    let mut client = sign_in(&server).await;
    assert!(client.imap("APPEND INBOX {11}").await.starts_with("A1 NO [TOOBIG]"));
    assert!(client.imap("APPEND INBOX {4294967295}").await.starts_with("A1 NO [TOOBIG]"));
    assert_eq!(client.imap("APPEND INBOX {10}").await, "+ go on\r\n");
    client.write(b"0123456789\r\n").await;
    assert!(client.line().await.starts_with("A1 OK "));
    assert!(client.imap("APPEND INBOX {11+}").await.starts_with("A1 NO [TOOBIG]"));
    assert!(client.line().await.starts_with("* BYE "));
}

#[tokio::test]
async fn nonsense_is_answered_and_bare_newlines_end_the_session() {
    let server = server().await;
    let mut client = sign_in(&server).await;
    for command in ["FROB", "SELECT", "FETCH 0 UID", "EXPUNGE", "FETCH 1 UID", "LOGIN a b", "STARTTLS", ""] {
        assert!(client.imap(command).await.starts_with("A1 BAD "), "{command}");
    }
    client.write(b"\"\r\n").await;
    assert!(client.line().await.starts_with("* BAD "));
    client.write(b"A1 NOOP\nA2 NOOP\r\n").await;
    assert!(client.line().await.starts_with("* BYE "));
}

/// Would miss a message that keeps its old UID beside the new one, or comes back as another message.
#[tokio::test]
async fn a_message_that_gets_another_uid_is_gone_under_the_old_one_and_else_the_same() {
    let server = server().await;
    let uid = server.deliver_dated(ANA, "INBOX", MAIL, SystemTime::UNIX_EPOCH);
    server.set_flags(ANA, "INBOX", uid, &["\\Seen"]);
    let mut client = select(&server).await;
    let before = server.messages(ANA, "INBOX")[0].clone();
    let renumbered = server.renumber_message(ANA, "INBOX", uid);
    let told = client.imap("NOOP").await;
    assert!(told.starts_with("* 1 EXPUNGE\r\n* 1 EXISTS\r\n"), "{told}");
    let after = server.messages(ANA, "INBOX");
    assert_eq!((after.len(), after[0].uid), (1, renumbered));
    assert_eq!(
        (&after[0].flags, &after[0].bytes, after[0].received),
        (&before.flags, &before.bytes, before.received)
    );
    assert_ne!(renumbered, uid);
}
