//! The handler of `run --deliver-to`: each received mail becomes a pair of files, ID.eml with the raw bytes and ID.json with what
//! was read and decided. The pair is on the medium before the mail counts as handled.

use std::fs::{File, create_dir_all, rename};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use postroom::engine::{Answer, Delivery, MessageHandler};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output::note;

/// How long a full disk may take to be emptied before the next try.
const AGAIN: Duration = Duration::from_secs(10);

/// Writes pairs into one folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder, made if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        create_dir_all(path).map_err(|error| Failure::file(path, &error))?;
        Ok(Self { path: path.to_owned() })
    }
}

#[async_trait]
impl MessageHandler for Folder {
    async fn handle(&self, delivery: Delivery) -> Answer {
        let folder = self.path.clone();
        let id = delivery.id;
        let written = tokio::task::spawn_blocking(move || write_pair(&folder, &delivery)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => Answer::Done,
            Err(error) => {
                let reason = format!("it could not be written to {}: {error}", self.path.display());
                note(&format!("mail {id}: {reason}; it is tried again"));
                Answer::Retry { after: Some(AGAIN), reason }
            }
        }
    }
}

/// Writes the pair of a mail, the JSON last: where it is, the pair is whole, and nothing is written again.
fn write_pair(folder: &Path, delivery: &Delivery) -> io::Result<()> {
    let name = |extension: &str| format!("{}.{extension}", delivery.id);
    let (eml, json) = (name("eml"), name("json"));
    if folder.join(&json).try_exists()? && folder.join(&eml).try_exists()? {
        // A crash after the rename may have kept the folder's own entry from the medium.
        return File::open(folder)?.sync_all();
    }
    write(folder, &eml, &delivery.raw)?;
    let mut text = serde_json::to_vec_pretty(&document(delivery))?;
    text.push(b'\n');
    write(folder, &json, &text)
}

/// Writes a file so that it is either whole and on the medium, or not there.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = folder.join(format!(".{name}.part"));
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&part, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn document(delivery: &Delivery) -> Value {
    let mail = &delivery.mail;
    json!({
        "id": delivery.id,
        "contract": delivery.contract,
        "mailbox": delivery.mailbox,
        "reasons": delivery.reasons,
        "historic": delivery.is_historic(),
        "record": delivery.record,
        "automatic": mail.automatic.is_some(),
        "automatic_kind": mail.automatic.as_ref().map(|automatic| automatic.kind),
        "automatic_sign": mail.automatic.as_ref().map(|automatic| &automatic.sign),
        "envelope": {
            "from": mail.from,
            "sender": mail.sender,
            "reply_to": mail.reply_to,
            "to": mail.to,
            "cc": mail.cc,
            "delivered_to": mail.delivered_to,
            "return_path": mail.return_path,
            "message_id": mail.message_id,
            "in_reply_to": mail.in_reply_to,
            "references": mail.references,
            "date": mail.date,
        },
        "subject": mail.subject,
        "text": mail.text,
        "reply": mail.reply(),
        "html": mail.html,
        "attachments": mail.attachments,
        "problems": mail.problems,
        "size": delivery.raw.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "a.eml", b"one").expect("written");
        // What a killed process left behind is in nobody's way.
        std::fs::write(folder.path().join(".a.eml.part"), b"half").expect("written");
        write(folder.path(), "a.eml", b"two").expect("written");
        let names: Vec<_> = folder
            .path()
            .read_dir()
            .expect("a folder")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["a.eml"]);
        assert_eq!(std::fs::read(folder.path().join("a.eml")).expect("read"), b"two");
    }
}
