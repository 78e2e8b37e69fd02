//! Where the rows are: the store that a URL names, SQLite, PostgreSQL or MariaDB. What is wrong with a URL is said without the URL: it may
//! hold a password.

use std::sync::Arc;

use postroom::storage::Store;
use postroom::storage::sql::mysql::{MySqlOptions, MySqlStore};
use postroom::storage::sql::postgres::{PgOptions, PgStore};
use postroom::storage::sql::sqlite::{SqliteOptions, SqliteStore};

use crate::failure::{Failure, Result};

/// What a URL names.
enum Location<'a> {
    Sqlite(&'a str),
    Postgres(&'a str),
    MySql(&'a str),
}

fn location(url: &str) -> Result<Location<'_>> {
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "sqlite" => Ok(Location::Sqlite(url)),
        "postgres" | "postgresql" => Ok(Location::Postgres(url)),
        "mysql" | "mariadb" => Ok(Location::MySql(url)),
        _ => Err(Failure::Usage(
            "--database: write sqlite://FILE, postgres://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE"
                .into(),
        )),
    }
}

/// An open store.
pub(crate) enum Rows {
    Sqlite(SqliteStore),
    Postgres(PgStore),
    MySql(MySqlStore),
}

impl Rows {
    /// Opens a store whose tables are this release's.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Ok(match location(url)? {
            Location::Sqlite(url) => Self::Sqlite(SqliteStore::connect(url, SqliteOptions::new()).await?),
            Location::Postgres(url) => Self::Postgres(PgStore::connect(url, PgOptions::new()).await?),
            Location::MySql(url) => Self::MySql(MySqlStore::connect(url, MySqlOptions::new()).await?),
        })
    }

    /// Makes or updates the tables. Gives how many migrations ran.
    pub(crate) async fn migrate(url: &str) -> Result<u64> {
        Ok(match location(url)? {
            Location::Sqlite(url) => SqliteStore::migrate(url).await?,
            Location::Postgres(url) => PgStore::migrate(url).await?,
            Location::MySql(url) => MySqlStore::migrate(url).await?,
        })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::MySql(store) => Arc::new(store.clone()),
        }
    }

    /// Closes the connections. What was written is safe without it, too.
    pub(crate) async fn close(&self) {
        let _ = match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
            Self::MySql(store) => store.close().await,
        };
    }
}
