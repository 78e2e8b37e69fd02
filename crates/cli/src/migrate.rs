//! `postroom migrate`: make or update the tables. The migrations are the store's.

use serde_json::json;

use crate::failure::Result;
use crate::rows::Rows;
use crate::session::Shared;

pub(crate) async fn perform(shared: &Shared) -> Result<()> {
    let migrations = Rows::migrate(&shared.database).await?;
    shared.output().document(&json!({ "migrations": migrations }), || match migrations {
        0 => "the tables are those of this release".into(),
        some => format!("{some} migrations done; the tables are those of this release"),
    })
}
