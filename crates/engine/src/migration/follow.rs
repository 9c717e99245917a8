//! Change replication once the copy is whole: when the migration is ready, what it is asked to do meanwhile, and the way
//! into the cutover and back.

use crate::{
    Settings,
    cutover::{
        rehearsal::Stage as RehearsalStage,
        report_data,
        steps::{self, CutoverError},
    },
    destination::{checkpoint::CheckpointStore, expiry, index_upkeep::Upkeep, indexes},
    mongo::{cluster::Cluster, index_spec::IndexPhase, side::Side},
    progress::ProgressTracker,
    replication::replicator::Replicator,
    verify::online::Verifier,
};
use bson::Timestamp;
use limosa_model::{Failure, PhaseKind, protocol::Directive};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::Instrument;

/// How often it is found out whether the migration is ready.
const MEASURED_EVERY: Duration = Duration::from_millis(500);

/// With this little lag a migration counts as synced.
const SYNCED_LAG_SECONDS: i64 = 2;

/// A cutover that was left in the middle of a step, and why; for the run that begins again from the checkpoint.
#[derive(Default)]
pub(crate) struct Back(std::sync::Mutex<Option<(Failure, bool)>>);

impl Back {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<(Failure, bool)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, failure: &Failure) {
        *self.held() = Some((failure.clone(), true));
    }

    /// Whether it was set since this was asked last: then nothing has to be waited for.
    pub fn is_new(&self) -> bool {
        self.held().as_mut().is_some_and(|(_, new)| std::mem::take(new))
    }

    fn take(&self) -> Option<Failure> {
        self.held().take().map(|(failure, _)| failure)
    }
}

/// A cutover that waits for the cause of a failure to go away ends on request too; what is left of it on the destination
/// is undone as soon as that can be reached.
pub(crate) fn end_if_aborted(tracker: &ProgressTracker, settings: &Settings, order: Directive) {
    let phase = tracker.phase();
    if settings.steering.now().abort_cutover && matches!(phase, PhaseKind::CuttingOver | PhaseKind::Finalizing) {
        tracker.refuse_cutover();
        // How far behind it is by now nobody knows.
        tracker.enter_phase(PhaseKind::CatchingUp, Some(steps::aborted()));
    } else if order != Directive::CutOver && tracker.has_refused() {
        tracker.forget_refusal();
    }
}

/// Applies changes until a cutover succeeds.
pub(crate) async fn follow(
    source: &Cluster,
    replicator: &mut Replicator,
    orders: &mut watch::Receiver<Directive>,
    tracker: &ProgressTracker,
    settings: &Settings,
    back: &Back,
) -> Result<(), Failure> {
    let mut asked = Asked::default();
    match back.take() {
        // A cutover left replication in the middle of something; it is as it was before.
        Some(failure) => asked.refuse(tracker, failure),
        // What was worth the name before a hiccup still is, unless what is measured says otherwise; a cutover begins again.
        None if tracker.phase() != PhaseKind::Synced => tracker.enter_phase(PhaseKind::CatchingUp, None),
        None => {}
    }
    let (copied, verifier) = (replicator.progress().convergence(), replicator.verifier().clone());
    let verifying = verifier.start();
    let upkeep = Upkeep::new(tracker, properties(settings));
    let measured = Instant::now();
    let mut follower =
        Follower { source, replicator, tracker, settings, back, asked, verifier, upkeep, copied, measured };
    while !follower.turn(orders).await? {}
    verifying.end().await;
    Ok(())
}

/// What follows the source between two cutovers.
struct Follower<'a> {
    source: &'a Cluster,
    replicator: &'a mut Replicator,
    tracker: &'a ProgressTracker,
    settings: &'a Settings,
    back: &'a Back,
    asked: Asked,
    verifier: Verifier,
    upkeep: Upkeep,
    /// The source's time when replication began: before it the destination is no image of it.
    copied: Timestamp,
    measured: Instant,
}

