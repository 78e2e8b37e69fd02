//! What an error of PostgreSQL, or of its driver, means to a caller.

use crate::error::{Error, ErrorKind};

/// Nobody can work with the store now.
pub(super) fn unavailable(stage: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, stage)
}

/// What an error of the driver means to a caller. PostgreSQL's messages name tables and columns; what may hold values, detail and
/// hint, is not kept.
pub(super) fn failed(stage: &'static str) -> impl Fn(sqlx::Error) -> Error + Copy {
    move |error| {
        let kind = kind(&error);
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
                Error::new(kind, stage).with_source(Told { code, message: error.message().to_owned() })
            }
            error => Error::new(kind, stage).with_source(error),
        }
    }
}

/// Whether it was a deadlock or the like: somebody else was in the way and has gone on.
pub(super) fn is_contended(error: &Error) -> bool {
    // serialization_failure, deadlock_detected
    code(error).is_some_and(|code| ["40001", "40P01"].contains(&code))
}

/// The SQLSTATE that PostgreSQL gave for an error.
pub(super) fn code(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<Told>().map(|told| told.code.as_str())
}

/// What PostgreSQL said.
#[derive(Debug)]
struct Told {
    code: String,
    message: String,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl std::error::Error for Told {}

fn kind(error: &sqlx::Error) -> ErrorKind {
    let code = match error {
        sqlx::Error::Database(error) => error.code(),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
            return ErrorKind::Unreadable;
        }
        _ => None,
    };
    // https://www.postgresql.org/docs/15/errcodes-appendix.html
    match code.as_deref().unwrap_or_default() {
        // foreign_key_violation
        "23503" => ErrorKind::NotFound,
        // unique_violation
        "23505" => ErrorKind::Conflict,
        // undefined_table, undefined_column, undefined_function, invalid_schema_name
        "42P01" | "42703" | "42883" | "3F000" => ErrorKind::Schema,
        // disk_full, io_error
        "53100" | "58030" => ErrorKind::Full,
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => ErrorKind::Unreadable,
        // Data exceptions, the other integrity constraints, and what is greater than a row or an index takes.
        code if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => ErrorKind::Unreadable,
        // Lost connections, refused sign-ins, lock and statement timeouts, deadlocks, too many connections, a server that shuts
        // down or only reads, and the rest.
        _ => ErrorKind::Unavailable,
    }
}
