//! Lets time pass for migrations that wait for their cutover.

use crate::App;
use limosa_model::{
    Timestamp,
    transition::{CUTOVER_WARNED_SECONDS, Event, SILENCE_TOLD_SECONDS, apply_event},
};
use std::{sync::Arc, time::Duration};

/// How long a validation waits for an agent.
const VALIDATION_SECONDS: i64 = 300;

/// How often it is looked for hosts that say nothing: that reads all migrations under way.
const SILENCE_EVERY: u64 = 5;

/// Once a second, until aborted.
pub(crate) async fn tick(app: Arc<App>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    for tick in 0_u64.. {
        interval.tick().await;
        let now = Timestamp::now();
        if let Err(error) = app.store.lapse_validations(now.plus_seconds(-VALIDATION_SECONDS)) {
            tracing::error!(%error, "old validations could not be ended");
        }
        let waiting = app.store.active_that_end(now.plus_seconds(CUTOVER_WARNED_SECONDS));
        let silent = match tick % SILENCE_EVERY {
            0 => app.store.active_and_silent(now.plus_seconds(-SILENCE_TOLD_SECONDS)),
            _ => Ok(Vec::new()),
        };
        let due = match waiting.and_then(|waiting| Ok(waiting.into_iter().chain(silent?))) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "the timers could not be looked at");
                continue;
            }
        };
        for migration in due {
            // Most ticks change nothing, and are not written.
            let due = apply_event(&migration, Event::Tick, now)
                .is_ok_and(|(next, told)| next != migration || !told.is_empty());
            if due && app.store.change(migration.id, Event::Tick, now).is_err() {
                tracing::error!(migration = %migration.id, "its timer could not be advanced");
            }
        }
    }
}
