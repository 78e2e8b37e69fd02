//! Text forms parse back, in JSON too; and what must not have one has none.

use std::fmt::Display;

use postroom_core::address::{Address, Domain, NamedAddress};
use postroom_core::contract::Requesters;
use postroom_core::credentials::Credentials;
use postroom_core::endpoint::{Authority, Host, Tls};
use postroom_core::id::{
    Actor, BodyId, ClaimId, ContractId, EventNumber, FlowId, IdempotencyKey, LedgerId, MailboxId, QueueId,
    RecordId, Revision, StepId, StepKey, WorkerId,
};
use postroom_core::ledger::{self, RemoteKey};
use postroom_core::mailbox::{AfterStore, Baseline, Kind, SentCopy, Status};
use postroom_core::message::{OnDoubt, Priority};
use postroom_core::provider::Provider;
use postroom_core::queue;
use postroom_core::resolve::WhenUnavailable;
use postroom_core::secret::{SecretChange, SecretString};
use postroom_core::step::StepRecipient;
use postroom_core::template::Template;
use postroom_core::time::Timestamp;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The text form and the JSON form of a value give the value again.
fn returns<T, E>(value: &T, parse: impl Fn(&str) -> Result<T, E>) -> Result<(), TestCaseError>
where
    T: Display + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned,
    E: std::fmt::Debug + PartialEq,
{
    prop_assert_eq!(&parse(&value.to_string()).expect("its own text"), value);
    let json = serde_json::to_string(value).expect("JSON");
    prop_assert_eq!(&serde_json::from_str::<T>(&json).expect("its own JSON"), value);
    Ok(())
}

/// Whatever a text is read as, it is read as the same from the form that it then has.
macro_rules! what_is_read_returns {
    ($text:expr; $($name:ty),+ $(,)?) => {$(
        if let Ok(value) = <$name>::parse($text) {
            returns(&value, <$name>::parse)?;
        }
    )+};
}

macro_rules! every_word_returns {
    ($($name:ty),+ $(,)?) => {$(
        for value in <$name>::ALL {
            returns(value, <$name>::parse).expect("a word");
            assert_eq!(<$name>::parse(&format!(" {} ", value.to_string().to_uppercase())), Ok(*value));
        }
    )+};
}

#[test]
fn every_word_is_read_as_its_value() {
    every_word_returns!(
        Status,
        Kind,
        Tls,
        Provider,
        Requesters,
        Priority,
        OnDoubt,
        WhenUnavailable,
        queue::State,
        queue::Event,
        queue::Role,
        ledger::State,
        ledger::Event,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_a_text_is_read_as_it_is_read_as_the_same_again(text in prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9 %/2F5:.@<>\"\\\\_-]{0,30}",
        "[a-z]{1,8}@[a-z]{1,8}\\.[a-z]{2,5}",
        "(uid|uidl|content):[0-9a-f]{1,10}(:[0-9]{1,3})?",
        "(leave|seen|delete|delete:[0-9]{1,4}|move:[A-Za-z/ ]{1,12}|append:[A-Za-z/ ]{1,12}|no|days:[0-9]{1,4}|new|all)",
        "[0-9]{1,20}|-?[0-9]{1,3}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-5][0-9])",
        "(::1|\\[fe80::1\\]|127\\.0\\.0\\.1|[a-zé]{1,9}\\.example\\.?)",
    ]) {
        what_is_read_returns!(
            &text;
            MailboxId, Revision, EventNumber, QueueId, LedgerId, ClaimId, BodyId, WorkerId, ContractId, FlowId, StepId,
            RecordId, IdempotencyKey, Actor, StepKey, Timestamp, Domain, Address, NamedAddress, Host, AfterStore, Baseline,
            SentCopy, RemoteKey, StepRecipient,
        );
    }

    #[test]
    fn a_step_key_returns_whatever_its_ids_are(flow in "[a%/2F5é ]{1,12}", step in "[a%/2F5é ]{1,12}") {
        let key = StepKey::new(FlowId::parse(&flow).expect("id"), StepId::parse(&step).expect("id"));
        prop_assert_eq!(key.to_string().matches('/').count(), 1);
        returns(&key, StepKey::parse)?;
    }

    #[test]
    fn a_template_without_html_returns(subject in "[^\\p{C}$]{0,40}", text in "[^$]{0,80}") {
        let template = Template::new(&subject, &text, None).expect("a template without gaps");
        prop_assert_eq!(Template::parse(&template.to_string()).expect("its own text"), template);
    }

    #[test]
    fn no_text_makes_a_template_panic(subject in "[${}A $]{0,20}", text in "\\PC{0,30}[${}A$]{0,20}") {
        if let Ok(template) = Template::new(&subject, &text, Some(&text)) {
            let _ = template.keys();
        }
    }

    #[test]
    fn a_uuid_sorts_by_its_time(earlier in 0i64..1 << 47, later in 1i64..1 << 20, random: [u8; 10]) {
        let id = |millis| QueueId::new(Timestamp::from_millis(millis), random);
        prop_assert!(id(earlier) < id(earlier + later));
    }
}

#[test]
fn an_authority_returns() {
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----";
    returns(&Authority::parse(pem).expect("PEM"), Authority::parse).expect("the same");
}

#[test]
fn a_secret_has_no_text_form() {
    let secret = || SecretString::from("hunter2");
    let shown = format!("{:?} {:?}", SecretChange::Set(secret()), Credentials::password("u", secret()));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("REDACTED"), "{shown}");
}
