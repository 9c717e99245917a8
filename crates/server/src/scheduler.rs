//! Lets time pass for migrations that wait for their cutover.

use crate::App;
use limosa_model::{
    Timestamp,
    transition::{CUTOVER_WARNED_SECONDS, Event, step},
};
use std::{sync::Arc, time::Duration};

/// How long a validation waits for an agent.
const VALIDATION_SECONDS: i64 = 300;

/// Once a second, until aborted.
pub(crate) async fn tick(app: Arc<App>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        interval.tick().await;
        let now = Timestamp::now();
        if let Err(error) = app.store.lapse_validations(now.plus_seconds(-VALIDATION_SECONDS)) {
            tracing::error!(%error, "old validations could not be ended");
        }
        let ending = match app.store.active_that_end(now.plus_seconds(CUTOVER_WARNED_SECONDS)) {
            Ok(ending) => ending,
            Err(error) => {
                tracing::error!(%error, "the timers could not be looked at");
                continue;
            }
        };
        for migration in ending {
            // Most ticks change nothing, and are not written.
            let due =
                step(&migration, Event::Tick, now).is_ok_and(|(next, told)| next != migration || !told.is_empty());
            if due && app.store.change(migration.id, Event::Tick, now).is_err() {
                tracing::error!(migration = %migration.id, "its timer could not be advanced");
            }
        }
    }
}
