//! How long to go on trying.

use std::time::{Duration, Instant};

/// Pauses that double, up to five seconds each, until patience runs out.
#[derive(Debug)]
pub(crate) struct Backoff {
    began: Option<Instant>,
    pause: Duration,
}

/// How long one operation is tried against errors that pass by themselves, elections above all, before the migration
/// ends as failed, with everything kept for a later resume.
const PATIENCE: Duration = Duration::from_secs(600);

impl Default for Backoff {
    fn default() -> Self {
        Self { began: None, pause: Duration::from_millis(50) }
    }
}

impl Backoff {
    /// Waits for the next try; `false` when patience has run out.
    pub async fn wait(&mut self) -> bool {
        let began = *self.began.get_or_insert_with(Instant::now);
        if began.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(5));
        true
    }
}
