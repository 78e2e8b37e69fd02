//! Message-IDs that can't be guessed, and the threads that they tie together: how one is made, recognised, looked for in
//! an answer and passed on in ours. The look-up itself is the engine's.

use std::fmt;

use data_encoding::BASE32_DNSSEC;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

use crate::address::{Address, Domain};
use crate::id::{ContractId, QueueId, RecordId};
use crate::mail::Mail;

/// Random bytes in a Message-ID.
pub const RANDOM: usize = 12;
const NUMBER: usize = 4;
/// 112 bits of the MAC: 30 bytes in all are 48 characters without padding.
const MAC: usize = 14;

/// How many Message-IDs References has at most when postroom writes it.
pub const REFERENCES_LIMIT: usize = 40;
/// How many Message-IDs of an answer are looked up at most.
pub const CANDIDATES_LIMIT: usize = 40;

/// One key of the keyring by which Message-IDs are signed. It must be kept while mail that bears it may be answered.
pub struct TokenKey {
    number: u32,
    key: SecretBox<[u8; 32]>,
}

impl TokenKey {
    /// The key with this number in the keyring.
    #[must_use]
    pub fn new(number: u32, key: [u8; 32]) -> Self {
        Self { number, key: SecretBox::new(Box::new(key)) }
    }

    /// Its number, which stands in each Message-ID.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    fn mac(&self, random: &[u8], domain: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes a key of any length");
        // The label keeps this use of the key apart from every other.
        mac.update(b"postroom message-id 1\0");
        mac.update(&self.number.to_be_bytes());
        mac.update(random);
        mac.update(domain.as_bytes());
        mac
    }

    fn tag_mac(&self, mail: QueueId) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes a key of any length");
        mac.update(b"postroom plus-tag 1\0");
        mac.update(&self.number.to_be_bytes());
        mac.update(mail.uuid().as_bytes());
        mac
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A new Message-ID, `<base32(random, key number, MAC)@domain>` in lower case; `domain` is the sender's.
#[must_use]
pub fn message_id(key: &TokenKey, random: [u8; RANDOM], domain: &Domain) -> String {
    let mac = key.mac(&random, domain.as_str()).finalize().into_bytes();
    let mut token = Vec::with_capacity(RANDOM + NUMBER + MAC);
    token.extend_from_slice(&random);
    token.extend_from_slice(&key.number.to_be_bytes());
    token.extend_from_slice(&mac[..MAC]);
    format!("<{}@{domain}>", BASE32_DNSSEC.encode(&token))
}

/// Whether a Message-ID was made by [`message_id`] with one of our keys: the number of that key, or none. Some programs
/// change the case of a Message-ID, and some drop the brackets, so neither counts. Takes constant time in the MAC.
#[must_use]
pub fn verify<'a>(message_id: &str, keys: impl Fn(u32) -> Option<&'a TokenKey>) -> Option<u32> {
    let bare = message_id.trim();
    let bare = bare.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(bare);
    let (token, domain) = bare.split_once('@')?;
    let token = BASE32_DNSSEC.decode(token.as_bytes()).ok()?;
    let (random, rest) = token.split_at_checked(RANDOM)?;
    let (number, mac) = rest.split_first_chunk::<NUMBER>()?;
    let number = u32::from_be_bytes(*number);
    let key = keys(number).filter(|key| key.number == number && mac.len() == MAC)?;
    let expected = key.mac(random, &domain.to_ascii_lowercase());
    expected.verify_truncated_left(mac).ok().map(|()| number)
}

/// The bytes of a plus tag's MAC: 80 bits.
const SHORT_MAC: usize = 10;
/// The characters of a plus tag.
const TAG: usize = (16 + NUMBER + SHORT_MAC) * 8 / 5;

/// The plus tag that names a sent mail: base32 in lower case of its id, the key's number and a MAC, 48 characters. What is sent to
/// an address with it is about that mail, whoever writes: a bounce, or an answer.
#[must_use]
pub fn plus_tag(key: &TokenKey, mail: QueueId) -> String {
    let mac = key.tag_mac(mail).finalize().into_bytes();
    let mut token = Vec::with_capacity(16 + NUMBER + SHORT_MAC);
    token.extend_from_slice(mail.uuid().as_bytes());
    token.extend_from_slice(&key.number.to_be_bytes());
    token.extend_from_slice(&mac[..SHORT_MAC]);
    BASE32_DNSSEC.encode(&token)
}

