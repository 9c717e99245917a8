//! Lets time pass for migrations that wait for their cutover.

use crate::App;
use limosa_model::{Timestamp, transition::Event};
use std::{sync::Arc, time::Duration};

/// How long a validation waits for an agent.
const VALIDATION_SECONDS: i64 = 300;

/// Once a second, until aborted.
pub(crate) async fn tick(app: Arc<App>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        interval.tick().await;
        if let Err(error) = app.store.lapse_validations(Timestamp::now().plus_seconds(-VALIDATION_SECONDS)) {
            tracing::error!(%error, "old validations could not be ended");
        }
        let active = match app.store.active() {
            Ok(active) => active,
            Err(error) => {
                tracing::error!(%error, "the timers could not be looked at");
                continue;
            }
        };
        for migration in active {
            let lapses = matches!(
                migration.phase,
                limosa_model::Phase::Synced { .. } | limosa_model::Phase::Paused { expires_at: Some(_), .. }
            );
            if lapses && app.store.change(migration.id, Event::Tick, Timestamp::now()).is_err() {
                tracing::error!(migration = %migration.id, "its timer could not be advanced");
            }
        }
    }
}
