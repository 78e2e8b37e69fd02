//! The dialogues of `dialogs/imap` and `dialogs/pop3`, each played by one test, and that none is forgotten; besides, what the suite
//! of the port can't ask: truncation, random changes, a folder of a million, the words of a probe.
#![cfg(all(feature = "imap", feature = "pop3"))]
#![expect(clippy::unwrap_used, reason = "what a test can't go on without")]

#[path = "incoming/fickle.rs"]
mod fickle;
#[path = "incoming/idle.rs"]
mod idle;
#[path = "incoming/imap.rs"]
mod imap;
#[path = "incoming/large.rs"]
mod large;
#[path = "incoming/many.rs"]
mod many;
#[path = "incoming/million.rs"]
mod million;
#[path = "incoming/mutation.rs"]
mod mutation;
#[path = "incoming/pop3.rs"]
mod pop3;
#[path = "incoming/probe.rs"]
mod probe;
#[path = "incoming/replay.rs"]
mod replay;
#[path = "incoming/scripted.rs"]
mod scripted;
#[path = "incoming/truncation.rs"]
mod truncation;
#[path = "incoming/whole.rs"]
mod whole;

#[test]
fn every_dialogue_is_played() {
    let played = concat!(
        include_str!("incoming/idle.rs"),
        include_str!("incoming/imap.rs"),
        include_str!("incoming/many.rs"),
        include_str!("incoming/pop3.rs"),
        include_str!("incoming/whole.rs"),
    );
    for protocol in ["imap", "pop3"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs").join(protocol);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let is_played = ["\"", "/"].iter().any(|before| played.contains(&format!("{before}{stem}\"")));
            assert!(is_played, "nobody plays {protocol}/{stem}");
        }
    }
}