/// The sent mail that the plus tag of an address names, if one of our keys made it. The case does not count.
#[must_use]
pub fn verify_plus<'a>(address: &Address, keys: impl Fn(u32) -> Option<&'a TokenKey>) -> Option<QueueId> {
    let (_, tag) = address.local().rsplit_once('+')?;
    verify_tag(tag, keys)
}

fn verify_tag<'a>(tag: &str, keys: impl Fn(u32) -> Option<&'a TokenKey>) -> Option<QueueId> {
    let token = BASE32_DNSSEC.decode(tag.as_bytes()).ok()?;
    let (id, rest) = token.split_first_chunk::<16>()?;
    let (number, mac) = rest.split_first_chunk::<NUMBER>()?;
    let number = u32::from_be_bytes(*number);
    let key = keys(number).filter(|key| key.number == number && mac.len() == SHORT_MAC)?;
    let mail = QueueId::from_uuid(uuid::Uuid::from_bytes(*id));
    key.tag_mac(mail).verify_truncated_left(mac).ok().map(|()| mail)
}

/// Whether an address looks as if it had a plus tag of ours: only then are keys worth opening.
#[must_use]
pub fn may_be_tagged(address: &Address) -> bool {
    let tag = address.local().rsplit_once('+').map(|(_, tag)| tag);
    tag.is_some_and(|tag| tag.len() == TAG)
}

/// What a subject has where the mail's token is to stand.
pub const SUBJECT_PLACE: &str = "[#*]";

/// A subject with the mail's token, `[#TAG]`, in place of the first [`SUBJECT_PLACE`]; one without that stays as it is. The weakest link of a thread: a
/// program that answers keeps the subject where it drops every other field, and a person who forwards the mail passes it on.
#[must_use]
pub fn tagged_subject(subject: &str, key: &TokenKey, mail: QueueId) -> String {
    subject.replacen(SUBJECT_PLACE, &format!("[#{}]", plus_tag(key, mail)), 1)
}

/// What looks like a token of ours in a subject: only then are keys worth opening.
fn subject_tags(subject: &str) -> impl Iterator<Item = &str> {
    subject
        .split("[#")
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .map(|(tag, _)| tag)
        .filter(|tag| tag.len() == TAG)
}

/// Whether a subject looks as if it had a token of ours.
#[must_use]
pub fn may_have_token(subject: &str) -> bool {
    subject_tags(subject).next().is_some()
}

/// The sent mail that the first good token of a subject names. The case does not count.
#[must_use]
pub fn verify_subject<'a>(subject: &str, keys: impl Fn(u32) -> Option<&'a TokenKey>) -> Option<QueueId> {
    subject_tags(subject).find_map(|tag| verify_tag(tag, &keys))
}

/// The return path or Reply-To of a mail: `+*` at the end of its local part (`bounces+*@acme.example`) becomes the mail's plus tag.
#[must_use]
pub fn tagged(return_path: &Address, key: &TokenKey, mail: QueueId) -> Address {
    let Some(base) = return_path.local().strip_suffix("+*") else { return return_path.clone() };
    let text = format!("{base}+{}@{}", plus_tag(key, mail), return_path.domain());
    // A local part that is too long for a tag keeps the address without one.
    let bare = || Address::parse(&format!("{base}@{}", return_path.domain()));
    Address::parse(&text).or_else(|_| bare()).unwrap_or_else(|_| return_path.clone())
}

/// The Message-IDs by which the mail that this one answers can be found, the most likely first: In-Reply-To, then
/// References from the newest to the oldest; each once, at most [`CANDIDATES_LIMIT`].
#[must_use]
pub fn references_of(mail: &Mail) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for id in mail.in_reply_to.iter().chain(mail.references.iter().rev()) {
        if all.len() == CANDIDATES_LIMIT {
            break;
        }
        if !all.contains(&id.as_str()) {
            all.push(id);
        }
    }
    all
}

