//! The only place that begins a whole run again: from the checkpoint, as after a crash, for as long as what failed can be
//! fixed. What a run that is over leaves to do comes here too.

use crate::{
    EngineReport, Outcome, Settings,
    component::Component,
    destination::claims,
    local_state,
    migration::{cleanup, follow, pipeline},
    progress::ProgressTracker,
    retry,
};
use limosa_model::{ErrorCode, Failure, PhaseKind, protocol::Directive};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// See [`crate::run`].
pub(crate) async fn run(
    settings: Settings,
    mut orders: watch::Receiver<Directive>,
    reports: watch::Sender<EngineReport>,
) -> Outcome {
    if let Err(wrong) = settings.tuning.validate() {
        return Outcome::Failed(Failure::new(ErrorCode::ConfigurationInvalid, wrong));
    }
    let tracker = ProgressTracker::new(reports, settings.metrics.clone());
    let ticking = tokio::spawn({
        let tracker = tracker.clone();
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(500));
            loop {
                tick.tick().await;
                tracker.publish();
            }
        }
    });
    let mut stop = orders.clone();
    let ended = tokio::select! {
        ended = supervise(&settings, &mut orders, &tracker) => Some(ended),
        _ = stop.wait_for(|order| matches!(order, Directive::Pause | Directive::Stop | Directive::Cancel { .. })) => None,
    };
    let outcome = match ended {
        None => Outcome::Stopped,
        Some(Ok(())) => Outcome::Complete,
        Some(Err(failure)) if failure.code == ErrorCode::Fenced => Outcome::Stopped,
        Some(Err(failure)) => {
            if failure.code == ErrorCode::DestinationTaken {
                claims::say_stopped(&settings).await;
            }
            Outcome::Failed(failure)
        }
    };
    if outcome != Outcome::Complete
        && matches!(tracker.phase(), PhaseKind::CuttingOver | PhaseKind::Finalizing)
        && let Err(failure) = follow::unblock_source_writes_on_exit(&settings).await
    {
        tracing::error!(%failure, "whether the source's writes are still blocked is not known");
    }
    let outcome = match outcome {
        Outcome::Stopped => cleanup::clean_up(&settings, &mut stop, &tracker).await,
        Outcome::Complete | Outcome::Cancelled | Outcome::Failed(_) => outcome,
    };
    ticking.abort();
    tracker.publish();
    tracker.metrics.forget();
    outcome
}

/// Begins again from the checkpoint, as after a crash, when something failed that an operator can fix. A migration that has
/// not begun yet doesn't wait: its user is still there to read the error.
async fn supervise(
    settings: &Settings,
    orders: &mut watch::Receiver<Directive>,
    tracker: &ProgressTracker,
) -> Result<(), Failure> {
    // Both clusters answered, and the destination is this migration's.
    let claimed = AtomicBool::new(false);
    loop {
        let failure = match Box::pin(pipeline::run(settings, orders, tracker, &claimed)).await {
            // What a server can is asked again at every beginning.
            Err(changed) if changed.code == ErrorCode::CompatibilityChanged => {
                tracing::warn!(failure = %changed, "beginning again from the checkpoint");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(failure)
                if settings.epoch.0 > 1 || claimed.load(Ordering::Relaxed) || local_state::spool(settings).exists() =>
            {
                failure
            }
            ended => return ended,
        };
        follow::end_if_aborted(tracker, settings, *orders.borrow());
        retry::wait_until_fixed(Component::Applier, failure, tracker, settings.tuning.patience).await?;
    }
}