impl Follower<'_> {
    /// Applies what there is, then does what is due; returns whether a cutover is complete. Each part is done to its end
    /// before the next: a definition that is half applied must not be left.
    async fn turn(&mut self, orders: &watch::Receiver<Directive>) -> Result<bool, Failure> {
        self.replicator.step().await?;
        let repairs = self.verifier.take_repairs()?;
        if !repairs.is_empty() {
            self.replicator.repair(repairs).await?;
        }
        if self.measured.elapsed() >= MEASURED_EVERY {
            self.measured = Instant::now();
            self.measure().await?;
        }
        let order = *orders.borrow();
        let Self { asked, replicator, tracker, settings, upkeep, verifier, .. } = self;
        asked.rehearsal(replicator, tracker, settings, order);
        if !asked.cutover(tracker, settings, order, upkeep, verifier)? {
            return Ok(false);
        }
        self.cut_over().await
    }

    /// Finds out whether the migration is ready, or isn't any more.
    async fn measure(&mut self) -> Result<(), Failure> {
        let Self { replicator, tracker, verifier, upkeep, copied, .. } = self;
        // Measured beside this loop, which may stand still; see `meter`.
        let lag = tracker.lag();
        let spooled = replicator.spool().bytes();
        replicator.spool().shares_with(verifier.disk_bytes()?);
        tracker.update(|p| p.spool_bytes = spooled);
        let behind = replicator.progress().seconds_to_convergence();
        verifier.set_lag(lag.map_or(i64::MAX, |lag| lag.max(behind)));
        let is_image = replicator.progress().watermark() >= *copied && behind <= SYNCED_LAG_SECONDS;
        if is_image {
            Box::pin(upkeep.go_on(replicator.registry())).await;
        }
        if tracker.phase() == PhaseKind::CatchingUp
            && is_image
            && lag.is_some_and(|lag| lag <= SYNCED_LAG_SECONDS)
            && tracker.is_well()
            && verifier.is_ready()?
        {
            replicator.checkpoint().await?;
            tracker.is_ready();
        }
        if tracker.phase() == PhaseKind::Synced && verifier.owes_a_pass()? {
            tracker.enter_phase(PhaseKind::CatchingUp, None);
        }
        Ok(())
    }

    /// Returns whether the cutover is complete; `false`: it went back, and replication continues.
    async fn cut_over(&mut self) -> Result<bool, Failure> {
        let Self { source, replicator, tracker, settings, back, asked, .. } = self;
        let choices = choices(settings);
        asked.end_rehearsal();
        let ended = tokio::select! {
            biased;
            ended = Box::pin(steps::cut_over(replicator, tracker, &settings.filter, choices)) => ended,
            () = settings.steering.cutover_aborted() => Err(CutoverError::BackFromCheckpoint(steps::aborted())),
        };
        match ended {
            Ok(done) => {
                tracker.record(report_data::of(settings, replicator, done, choices.reversible).await?);
                Ok(true)
            }
            Err(CutoverError::Failed(failure)) => {
                // However long its cause lasts, the application isn't kept waiting for it.
                let_writes_in(source, replicator.store()).await;
                Err(failure)
            }
            Err(CutoverError::BackFromCheckpoint(failure)) => {
                let_writes_in(source, replicator.store()).await;
                back.set(&failure);
                Err(failure)
            }
            Err(CutoverError::BackToSynced(failure)) => {
                Box::pin(roll_back_cutover(source, replicator, settings)).await?;
                replicator.forget_late_writes();
                asked.refuse(tracker, failure);
                Ok(false)
            }
        }
    }
}

/// How the next cutover is to be.
fn choices(settings: &Settings) -> steps::CutoverParams {
    let wishes = settings.steering.now();
    steps::CutoverParams {
        block_source_writes: wishes.cutover.block_source_writes,
        reversible: wishes.cutover.reversible && settings.reversal_from.is_none(),
        properties: properties(settings),
    }
}

/// What was asked of a run besides following the source, and how far that is.
#[derive(Default)]
struct Asked {
    /// Since when a cutover is ordered; what it would have to wait for is done first.
    awaited: Option<Instant>,
    /// The number of the last rehearsal, and the one under way.
    rehearsed: u32,
    rehearsing: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.end_rehearsal();
    }
}

