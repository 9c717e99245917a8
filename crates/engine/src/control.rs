//! What a running engine is told besides its orders.

use crate::throttle::Throttle;
use limosa_model::cutover::Wishes;
use std::sync::Arc;
use tokio::sync::watch;

/// Held by whoever embeds the engine, and by the engine.
#[derive(Clone, Debug)]
pub struct Steering {
    wishes: Arc<watch::Sender<Wishes>>,
    throttle: Arc<Throttle>,
}

impl Default for Steering {
    fn default() -> Self {
        Self { wishes: Arc::new(watch::Sender::new(Wishes::default())), throttle: Arc::default() }
    }
}

impl Steering {
    /// Says what is wanted from now on.
    pub fn set(&self, wishes: Wishes) {
        self.throttle.set(wishes.limits);
        self.wishes.send_replace(wishes);
    }

    pub(crate) fn now(&self) -> Wishes {
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
