//! Follows one migration through the API until it is over.

use crate::{
    args::Cutover,
    error::CliError,
    profile::Profile,
    screen,
    ui::{self, Event, Ui},
};
use limosa_agent::http::{Client, HttpError};
use limosa_model::{ErrorCode, Limits, MigrationId, PhaseKind, Progress, cutover::CutoverOptions};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How often the server is asked.
const POLL: Duration = Duration::from_millis(300);

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// How long a server that doesn't answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A migration as the API describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    pub id: MigrationId,
    pub phase: PhaseKind,
    pub progress: Progress,
    pub lag_time_seconds: Option<i64>,
    pub ready_for_cutover: bool,
    /// Absent from servers of the version before.
    #[serde(default)]
    pub report_age_seconds: Option<i64>,
    pub failure: Option<Reason>,
    pub expires_at: Option<String>,
    #[serde(default)]
    pub reversal_of: Option<MigrationId>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub drop_destination_data: bool,
    #[serde(default)]
    pub removal_pending: bool,
}

/// Why something failed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Reason {
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub remedy: String,
}

impl Detail {
    pub fn read(value: &Value) -> Result<Self, HttpError> {
        Self::deserialize(value).map_err(|e| HttpError::Malformed(e.to_string()))
    }
}

/// What is followed, and what to do when it is ready.
pub(crate) struct Watched<'a> {
    pub profile: &'a Profile,
    pub client: &'a Client,
    pub id: MigrationId,
    pub profile_file: &'a Path,
    pub cutover: Cutover,
    /// Whether this process carries it out: then leaving the screen doesn't end it.
    pub is_own: bool,
}

