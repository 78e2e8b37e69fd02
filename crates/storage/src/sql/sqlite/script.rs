//! A script: statements that SQLite's thread runs in one call, one behind the other. What a call costs is the way to that thread and
//! back; a statement without rows to write costs a wake-up for nothing, so a script is put together of those that have some.

use serde::Serialize;
use sqlx::encode::Encode;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row, Type};

use super::failed::failed;
use crate::error::Result;
use crate::sql::rows::{to_json, unreadable};

/// A statement over the rows of its next parameter, an array of arrays, as `r`: each is taken apart once. In a column of `json_each` it
/// would be written as text and parsed anew each time it is named.
macro_rules! over_rows {
    ($statement:literal) => {
        concat!("WITH r AS MATERIALIZED (SELECT key, jsonb(value) AS value FROM json_each(?)) ", $statement)
    };
}
pub(super) use over_rows;

/// How many pages the log has, and how many of them were copied into the file. `PRAGMA wal_checkpoint` says it, in any of its modes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    pub(super) pages: i64,
    pub(super) copied: i64,
}

/// Statements with their parameters: plain `?`, in order.
#[derive(Default)]
pub(super) struct Script {
    sql: String,
    arguments: SqliteArguments,
}

impl Script {
    /// Adds a statement. Texts are put together and stay prepared, so a statement has no value in its text.
    pub(super) fn then(&mut self, statement: &'static str) -> &mut Self {
        if !self.sql.is_empty() {
            self.sql.push_str(";\n");
        }
        self.sql.push_str(statement);
        self
    }

    /// Adds the next parameter.
    pub(super) fn with<'q, T>(&mut self, value: T) -> Result<&mut Self>
    where
        T: Encode<'q, Sqlite> + Type<Sqlite>,
    {
        self.arguments.add(value).map_err(|_| unreadable())?;
        Ok(self)
    }

    /// Adds a statement whose only parameter is JSON that it takes apart, unless there are no rows.
    pub(super) fn of_rows<T: Serialize>(&mut self, statement: &'static str, rows: &[T]) -> Result<()> {
        if !rows.is_empty() {
            self.then(statement).with(to_json(rows)?)?;
        }
        Ok(())
    }

    /// Runs it. One without statements needs no call.
    pub(super) async fn run(self, connection: &mut SqliteConnection, stage: &'static str) -> Result<()> {
        if self.sql.is_empty() {
            return Ok(());
        }
        let script = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        script.execute(connection).await.map(drop).map_err(failed(stage))
    }

    /// Runs it, and gives what its last statement says of the log.
    pub(super) async fn log(self, connection: &mut SqliteConnection, stage: &'static str) -> Result<Log> {
        let script = sqlx::query_as_with(AssertSqlSafe(self.sql), self.arguments);
        let (_, pages, copied): (i64, i64, i64) =
            script.fetch_one(connection).await.map_err(failed(stage))?;
        Ok(Log { pages, copied })
    }

    /// Runs it, and gives the text that is the first column of each row of each statement.
    pub(super) async fn texts(
        self,
        connection: &mut SqliteConnection,
        stage: &'static str,
    ) -> Result<std::vec::IntoIter<String>> {
        let script = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        let rows = script.fetch_all(connection).await.map_err(failed(stage))?;
        let text = |row: &SqliteRow| row.try_get::<String, _>(0).map_err(failed(stage));
        Ok(rows.iter().map(text).collect::<Result<Vec<_>>>()?.into_iter())
    }
}