/// The References of an answer to a mail with this References, In-Reply-To and Message-ID (RFC 5322 section 3.6.4), at
/// most [`REFERENCES_LIMIT`]: the first stays, since it names the thread, and the newest stay.
#[must_use]
pub fn references_for_answer(
    references: &[String],
    in_reply_to: &[String],
    message_id: Option<&str>,
) -> Vec<String> {
    // "If the parent message does not contain a "References:" field but does have an "In-Reply-To:" field containing a
    // single message identifier", that one stands for it.
    let parent = match (references, in_reply_to) {
        ([], [one]) => std::slice::from_ref(one),
        (references, _) => references,
    };
    let mut all: Vec<String> = Vec::with_capacity(parent.len() + 1);
    for id in parent.iter().map(String::as_str).filter(|id| Some(*id) != message_id).chain(message_id) {
        if !all.iter().any(|other| other == id) {
            all.push(id.to_owned());
        }
    }
    if all.len() > REFERENCES_LIMIT {
        all.drain(1..=all.len() - REFERENCES_LIMIT);
    }
    all
}

/// The sent mail that a received one answers, found by one of [`references_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thread {
    /// The contract that sent it.
    pub contract: ContractId,
    /// What it was about.
    pub record: Option<RecordId>,
    /// The sent mail.
    pub message: QueueId,
}

impl Thread {
    /// The thread of a sent mail.
    #[must_use]
    pub fn new(contract: ContractId, record: Option<RecordId>, message: QueueId) -> Self {
        Self { contract, record, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u32) -> TokenKey {
        TokenKey::new(number, [u8::try_from(number % 251).expect("small"); 32])
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).expect("domain")
    }

    #[test]
    fn a_message_id_is_recognised_whatever_its_case_and_brackets() {
        let key = key(7);
        let id = message_id(&key, [9; RANDOM], &domain("acme.example"));
        assert_eq!(id.len(), "<@acme.example>".len() + 48);
        assert_eq!(id, id.to_lowercase());
        let verify = |text: &str| verify(text, |number| (number == 7).then_some(&key));
        assert_eq!(verify(&id), Some(7));
        assert_eq!(verify(&id.to_uppercase()), Some(7));
        assert_eq!(verify(id.trim_matches(['<', '>'])), Some(7));
    }

