//! Follows one migration until it is over: says each change, and how far it is.

use super::migration_handle::{Detail, MigrationHandle, Reason};
use crate::{
    args::Cutover,
    error::CliError,
    screen,
    ui::{self, Event, Ui},
};
use limosa_agent::http::HttpError;
use limosa_model::{ErrorCode, PhaseKind, Progress};
use std::time::{Duration, Instant};

/// How often the server is asked.
const POLL: Duration = Duration::from_millis(300);

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// How long a server that doesn't answer is asked again.
const SERVER_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Says what a migration waits for, each time that it is something else.
#[derive(Default)]
pub(super) struct Waits(Option<ErrorCode>);

impl Waits {
    pub fn say(&mut self, progress: &Progress) {
        let code = progress.waiting.as_ref().map(|waiting| waiting.code);
        if let Some(waiting) = progress.waiting.as_ref().filter(|_| code != self.0) {
            let (name, remedy) = (waiting.code.name(), waiting.code.remedy());
            ui::say(&format!("it waits: {name}: {}\n  {remedy}", waiting.message));
        }
        self.0 = code;
    }
}

/// Shows every change and, each second, how far it is; ends when the migration does.
pub(crate) async fn follow_until_done(migration: &MigrationHandle<'_>, ui: &mut Ui) -> Result<(), CliError> {
    if ui.takes_the_screen() {
        match screen::follow(migration).await? {
            screen::Left::Interrupted => return Err(CliError::Interrupted),
            screen::Left::Detached if !migration.is_own => {
                ui::say("the migration continues; 'limosa migrations watch' shows it again");
                return Ok(());
            }
            screen::Left::Detached | screen::Left::Over => {}
        }
    }
    let mut shown = Shown::new(migration.cutover);
    let mut answered = Instant::now();
    loop {
        match migration.detail().await {
            Ok(now) => {
                answered = Instant::now();
                shown.show(migration, &now, ui).await?;
                if let Some(ended) = ended(migration, now, ui).await {
                    return ended;
                }
            }
            Err(HttpError::Unreachable(..)) if answered.elapsed() < SERVER_RETRY_TIMEOUT => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What was shown of a migration until now.
struct Shown {
    phase: Option<PhaseKind>,
    is_ready: bool,
    /// Whether this process still is to cut over.
    cutover: Cutover,
    progress_at: Option<Instant>,
    waits: Waits,
}

impl Shown {
    fn new(cutover: Cutover) -> Self {
        Self { phase: None, is_ready: false, cutover, progress_at: None, waits: Waits::default() }
    }

    /// Shows what is new, and cuts over where that is due.
    async fn show(&mut self, migration: &MigrationHandle<'_>, now: &Detail, ui: &mut Ui) -> Result<(), CliError> {
        if self.phase != Some(now.phase) {
            let back = self.phase == Some(PhaseKind::CuttingOver)
                && matches!(now.phase, PhaseKind::Synced | PhaseKind::CatchingUp);
            let reason = if back { migration.last_failure().await? } else { None };
            let reason = reason.map(|reason| format!("{}: {}", reason.code, reason.message));
            ui.show(Event::Phase { phase: now.phase, reason: reason.as_deref() });
            (self.phase, self.progress_at) = (Some(now.phase), None);
        }
        if now.ready_for_cutover && !self.is_ready {
            ui.show(Event::ReadyForCutover {
                profile: migration.profile_file,
                expires_at: now.expires_at.as_deref(),
                by_itself: self.cutover == Cutover::WhenReady,
            });
        }
        self.is_ready = now.ready_for_cutover;
        // Once: after a cutover that was rolled back, an operator must check first.
        if self.is_ready && self.cutover == Cutover::WhenReady && migration.cut_over_when_ready().await? {
            self.cutover = Cutover::Manual;
        }
        self.waits.say(&now.progress);
        if self.progress_at.is_none_or(|at| at.elapsed() >= SHOW_EVERY) || now.phase.is_final() {
            ui.show(Event::Progress {
                phase: now.phase,
                lag_time_seconds: now.lag_time_seconds,
                report_age_seconds: now.report_age_seconds,
                progress: &now.progress,
            });
            self.progress_at = Some(Instant::now());
        }
        Ok(())
    }
}

/// How following it ends, if the migration is over.
async fn ended(migration: &MigrationHandle<'_>, now: Detail, ui: &mut Ui) -> Option<Result<(), CliError>> {
    match now.phase {
        PhaseKind::Complete => {
            ui.show(Event::Complete { progress: &now.progress });
            Some(Ok(()))
        }
        PhaseKind::Failed => {
            let Reason { code, message, remedy } = now.failure.unwrap_or(Reason {
                code: "INTERNAL".to_owned(),
                message: "the server gave no reason".to_owned(),
                remedy: String::new(),
            });
            Some(Err(CliError::Failed { code, message, remedy }))
        }
        PhaseKind::Expired => Some(Err(CliError::Expired)),
        PhaseKind::Cancelled => {
            let removed = if migration.is_own { wait_until_removed(migration).await } else { Ok(()) };
            Some(removed.map_err(CliError::from).and(Err(CliError::Cancelled)))
        }
        PhaseKind::Scheduled
        | PhaseKind::Preparing
        | PhaseKind::Copying
        | PhaseKind::BuildingIndexes
        | PhaseKind::CatchingUp
        | PhaseKind::Synced
        | PhaseKind::CuttingOver
        | PhaseKind::Finalizing
        | PhaseKind::Paused => None,
    }
}

/// Stays while this process's own migration host removes what was copied; only it may be there to do that.
async fn wait_until_removed(migration: &MigrationHandle<'_>) -> Result<(), HttpError> {
    let mut now = migration.detail().await?;
    if now.removal_pending {
        ui::say("removing what was copied from the destination; interrupted, the same command continues with it");
    }
    let mut waits = Waits::default();
    while now.removal_pending {
        waits.say(&now.progress);
        tokio::time::sleep(POLL).await;
        now = migration.detail().await?;
    }
    // The order to remove it may have been withdrawn meanwhile.
    if migration.events().await?.iter().any(|event| event["kind"] == "removed") {
        ui::say("what was copied is gone from the destination");
    }
    Ok(())
}
