//! What is sealed in the store, and under which key.

use super::Store;
use crate::{ServerError, seal::Seal};
use rusqlite::{Connection, OptionalExtension, params};
use std::{path::Path, sync::PoisonError};

/// Every column whose values are sealed.
const SEALED: &[(&str, &str)] = &[
    ("api_keys", "ha1"),
    ("clusters", "uris"),
    ("migrations", "credentials"),
    ("validations", "request"),
    ("validations", "credentials"),
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

    /// Seals everything that is sealed under another key, in one transaction; returns how many secrets there are.
    pub fn seal_anew(&mut self, seal: Seal) -> Result<usize, ServerError> {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction()?;
        let mut count = 0;
        for (table, column) in SEALED {
            let mut query =
                transaction.prepare(&format!("SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL"))?;
            let sealed = query
                .query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?)))?
                .collect::<Result<Vec<_>, _>>()?;
            for (row, old) in sealed {
                let new = seal.seal(&self.seal.unseal(&old)?);
                transaction
                    .execute(&format!("UPDATE {table} SET {column} = ?2 WHERE rowid = ?1"), params![row, new])?;
                count += 1;
            }
        }
        transaction.execute("UPDATE sealed_by SET fingerprint = ?1", [&seal.fingerprint])?;
        transaction.commit()?;
        self.seal = seal;
        Ok(count)
    }
}