    #[test]
    fn a_changed_or_foreign_message_id_is_not_ours() {
        let (ours, other) = (key(7), TokenKey::new(7, [1; 32]));
        let id = message_id(&ours, [9; RANDOM], &domain("acme.example"));
        let verify = |text: &str| verify(text, |_| Some(&ours));
        // Would miss a MAC that does not cover the domain, the random part or the number if only one were changed.
        assert_eq!(verify(&id.replace("acme", "evil")), None);
        for at in 1..=48 {
            let mut bytes = id.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(verify(&String::from_utf8(bytes).expect("ASCII")), None, "{at}");
        }
        assert_eq!(verify(&message_id(&other, [9; RANDOM], &domain("acme.example"))), None);
        for foreign in
            ["", "<>", "@", "<a@b>", "<@acme.example>", "é@é", &format!("<{}@acme.example>", &id[1..21])]
        {
            assert_eq!(verify(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let shown = format!("{:?}", TokenKey::new(3, [0xAB; 32]));
        assert_eq!(shown, "TokenKey { number: 3, .. }");
    }

    #[test]
    fn an_answer_refers_to_the_first_and_the_newest() {
        let ids = |range: std::ops::Range<usize>| range.map(|n| format!("<{n}@x>")).collect::<Vec<_>>();
        assert_eq!(references_for_answer(&[], &[], Some("<p@x>")), ["<p@x>"]);
        assert_eq!(references_for_answer(&[], &ids(0..1), Some("<p@x>")), ["<0@x>", "<p@x>"]);
        assert_eq!(references_for_answer(&[], &ids(0..2), Some("<p@x>")), ["<p@x>"]);
        assert_eq!(references_for_answer(&ids(0..2), &[], None), ["<0@x>", "<1@x>"]);
        let many = references_for_answer(&ids(0..500), &[], Some("<p@x>"));
        assert_eq!(many.len(), REFERENCES_LIMIT);
        assert_eq!((many[0].as_str(), many[1].as_str()), ("<0@x>", "<462@x>"));
        assert_eq!(many.last().map(String::as_str), Some("<p@x>"));
    }

    #[test]
    fn candidates_are_the_answered_mail_first_and_each_once() {
        let mail = Mail {
            in_reply_to: vec!["<c@x>".into()],
            references: ["<a@x>", "<b@x>", "<c@x>"].map(String::from).to_vec(),
            ..Mail::default()
        };
        assert_eq!(references_of(&mail), ["<c@x>", "<b@x>", "<a@x>"]);
    }

    proptest! {
        #[test]
        fn every_message_id_of_ours_is_recognised(random: [u8; RANDOM], number: u32, bytes: [u8; 32], name in "[a-z]{1,20}(\\.[a-z]{2,8}){1,3}") {
            let key = TokenKey::new(number, bytes);
            let id = message_id(&key, random, &domain(&name));
            prop_assert_eq!(verify(&id, |asked| (asked == number).then_some(&key)), Some(number));
        }

        #[test]
        fn no_text_makes_verifying_panic(text in "\\PC*") {
            let key = key(0);
            let _ = verify(&text, |_| Some(&key));
        }
    }

    fn mail(number: u8) -> QueueId {
        QueueId::new(crate::time::Timestamp::from_millis(1), [number; 10])
    }

    #[test]
    fn a_return_path_with_a_star_names_its_mail_to_us_only() {
        let (key, other) = (key(3), TokenKey::new(3, [9; 32]));
        let path = Address::parse("bounces+*@acme.example").expect("address");
        let tagged = tagged(&path, &key, mail(7));
        assert!(tagged.local().len() <= 64, "RFC 5321 section 4.5.3.1.1");
        let by = |address: &str, key: &TokenKey| {
            verify_plus(&Address::parse(address).expect("address"), |number| (number == 3).then_some(key))
        };
        assert_eq!(by(tagged.as_str(), &key), Some(mail(7)));
        assert!(may_be_tagged(&tagged) && !may_be_tagged(&path));
        assert_eq!(by(&tagged.as_str().to_uppercase(), &key), Some(mail(7)));
        assert_eq!(by(tagged.as_str(), &other), None, "another key of the same number");
        assert_eq!(by(&tagged.as_str().replacen("bounces+0", "bounces+1", 1), &key), None);
        for plain in ["bounces@acme.example", "bounces+*@acme.example", "bounces+7@acme.example"] {
            assert_eq!(by(plain, &key), None, "{plain}");
        }
    }

    #[test]
    fn a_subject_names_its_mail_to_us_only_wherever_the_token_stands() {
        let (key, other) = (key(3), TokenKey::new(3, [9; 32]));
        let subject = tagged_subject("Your request [#*] is open", &key, mail(7));
        assert!(subject.starts_with("Your request [#") && subject.ends_with("] is open"), "{subject}");
        let by =
            |subject: &str, key: &TokenKey| verify_subject(subject, |number| (number == 3).then_some(key));
        let answer = format!("RE: [#12] [EXT] {}", subject.to_uppercase());
        assert!(may_have_token(&answer));
        assert_eq!((by(&answer, &key), by(&answer, &other)), (Some(mail(7)), None));
        // Would miss a token that is believed for its form.
        let digit = subject.find("[#").expect("it has one") + 2;
        let forged = format!(
            "{}{}{}",
            &subject[..digit],
            if &subject[digit..=digit] == "0" { "1" } else { "0" },
            &subject[digit + 1..]
        );
        assert_eq!(by(&forged, &key), None);
        for plain in ["", "[#", "[#]", "[#*]", "[#é]", "Ticket [#7]", &subject[..subject.len() - 20]] {
            assert!(!may_have_token(plain) && by(plain, &key).is_none(), "{plain}");
        }
        assert_eq!(tagged_subject("no place", &key, mail(7)), "no place");
    }

    #[test]
    fn a_path_without_a_star_or_too_long_for_a_tag_stays_without() {
        let of = |path: &str| tagged(&Address::parse(path).expect("address"), &key(1), mail(1)).to_string();
        assert_eq!(of("bounces@acme.example"), "bounces@acme.example");
        let long = "b".repeat(20);
        assert_eq!(of(&format!("{long}+*@acme.example")), format!("{long}@acme.example"));
    }
}