impl Watched<'_> {
    pub async fn detail(&self) -> Result<Detail, HttpError> {
        Detail::read(&self.described().await?)
    }

    /// As the API describes it.
    pub async fn described(&self) -> Result<Value, HttpError> {
        self.client.call(Method::GET, &self.profile.own(&format!("liveMigrations/{}", self.id)), None).await
    }

    /// What happened to it, oldest first.
    pub async fn events(&self) -> Result<Vec<Value>, HttpError> {
        let path = self.profile.own(&format!("liveMigrations/{}/events?itemsPerPage=500", self.id));
        let answer = self.client.call(Method::GET, &path, None).await?;
        Ok(answer["results"].as_array().cloned().unwrap_or_default())
    }

    /// Pauses or resumes it.
    pub async fn act(&self, verb: &str) -> Result<(), HttpError> {
        let path = self.profile.own(&format!("liveMigrations/{}/{verb}", self.id));
        self.client.call(Method::POST, &path, Some(json!({}))).await.map(drop)
    }

    /// Cuts over as soon as it is ready; `false` if it isn't any more by the time that the order arrives.
    pub async fn cut_over_when_ready(&self) -> Result<bool, HttpError> {
        match self.cut_over().await {
            Ok(()) => Ok(true),
            Err(HttpError::Refused(409, ..)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn cut_over(&self) -> Result<(), HttpError> {
        let path = self.profile.atlas(&format!("liveMigrations/{}/cutover", self.id));
        self.client.call(Method::PUT, &path, None).await.map(drop)
    }

    /// The way back of this migration, if it has one.
    pub async fn way_back(&self) -> Result<Option<Detail>, HttpError> {
        let listed = self.client.call(Method::GET, &self.profile.own("liveMigrations"), None).await?;
        let all = listed["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all = all.iter().map(Detail::read).collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().find(|detail| detail.reversal_of == Some(self.id)))
    }

    pub async fn limits(&self) -> Result<Limits, HttpError> {
        Ok(self.detail().await?.limits)
    }

    pub async fn limit(&self, limits: Limits) -> Result<Value, HttpError> {
        let path = self.profile.own(&format!("liveMigrations/{}/limits", self.id));
        self.client.call(Method::POST, &path, Some(json!(limits))).await
    }

    /// How it is to be cut over.
    pub async fn cutover_options(&self) -> Result<CutoverOptions, HttpError> {
        let answer = self.client.call(Method::GET, &self.options_path(), None).await?;
        CutoverOptions::deserialize(answer).map_err(|e| HttpError::Malformed(e.to_string()))
    }

    pub async fn choose_cutover(&self, options: CutoverOptions) -> Result<(), HttpError> {
        self.client.call(Method::PUT, &self.options_path(), Some(json!(options))).await.map(drop)
    }

    fn options_path(&self) -> String {
        self.profile.own(&format!("liveMigrations/{}/cutover/options", self.id))
    }

    /// Stays while this process's own migration host removes what was copied; only it may be there to do that.
    async fn until_removed(&self) -> Result<(), HttpError> {
        let mut now = self.detail().await?;
        if now.removal_pending {
            ui::say("removing what was copied from the destination; interrupted, the same command continues with it");
        }
        let mut waits = Waits::default();
        while now.removal_pending {
            waits.tell(&now.progress);
            tokio::time::sleep(POLL).await;
            now = self.detail().await?;
        }
        // The removal may have been rolled back meanwhile.
        if self.events().await?.iter().any(|event| event["kind"] == "removed") {
            ui::say("what was copied is gone from the destination");
        }
        Ok(())
    }

    /// Why the last cutover was rolled back.
    pub async fn last_failure(&self) -> Result<Option<Reason>, HttpError> {
        let events = self.events().await?;
        let newest = events.iter().filter(|e| e["kind"] == "failure").max_by_key(|e| e["id"].as_i64());
        Ok(newest.map(|event| {
            // A server of the version before keeps the sentence alone.
            let data = Reason::deserialize(&event["data"]).ok();
            data.unwrap_or_else(|| Reason {
                code: "CUTOVER".to_owned(),
                message: event["message"].as_str().unwrap_or_default().to_owned(),
                remedy: String::new(),
            })
        }))
    }
}

/// Says what a migration waits for, each time that it is something else.
#[derive(Default)]
pub(super) struct Waits(Option<ErrorCode>);

impl Waits {
    pub fn tell(&mut self, progress: &Progress) {
        let code = progress.waiting.as_ref().map(|waiting| waiting.code);
        if let Some(waiting) = progress.waiting.as_ref().filter(|_| code != self.0) {
            let (name, remedy) = (waiting.code.name(), waiting.code.remedy());
            ui::say(&format!("it waits: {name}: {}\n  {remedy}", waiting.message));
        }
        self.0 = code;
    }
}

/// Shows every change and, each second, how far it is; ends when the migration does.
pub(crate) async fn to_the_end(watched: &Watched<'_>, ui: &mut Ui) -> Result<(), CliError> {
    let (mut phase, mut ready) = (None, false);
    let mut waits = Waits::default();
    let mut shown: Option<Instant> = None;
    let mut cutover = watched.cutover;
    if ui.takes_the_screen() {
        match screen::follow(watched).await? {
            screen::Left::Interrupted => return Err(CliError::Interrupted),
            screen::Left::Detached if !watched.is_own => {
                ui::say("the migration continues; 'limosa migrations watch' shows it again");
                return Ok(());
            }
            screen::Left::Detached | screen::Left::Over => {}
        }
    }
    let mut answered = Instant::now();
    loop {
        let now = match watched.detail().await {
            Ok(now) => now,
            Err(HttpError::Unreachable(..)) if answered.elapsed() < PATIENCE => {
                tokio::time::sleep(POLL).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        answered = Instant::now();
        if phase != Some(now.phase) {
            let back =
                phase == Some(PhaseKind::CuttingOver) && matches!(now.phase, PhaseKind::Synced | PhaseKind::CatchingUp);
            let reason = if back { watched.last_failure().await? } else { None };
            let reason = reason.map(|reason| format!("{}: {}", reason.code, reason.message));
            ui.show(Event::Phase { phase: now.phase, reason: reason.as_deref() });
            shown = None;
            phase = Some(now.phase);
        }
        if now.ready_for_cutover && !ready {
            let expires_at = now.expires_at.as_deref();
            ui.show(Event::ReadyForCutover {
                profile: watched.profile_file,
                expires_at,
                by_itself: cutover == Cutover::WhenReady,
            });
        }
        ready = now.ready_for_cutover;
        // Once: after a cutover that was rolled back, someone must look first.
        if ready && cutover == Cutover::WhenReady && watched.cut_over_when_ready().await? {
            cutover = Cutover::Manual;
        }
        waits.tell(&now.progress);
        if shown.is_none_or(|at| at.elapsed() >= SHOW_EVERY) || now.phase.is_final() {
            ui.show(Event::Progress {
                phase: now.phase,
                lag_time_seconds: now.lag_time_seconds,
                report_age_seconds: now.report_age_seconds,
                progress: &now.progress,
            });
            shown = Some(Instant::now());
        }
        match now.phase {
            PhaseKind::Complete => {
                ui.show(Event::Complete { progress: &now.progress });
                return Ok(());
            }
            PhaseKind::Failed => {
                let reason = now.failure.unwrap_or(Reason {
                    code: "INTERNAL".to_owned(),
                    message: "the server gave no reason".to_owned(),
                    remedy: String::new(),
                });
                let Reason { code, message, remedy } = reason;
                return Err(CliError::Failed { code, message, remedy });
            }
            PhaseKind::Expired => return Err(CliError::Expired),
            PhaseKind::Cancelled => {
                if watched.is_own {
                    watched.until_removed().await?;
                }
                return Err(CliError::Cancelled);
            }
            PhaseKind::Scheduled
            | PhaseKind::Preparing
            | PhaseKind::Copying
            | PhaseKind::BuildingIndexes
            | PhaseKind::CatchingUp
            | PhaseKind::Synced
            | PhaseKind::CuttingOver
            | PhaseKind::Finalizing
            | PhaseKind::Paused => {}
        }
        tokio::time::sleep(POLL).await;
    }
}
