//! The timer: checks the deadlines of migrations and validations once a second.

use crate::{App, service::deadlines};
use limosa_model::Timestamp;
use std::{sync::Arc, time::Duration};

/// How often hosts that say nothing are looked for, in seconds.
const SILENCE_EVERY: u64 = 5;

/// Once a second, until aborted.
pub(crate) async fn tick(app: Arc<App>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    for tick in 0_u64.. {
        interval.tick().await;
        app.blocking(move |app| check(app, tick % SILENCE_EVERY == 0)).await;
    }
}

fn check(app: &App, with_silent: bool) {
    let now = Timestamp::now();
    if let Err(error) = deadlines::end_validations(&app.store, now) {
        tracing::error!(%error, "validations that no agent came for could not be ended");
    }
    if let Err(error) = deadlines::advance(&app.store, with_silent, now) {
        tracing::error!(%error, "the deadlines of migrations could not be read");
    }
}
