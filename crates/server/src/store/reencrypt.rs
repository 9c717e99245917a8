//! What is sealed in the store and under which key; and all of it sealed again.

use crate::{
    ServerError,
    encryption::{Place, Seal, is_bound},
    store::Store,
};
use rusqlite::{Connection, OptionalExtension, params};
use std::{path::Path, sync::PoisonError};

/// Every column whose values are sealed: its table, its name, and what names a row.
const SEALED: &[(&str, &str, &str)] = &[
    ("api_keys", "ha1", "id"),
    ("clusters", "uris", "group_id || '/' || name"),
    ("migrations", "credentials", "id"),
    ("validations", "request", "id"),
    ("validations", "credentials", "id"),
];

impl Store {
    /// The fingerprint of the key under which the secrets in `file` are sealed, where that was noted.
    pub fn sealed_by(file: &Path) -> Result<Option<String>, ServerError> {
        let connection = Connection::open(file)?;
        let known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sealed_by'";
        if connection.query_row(known, [], |r| r.get::<_, i64>(0))? == 0 {
            return Ok(None);
        }
        Ok(connection.query_row("SELECT fingerprint FROM sealed_by", [], |r| r.get(0)).optional()?)
    }

    /// Seals everything that is sealed under another key, in one transaction, and leaves no trace of what was there;
    /// returns how many secrets there are.
    pub fn reencrypt(&mut self, seal: Seal) -> Result<usize, ServerError> {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction()?;
        let count = reseal(&transaction, &self.seal, &seal, |_, _| true)?;
        transaction.execute("UPDATE sealed_by SET fingerprint = ?1", [&seal.fingerprint])?;
        transaction.commit()?;
        writer.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
        self.seal = seal;
        Ok(count)
    }
}

/// Seals what a version before sealed for no place for the place where it stands.
pub(super) fn bind(connection: &mut Connection, seal: &Seal) -> Result<(), ServerError> {
    let transaction = connection.transaction()?;
    // What doesn't open is an error for who asks for it, not for everyone.
    let count =
        reseal(&transaction, seal, seal, |sealed, place| !is_bound(sealed) && seal.unseal(sealed, place).is_ok())?;
    transaction.commit()?;
    if count > 0 {
        connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
        tracing::info!(count, "secrets were sealed again, each for its place in the store");
    }
    Ok(())
}

fn reseal(
    connection: &Connection,
    old: &Seal,
    new: &Seal,
    which: impl Fn(&str, &Place<'_>) -> bool,
) -> Result<usize, ServerError> {
    let mut count = 0;
    for (table, column, id) in SEALED {
        let select = format!("SELECT rowid, {id}, {column} FROM {table} WHERE {column} IS NOT NULL");
        let mut query = connection.prepare(&select)?;
        let sealed = query
            .query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        for (row, id, sealed) in sealed {
            let place = Place { table, column, id: &id };
            if !which(&sealed, &place) {
                continue;
            }
            let again = new.seal(&old.unseal(&sealed, &place)?, &place);
            connection.execute(&format!("UPDATE {table} SET {column} = ?2 WHERE rowid = ?1"), params![row, again])?;
            count += 1;
        }
    }
    Ok(count)
}
