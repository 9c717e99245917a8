//! Reports of finished migrations, and what they are made of.

use crate::{
    ServerError,
    store::{Store, unreadable},
};
use limosa_model::{MigrationId, report::Record};
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

impl Store {
    /// Keeps what the engine told of a migration; told again, it is replaced.
    pub fn put_record(&self, migration: MigrationId, record: &Record) -> Result<(), ServerError> {
        let body = serde_json::to_string(record).map_err(|e| unreadable(&e))?;
        self.lock().execute("INSERT OR REPLACE INTO records VALUES (?1, ?2)", params![migration.to_string(), body])?;
        Ok(())
    }

    pub fn record(&self, migration: MigrationId) -> Result<Option<Record>, ServerError> {
        let query = "SELECT body FROM records WHERE migration_id = ?1";
        let body: Option<String> = self.reader().query_row(query, [migration.to_string()], |r| r.get(0)).optional()?;
        body.map(|body| serde_json::from_str(&body).map_err(|e| unreadable(&e))).transpose()
    }

    /// Keeps a report permanently: the first one stays. Returns the one that is kept.
    pub fn keep_report(&self, migration: MigrationId, report: &Value) -> Result<Value, ServerError> {
        let row = params![migration.to_string(), report.to_string()];
        self.lock().execute("INSERT OR IGNORE INTO reports VALUES (?1, ?2)", row)?;
        Ok(self.report(migration)?.unwrap_or_else(|| report.clone()))
    }

    pub fn report(&self, migration: MigrationId) -> Result<Option<Value>, ServerError> {
        let query = "SELECT body FROM reports WHERE migration_id = ?1";
        let body: Option<String> = self.reader().query_row(query, [migration.to_string()], |r| r.get(0)).optional()?;
        body.map(|body| serde_json::from_str(&body).map_err(|e| unreadable(&e))).transpose()
    }
}
