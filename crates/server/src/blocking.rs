//! Work that waits for the disk, apart from the threads that serve connections: there, one wait for the disk would be
//! everyone's.

use crate::App;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many of these run at a time. The store takes one write at a time, so more would only wait for it.
const AT_A_TIME: usize = 16;

/// Counts what runs.
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl App {
    /// Runs `work` on a thread that may wait. It runs to its end even if nobody waits for it any more, and keeps its turn
    /// until then. A panic in it is the caller's.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> T {
        let turn = Arc::clone(&self.turns.0).acquire_owned().await;
        let (app, span) = (Arc::clone(self), tracing::Span::current());
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            span.in_scope(|| work(&app))
        });
        match working.await {
            Ok(done) => done,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and the caller with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
