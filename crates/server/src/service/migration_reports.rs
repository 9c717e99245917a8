//! Reports of migrations that are over.

use crate::{
    ServerError,
    store::{EventRow, Store},
};
use limosa_model::{Migration, PhaseKind, history::HistoryEvent, report::MigrationReport};
use serde_json::Value;

/// The report, which is kept from its first making on; that of a failed migration isn't, since it may continue.
pub(crate) fn report(store: &Store, migration: &Migration) -> Result<Value, ServerError> {
    if let Some(kept) = store.report(migration.id)? {
        return Ok(kept);
    }
    let mut phases: Vec<(String, String)> = vec![("Scheduled".to_owned(), migration.created_at.rfc3339())];
    for EventRow { at, event, .. } in store.events(migration.id, 0)? {
        if let HistoryEvent::PhaseChanged { to, .. } = event {
            phases.push((format!("{to:?}"), at.rfc3339()));
        }
    }
    let lags = store.lags(migration.id)?.into_iter().map(|(_, seconds)| seconds).collect();
    let record = store.record(migration.id)?.unwrap_or_default();
    let made = MigrationReport::new(migration, record, &phases, lags);
    let made = serde_json::to_value(made).unwrap_or_default();
    if migration.phase.kind() == PhaseKind::Failed { Ok(made) } else { store.keep_report(migration.id, &made) }
}
