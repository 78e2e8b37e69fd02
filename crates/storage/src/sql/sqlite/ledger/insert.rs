//! The rows of received mails that are new: contents, mails, what waits for a handler, first events, in as many statements for a
//! hundred mails as for one, and in one call of the driver.

use postroom_core::time::Timestamp;
use sqlx::sqlite::SqliteConnection;

use super::row;
use crate::error::Result;
use crate::ledger::{LedgerEntry, RawMail, Received};
use crate::sql::rows::{ledger_ids, new_body_id, received_row, to_json};
use crate::sql::sqlite::bodies;
use crate::sql::sqlite::script::{Script, over_rows};

/// The parameters are rows, time, ids.
pub(in crate::sql::sqlite) const INSERT: &str = over_rows!(
    "INSERT INTO postroom_ledger_mail
    (id, mailbox, folder, epoch, remote_key, sha256, size, arrived, stored_at, state, contract, reasons, record,
        message_id, sender, subject, attempts, settle_at, body, finished_at)
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5), value ->> 6,
        value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14,
        value ->> 15, 0, value ->> 16, unhex(value ->> 17), value ->> 18
    FROM r ORDER BY key;
INSERT INTO postroom_ledger_open (number, mail, mailbox, due_at)
    SELECT m.number, m.id, m.mailbox, ? FROM json_each(?) j CROSS JOIN postroom_ledger_mail m ON m.id = unhex(j.value)
    WHERE m.state = 'stored'"
);

/// The script that inserts new mails. What of their contents is too much for one call goes ahead of it.
pub(super) async fn insert_script(
    tx: &mut SqliteConnection,
    now: Timestamp,
    mails: &[&Received],
) -> Result<Script> {
    let mut script = Script::default();
    if mails.is_empty() {
        return Ok(script);
    }
    let (mut rows, mut contents, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for mail in mails {
        let body = match &mail.raw {
            RawMail::Whole(content) => {
                let id = new_body_id(now)?;
                contents.push((id, content));
                id
            }
            RawMail::Staged(staged) => {
                bodies::refer(tx, staged).await?;
                staged.id
            }
        };
        rows.push(received_row(now, mail, body)?);
        entries.push((mail.id, LedgerEntry::new(now, "stored", Some(mail.state), mail.reasons.join(", "))));
    }
    if !contents.is_empty() {
        bodies::insert_by(tx, &mut script, &contents).await?;
    }
    let ids = ledger_ids(mails.iter().map(|mail| mail.id))?;
    script.then(INSERT).with(to_json(&rows)?)?.with(now.as_millis())?.with(ids)?;
    row::note_by(&mut script, entries)?;
    Ok(script)
}
