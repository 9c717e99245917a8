//! What a running engine is told besides its orders.

use crate::throttle::Throttle;
use limosa_model::cutover::RunOptions;
use std::sync::Arc;
use tokio::sync::watch;

/// Held by the program that embeds the engine, and by the engine.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    wishes: Arc<watch::Sender<RunOptions>>,
    throttle: Arc<Throttle>,
}

impl Default for ControlHandle {
    fn default() -> Self {
        Self { wishes: Arc::new(watch::Sender::new(RunOptions::default())), throttle: Arc::default() }
    }
}

impl ControlHandle {
    /// Says what is wanted from now on.
    pub fn set(&self, wishes: RunOptions) {
        self.throttle.set(wishes.limits);
        self.wishes.send_replace(wishes);
    }

    pub(crate) fn now(&self) -> RunOptions {
        *self.wishes.borrow()
    }

    /// Waits until the cutover under way is to be ended.
    pub(crate) async fn cutover_aborted(&self) {
        let ended = self.wishes.subscribe().wait_for(|wishes| wishes.abort_cutover).await.is_err();
        if ended {
            std::future::pending::<()>().await;
        }
    }

    /// Keeps to the limits.
    pub(crate) fn throttle(&self) -> Arc<Throttle> {
        Arc::clone(&self.throttle)
    }
}
