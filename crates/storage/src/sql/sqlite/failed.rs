//! What an error of SQLite, or of its driver, means to a caller.

use crate::error::{Error, ErrorKind};

/// Nobody can work with the store now.
pub(super) fn unavailable(stage: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, stage)
}

/// What an error of the driver means to a caller. SQLite's messages name tables and columns, never values.
pub(super) fn failed(stage: &'static str) -> impl Fn(sqlx::Error) -> Error + Copy {
    move |error| Error::new(kind(&error), stage).with_source(error)
}

/// Whether another connection has the file locked (SQLITE_BUSY).
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code & 0xff == 5)
}

fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error().and_then(|error| error.code()?.parse().ok())
}

fn kind(error: &sqlx::Error) -> ErrorKind {
    let code = match error {
        sqlx::Error::Database(_) => code(error),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
            return ErrorKind::Unreadable;
        }
        _ => None,
    };
    // https://www.sqlite.org/rescode.html: the low byte is the primary code.
    match code {
        Some(787) => ErrorKind::NotFound,
        Some(1555 | 2067) => ErrorKind::Conflict,
        Some(code) => match code & 0xff {
            // SQLITE_ERROR: a table or column is missing.
            1 => ErrorKind::Schema,
            // SQLITE_IOERR, SQLITE_FULL.
            10 | 13 => ErrorKind::Full,
            // SQLITE_CORRUPT, SQLITE_CONSTRAINT, SQLITE_MISMATCH, SQLITE_NOTADB.
            11 | 19 | 20 | 26 => ErrorKind::Unreadable,
            // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_READONLY, SQLITE_INTERRUPT, SQLITE_CANTOPEN and the rest.
            _ => ErrorKind::Unavailable,
        },
        None => ErrorKind::Unavailable,
    }
}
