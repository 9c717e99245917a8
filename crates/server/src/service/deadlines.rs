//! Deadlines of migrations and validations: the time to cut over, hosts that say nothing, agents that never come.

use crate::{ServerError, service::migrations, store::Store};
use limosa_model::{
    Migration, Timestamp,
    transition::{CUTOVER_WARNED_SECONDS, Event, SILENCE_TOLD_SECONDS, apply_event},
};

/// How long a validation waits for an agent.
const VALIDATION_SECONDS: i64 = 300;

/// Ends validations that no agent has come for.
pub(crate) fn end_validations(store: &Store, now: Timestamp) -> Result<(), ServerError> {
    store.lapse_validations(now.plus_seconds(-VALIDATION_SECONDS))
}

/// Lets time pass for migrations whose time to cut over ends soon, and `with_silent` for those whose host says nothing:
/// that reads all migrations under way.
pub(crate) fn advance(store: &Store, with_silent: bool, now: Timestamp) -> Result<(), ServerError> {
    let mut waiting = store.active_that_end(now.plus_seconds(CUTOVER_WARNED_SECONDS))?;
    if with_silent {
        waiting.extend(store.active_and_silent(now.plus_seconds(-SILENCE_TOLD_SECONDS))?);
    }
    for migration in waiting.iter().filter(|migration| is_due(migration, now)) {
        if migrations::apply(store, migration.id, Event::Tick, now).is_err() {
            tracing::error!(migration = %migration.id, "the deadlines of a migration could not be checked");
        }
    }
    Ok(())
}

/// Most ticks change nothing, and are not written.
fn is_due(migration: &Migration, now: Timestamp) -> bool {
    apply_event(migration, Event::Tick, now).is_ok_and(|(next, told)| next != *migration || !told.is_empty())
}