impl Asked {
    /// Says that a cutover went back, and why.
    fn refuse(&mut self, tracker: &ProgressTracker, failure: Failure) {
        self.awaited = None;
        tracker.refuse_cutover();
        let behind = tracker.phase() == PhaseKind::CatchingUp;
        tracker.enter_phase(if behind { PhaseKind::CatchingUp } else { PhaseKind::Synced }, Some(failure));
    }

    /// Begins a rehearsal if one is wanted. It continues beside everything else.
    fn rehearsal(&mut self, replicator: &Replicator, tracker: &ProgressTracker, settings: &Settings, order: Directive) {
        let wanted = settings.steering.now().rehearsal;
        if wanted <= self.rehearsed || tracker.phase() != PhaseKind::Synced || order != Directive::Run {
            return;
        }
        self.end_rehearsal();
        self.rehearsed = wanted;
        let stage = RehearsalStage::of(replicator, &settings.filter, choices(settings));
        let tracker = tracker.clone();
        let rehearse = async move { tracker.rehearsed(Box::pin(stage.rehearse(wanted)).await) };
        self.rehearsing = Some(tokio::spawn(Box::pin(rehearse.in_current_span())));
    }

    /// One that is cut short is begun again later.
    fn end_rehearsal(&mut self) {
        if let Some(task) = self.rehearsing.take().filter(|task| !task.is_finished()) {
            task.abort();
            self.rehearsed = self.rehearsed.saturating_sub(1);
        }
    }

    /// Whether a cutover begins now. Indexes that are being built are waited for, since they would be in its pause.
    fn cutover(
        &mut self,
        tracker: &ProgressTracker,
        settings: &Settings,
        order: Directive,
        upkeep: &mut Upkeep,
        verifier: &Verifier,
    ) -> Result<bool, Failure> {
        if tracker.has_refused() && order != Directive::CutOver {
            tracker.forget_refusal();
        }
        if order != Directive::CutOver || tracker.has_refused() {
            self.awaited = None;
            return Ok(false);
        }
        if settings.steering.now().abort_cutover {
            self.refuse(tracker, steps::aborted());
            return Ok(false);
        }
        if tracker.phase() != PhaseKind::Synced {
            return Ok(false);
        }
        if self.awaited.is_none() {
            upkeep.try_again();
        }
        let since = *self.awaited.get_or_insert_with(Instant::now);
        let begins = upkeep.is_done() && !verifier.rest_is_awaited(since)?;
        if begins {
            self.awaited = None;
        }
        Ok(begins)
    }
}

/// Lets the source's users write again after a cutover that failed.
async fn let_writes_in(source: &Cluster, store: &CheckpointStore) {
    if let Err(error) = release_writes(source, store).await {
        tracing::error!(%error, "the source's writes are still blocked");
    }
}

/// After a cutover that failed the source's users may write again, and what was made final is put off again.
pub(crate) async fn roll_back_cutover(
    source: &Cluster,
    replicator: &Replicator,
    settings: &Settings,
) -> Result<(), Failure> {
    let destination = replicator.destination();
    release_writes(source, replicator.store()).await?;
    if properties(settings) == IndexPhase::Deferred {
        expiry::switch_off(destination, &settings.filter).await?;
    }
    indexes::sync_known(replicator.registry(), properties(settings)).await?;
    replicator.store().clear_cutover().await
}

/// How far the destination's indexes go while changes are replicated: a way back leaves the former source's as they are.
fn properties(settings: &Settings) -> IndexPhase {
    if settings.reversal_from.is_some() { IndexPhase::Final } else { IndexPhase::Deferred }
}

/// Lets the source's users write again, if a cutover kept them from it.
async fn release_writes(source: &Cluster, store: &CheckpointStore) -> Result<(), Failure> {
    if store.load().await?.is_some_and(|checkpoint| checkpoint.writes_blocked) {
        crate::cutover::write_block::unblock_writes(source).await?;
        store.set_writes_blocked(false).await?;
    }
    Ok(())
}

/// The same for a run that ended otherwise than by a complete cutover.
pub(crate) async fn unblock_source_writes_on_exit(settings: &Settings) -> Result<(), Failure> {
    let source = Cluster::connect(Side::Source, &settings.source_uri).await?;
    let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
    release_writes(&source, &CheckpointStore::new(&destination, settings.migration_id, settings.epoch)).await
}
