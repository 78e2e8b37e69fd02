//! What an error of MariaDB, or of its driver, means to a caller.

use sqlx::mysql::MySqlDatabaseError;

use crate::error::{Error, ErrorKind};

/// Nobody can work with the store now.
pub(super) fn unavailable(stage: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, stage)
}

/// What an error of the driver means to a caller. MariaDB's messages quote values, a doubled key for one: they are not kept.
pub(super) fn failed(stage: &'static str) -> impl Fn(sqlx::Error) -> Error + Copy {
    move |error| {
        let kind = kind(&error);
        match number(&error) {
            Some(number) => Error::new(kind, stage).with_source(Told { number }),
            None => Error::new(kind, stage).with_source(error),
        }
    }
}

/// Whether it was a deadlock or the like: somebody else was in the way and has gone on.
pub(super) fn is_contended(error: &Error) -> bool {
    // ER_LOCK_DEADLOCK, ER_CHECKREAD
    code(error).is_some_and(|code| [1213, 1020].contains(&code))
}

/// The number that MariaDB gave for an error.
pub(super) fn code(error: &Error) -> Option<u16> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<Told>().map(|told| told.number)
}

/// What MariaDB said.
#[derive(Debug)]
struct Told {
    number: u16,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error {} of MariaDB", self.number)
    }
}

impl std::error::Error for Told {}

fn number(error: &sqlx::Error) -> Option<u16> {
    let sqlx::Error::Database(error) = error else { return None };
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

fn kind(error: &sqlx::Error) -> ErrorKind {
    if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound = error {
        return ErrorKind::Unreadable;
    }
    // https://mariadb.com/kb/en/mariadb-error-code-reference/
    match number(error).unwrap_or_default() {
        // A foreign key that leads nowhere, or that others hold.
        1216 | 1217 | 1451 | 1452 => ErrorKind::NotFound,
        // A doubled key; ER_SIGNAL_EXCEPTION, by which a statement says that an idempotency key is taken.
        1022 | 1062 | 1586 | 1644 => ErrorKind::Conflict,
        // No database, or none that is known; an unknown table, column or function.
        1046 | 1049 | 1051 | 1054 | 1109 | 1146 | 1305 => ErrorKind::Schema,
        // A full disk, a full table, an error of the medium.
        1021 | 1026 | 1114 | 1030 | 3 | 20 | 28 => ErrorKind::Full,
        // Damaged tables and indexes.
        1034 | 1035 | 1194 | 1195 | 1712 => ErrorKind::Unreadable,
        // What a column does not take: null, too long, out of range, no such text or JSON, a broken check.
        1048 | 1264 | 1265 | 1364 | 1366 | 1406 | 1411 | 3819 | 4025 | 4038 | 4174 => ErrorKind::Unreadable,
        // Lost connections, refused sign-ins, lock and statement timeouts, deadlocks, too many connections, too great a packet, a server
        // that shuts down or only reads, and the rest.
        _ => ErrorKind::Unavailable,
    }
}
