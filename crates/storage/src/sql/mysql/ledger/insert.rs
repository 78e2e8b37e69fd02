//! The rows of received mails that are new: contents, mails, what waits for a handler, first events, in as many statements for a
//! hundred mails as for one.

use postroom_core::time::Timestamp;
use sqlx::mysql::MySqlConnection;

use super::row;
use crate::error::Result;
use crate::ledger::{LedgerEntry, RawMail, Received};
use crate::sql::mysql::bodies;
use crate::sql::mysql::connection::failed;
use crate::sql::mysql::json::json_rows;
use crate::sql::rows::{ledger_ids, new_body_id, received_row, to_json};

const STAGE: &str = "store received mails";

pub(in crate::sql::mysql) const MAILS: &str = concat!(
    "INSERT INTO postroom_ledger_mail
        (id, mailbox, folder, epoch, remote_key, sha256, size, arrived, stored_at, state, contract, reasons, record,
            message_id, sender, subject, attempts, settle_at, body, finished_at)
    SELECT UNHEX(j.id), j.mailbox, CAST(j.folder AS BINARY), j.epoch, CAST(j.sought AS BINARY), UNHEX(j.content), j.size,
        j.arrived, j.stored_at, j.state, j.contract, j.reasons, j.record, j.message_id, j.sender, j.subject, 0, j.settle_at,
        UNHEX(j.body), j.finished_at
    FROM ",
    json_rows!("?"; id id "[0]", mailbox number "[1]", folder text "[2]", epoch number "[3]", sought text "[4]",
        content key "[5]", size number "[6]", arrived number "[7]", stored_at number "[8]", state text "[9]",
        contract text "[10]", reasons text "[11]", record text "[12]", message_id text "[13]", sender text "[14]",
        subject text "[15]", settle_at number "[16]", body id "[17]", finished_at number "[18]"),
    " j ORDER BY j.place"
);

/// The parameters are time, ids.
pub(in crate::sql::mysql) const OPEN: &str = concat!(
    "INSERT INTO postroom_ledger_open (number, mail, mailbox, due_at) SELECT m.number, m.id, m.mailbox, ? FROM ",
    json_rows!("?"; sought id ""),
    " j STRAIGHT_JOIN postroom_ledger_mail m FORCE INDEX (postroom_ledger_mail_id) ON m.id = UNHEX(j.sought)
    WHERE m.state = 'stored'"
);

pub(super) async fn insert(tx: &mut MySqlConnection, now: Timestamp, mails: &[&Received]) -> Result<()> {
    if mails.is_empty() {
        return Ok(());
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
        bodies::insert_all(tx, None, &contents).await?;
    }
    sqlx::query(MAILS).bind(to_json(&rows)?).execute(&mut *tx).await.map_err(failed(STAGE))?;
    let open = sqlx::query(OPEN).bind(now.as_millis()).bind(ledger_ids(mails.iter().map(|mail| mail.id))?);
    open.execute(&mut *tx).await.map_err(failed(STAGE))?;
    row::note(tx, entries).await
}
