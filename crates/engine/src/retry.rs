//! What is tried again, and for how long. There are three answers to a failure; the table of [`limosa_model::ErrorCode`]
//! says which code has which, and its `is_transient` and `is_operator_fixable` ask it:
//!
//! | kind | examples | answer |
//! |---|---|---|
//! | transient: gone within seconds | an election, a dropped connection, an interrupted operation | tried again in place, for [`IN_PLACE`] |
//! | passes when someone fixes its cause | a server that is down, a full disk, a changed password, a revoked role | the migration waits, says what for, and continues automatically; for the whole patience (24 h unless set) |
//! | doesn't pass | lost history, a refused document, differing data | the migration has failed, with everything kept for a resume |

use crate::{component::Component, progress::ProgressTracker};
use limosa_model::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// How long one operation is tried again in place: an election and more. What lasts longer is waited out by the whole.
pub(crate) const IN_PLACE: Duration = Duration::from_secs(15);

/// The longest pause between two tries.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses that double, up to five seconds each, for as long as something is tried again in place.
#[derive(Debug)]
pub(crate) struct Backoff {
    began: Option<Instant>,
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { began: None, pause: Duration::from_millis(50) }
    }
}

impl Backoff {
    /// Waits for the next try; `false` when it has been tried for long enough.
    pub async fn wait(&mut self) -> bool {
        let began = *self.began.get_or_insert_with(Instant::now);
        if began.elapsed() > IN_PLACE {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Waits out what someone may fix. `Err` when waiting is of no use, or was for too long without anything working.
pub(crate) async fn wait_until_fixed(
    part: Component,
    failure: Failure,
    tracker: &ProgressTracker,
    patience: Duration,
) -> Result<(), Failure> {
    // An outage that a part has waited out for the whole patience isn't waited out again by another.
    if !failure.code.is_operator_fixable() || tracker.has_given_up() {
        return Err(failure);
    }
    tracker.metrics.waited(part);
    let waited = tracker.record_failure(part, &failure);
    if waited >= patience {
        tracker.give_up();
        let message = format!("{}; still failing after {} s of retries", failure.message, waited.as_secs());
        return Err(Failure::new(failure.code, message));
    }
    tracing::warn!(?part, %failure, waited_seconds = waited.as_secs(), "waiting for its cause to be fixed");
    let pause = (waited / 4).clamp(Duration::from_millis(200), LONGEST_PAUSE);
    tokio::time::sleep(pause.min(patience - waited)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineReport, metrics::Metrics};
    use limosa_model::ErrorCode;
    use tokio::sync::watch;

    fn tracker() -> (ProgressTracker, watch::Receiver<EngineReport>) {
        let begin = EngineReport::begin();
        let (sender, receiver) = watch::channel(begin);
        (ProgressTracker::new(sender, Metrics::default()), receiver)
    }

    #[tokio::test]
    async fn a_cause_that_can_be_fixed_is_waited_out_and_not_for_ever() {
        let (tracker, _reports) = tracker();
        let patience = Duration::from_millis(700);
        let down = Failure::new(ErrorCode::DestinationUnreachable, "nobody answers");
        let began = Instant::now();
        let ended = loop {
            if let Err(failure) = wait_until_fixed(Component::Applier, down.clone(), &tracker, patience).await {
                break failure;
            }
        };
        assert!(began.elapsed() >= patience);
        assert_eq!(ended.code, ErrorCode::DestinationUnreachable);
        assert!(ended.message.contains("nobody answers; still failing after "), "{}", ended.message);
    }

    #[tokio::test]
    async fn patience_begins_anew_when_something_worked() {
        let (tracker, _reports) = tracker();
        let down = Failure::new(ErrorCode::SourceUnreachable, "nobody answers");
        for _ in 0..4 {
            wait_until_fixed(Component::Reader, down.clone(), &tracker, Duration::from_millis(300))
                .await
                .expect("waits");
            tracker.clear_failure(Component::Reader);
        }
    }

    #[tokio::test]
    async fn what_no_one_can_fix_ends_at_once() {
        let (tracker, _reports) = tracker();
        let lost = Failure::new(ErrorCode::HistoryLost, "gone");
        assert_eq!(
            wait_until_fixed(Component::Reader, lost.clone(), &tracker, Duration::from_secs(60)).await,
            Err(lost)
        );
    }
}
