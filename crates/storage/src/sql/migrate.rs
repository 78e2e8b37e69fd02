//! Numbered migrations and the decision which of them a database still needs. Running them is the database's own room.

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// One migration: embedded SQL that runs once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// From 1, without gaps.
    pub(super) version: i64,
    /// `registry`.
    pub(super) name: &'static str,
    /// One or more statements.
    pub(super) sql: &'static str,
}

impl Migration {
    /// What shows that a migration was changed after it ran.
    pub(super) fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.sql.as_bytes()).to_vec()
    }
}

/// The migrations that a database with these `(version, checksum)` rows still needs, in order.
///
/// # Errors
/// [`ErrorKind::Schema`] when the rows are not the first of `known`, unchanged: a newer release or another one made them.
pub(super) fn pending<'a>(known: &'a [Migration], applied: &[(i64, Vec<u8>)]) -> Result<&'a [Migration]> {
    let schema = || Error::new(ErrorKind::Schema, "read the schema's version");
    if applied.len() > known.len() {
        return Err(schema());
    }
    let (done, pending) = known.split_at(applied.len());
    let same = |(migration, row): (&Migration, &(i64, Vec<u8>))| {
        migration.version == row.0 && migration.checksum() == row.1
    };
    if done.iter().zip(applied).all(same) { Ok(pending) } else { Err(schema()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Migration] = &[
        Migration { version: 1, name: "one", sql: "CREATE TABLE one (a)" },
        Migration { version: 2, name: "two", sql: "CREATE TABLE two (a)" },
    ];

    fn applied(migrations: &[Migration]) -> Vec<(i64, Vec<u8>)> {
        migrations.iter().map(|migration| (migration.version, migration.checksum())).collect()
    }

    #[test]
    fn what_is_not_applied_is_pending_and_an_interrupted_migration_goes_on_where_it_stopped() {
        for done in 0..=KNOWN.len() {
            let pending = pending(KNOWN, &applied(&KNOWN[..done])).unwrap();
            assert_eq!(pending.len(), KNOWN.len() - done);
        }
    }

    #[test]
    fn a_newer_or_a_changed_schema_is_refused() {
        let mut newer = applied(KNOWN);
        newer.push((3, vec![0; 32]));
        let mut changed = applied(KNOWN);
        changed[0].1[0] ^= 1;
        let gap = applied(&KNOWN[1..]);
        for rows in [newer, changed, gap] {
            assert_eq!(pending(KNOWN, &rows).unwrap_err().kind(), &ErrorKind::Schema);
        }
    }
}
