//! `limosa migrations`

use super::{
    Interrupt,
    call::{Call, results},
    migration_handle::MigrationHandle,
    progress_loop::{Waits, follow_until_done},
    report,
};
use crate::{
    args::{CutoverHow, LimitArgs, Migrations, Waiting, Which},
    error::CliError,
    profile::Profile,
    ui::{self, Ui},
};
use limosa_agent::http::HttpError;
use limosa_model::{PhaseKind, cutover::Rehearsal};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// How often a waiting cutover looks.
const POLL: Duration = Duration::from_millis(200);

pub(crate) async fn run(given: Migrations) -> Result<(), CliError> {
    match given {
        Migrations::List(how) => {
            let profile = Profile::read(&how.file)?;
            let answer = profile.client()?.call(Method::GET, &profile.own("liveMigrations"), None).await?;
            ui::answer(how.output, &answer, |answer| {
                let rows = results(answer).iter().map(|row| {
                    let [id, phase, status, lag, created] =
                        ["id", "phase", "status", "lagTimeSeconds", "createdAt"].map(|name| ui::text(&row[name]));
                    vec![id, phase, status, lag, ui::readiness(row), ui::report_age(row), created]
                });
                let head = ["ID", "PHASE", "STATUS", "LAG", "CUTOVER", "REPORTED", "CREATED"];
                ui::table(&head, rows.collect())
            });
            Ok(())
        }
        Migrations::Describe(which) => {
            let call = Call::open(&which).await?;
            let answer = call.client.call(Method::GET, &call.path(""), None).await?;
            ui::answer(which.profile.output, &answer, ui::describe);
            Ok(())
        }
        Migrations::Watch { which, quiet } => watch(&which, quiet).await,
        Migrations::Cutover { waiting, how } => cut_over(&waiting, &how).await,
        Migrations::AbortCutover(which) => abort_cutover(&which).await,
        Migrations::Rehearse(which) => rehearse(&which).await,
        Migrations::Events(which) => {
            let call = Call::open(&which).await?;
            let answer = call.client.call(Method::GET, &call.path("/events"), None).await?;
            ui::answer(which.profile.output, &answer, |answer| {
                let rows =
                    results(answer).iter().map(|row| ["time", "kind", "message"].map(|n| ui::text(&row[n])).to_vec());
                ui::table(&["TIME", "KIND", "MESSAGE"], rows.collect())
            });
            Ok(())
        }
        Migrations::Report(which) => report::show(&which).await,
        Migrations::Pause(which) => act(&which, "pause", json!({})).await,
        Migrations::Resume { which, recopy } => act(&which, "resume", json!({"recopy": recopy})).await,
        Migrations::Limit { which, limits } => limit(&which, limits).await,
        Migrations::Extend { which, hours } => act(&which, "extend", json!({"seconds": i64::from(hours) * 3600})).await,
        Migrations::Cancel { which, drop_copied } => act(&which, "cancel", json!({"dropCopied": drop_copied})).await,
    }
}

async fn act(which: &Which, verb: &str, body: Value) -> Result<(), CliError> {
    let call = Call::open(which).await?;
    let answer = call.client.call(Method::POST, &call.path(&format!("/{verb}")), Some(body)).await?;
    ui::answer(which.profile.output, &answer, ui::describe);
    Ok(())
}

async fn limit(which: &Which, wanted: LimitArgs) -> Result<(), CliError> {
    let call = Call::open(which).await?;
    let watched = call.watched(which);
    let Some(limits) = wanted.change(watched.limits().await?) else {
        return Err(CliError::Usage("say what to change: see 'limosa migrations limit --help'".to_owned()));
    };
    let answer = watched.limit(limits).await?;
    ui::answer(which.profile.output, &answer, ui::describe);
    Ok(())
}

async fn watch(which: &Which, quiet: bool) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen()?;
    let call = Call::open(which).await?;
    let mut ui = Ui::new(which.profile.output, quiet);
    ui.begin(call.id);
    let watched = call.watched(which);
    tokio::select! {
        ended = follow_until_done(&watched, &mut ui) => match ended {
            Err(CliError::Interrupted) => Ok(()),
            ended => ended,
        },
        // Only the watching ends.
        () = interrupt.came() => Ok(()),
    }
}

async fn cut_over(given: &Waiting, how: &CutoverHow) -> Result<(), CliError> {
    let call = Call::open(&given.which).await?;
    let watched = call.watched(&given.which);
    if *how != CutoverHow::default()
        && let Some(options) = how.change(watched.cutover_options().await?)
    {
        watched.choose_cutover(options).await?;
    }
    watched.cut_over().await?;
    ui::say("the cutover is under way");
    if given.wait {
        until_complete(&watched).await?;
    }
    let answer = call.client.call(Method::GET, &call.path(""), None).await?;
    ui::answer(given.which.profile.output, &answer, ui::describe);
    Ok(())
}

/// Ends the cutover under way and waits until the migration is ready again.
async fn abort_cutover(which: &Which) -> Result<(), CliError> {
    let call = Call::open(which).await?;
    call.client.call(Method::POST, &call.path("/cutover/abort"), Some(json!({}))).await?;
    ui::say("the cutover is to end; what it changed is rolled back");
    let watched = call.watched(which);
    let mut waits = Waits::default();
    loop {
        let now = watched.detail().await?;
        waits.say(&now.progress);
        let ended_otherwise = match now.phase {
            PhaseKind::CuttingOver | PhaseKind::Finalizing => None,
            PhaseKind::Synced | PhaseKind::CatchingUp => break,
            PhaseKind::Complete => Some("the cutover was complete before it could be ended".to_owned()),
            other => {
                let reason = now.failure.map(|f| format!(": {}: {}", f.code, f.message)).unwrap_or_default();
                Some(format!("the migration is {other:?} now{reason}"))
            }
        };
        if let Some(message) = ended_otherwise {
            return Err(CliError::Failed { code: "NOT_ABORTED".to_owned(), message, remedy: String::new() });
        }
        tokio::time::sleep(POLL).await;
    }
    ui::say("the cutover has ended, and the migration continues to replicate");
    let answer = call.client.call(Method::GET, &call.path(""), None).await?;
    ui::answer(which.profile.output, &answer, ui::describe);
    Ok(())
}

/// Asks for a rehearsal and waits for what it finds.
async fn rehearse(which: &Which) -> Result<(), CliError> {
    let call = Call::open(which).await?;
    let path = call.path("/cutover/rehearsal");
    let mut found = call.client.call(Method::POST, &path, Some(json!({}))).await?;
    ui::say("the cutover is rehearsed; nothing is changed");
    while found["state"] != "DONE" {
        tokio::time::sleep(POLL).await;
        let now = call.watched(which).detail().await?;
        if now.phase != PhaseKind::Synced {
            let message = format!("the migration is {:?} now", now.phase);
            return Err(CliError::Failed { code: "NOT_REHEARSED".to_owned(), message, remedy: String::new() });
        }
        found = call.client.call(Method::GET, &path, None).await?;
    }
    let rehearsal: Rehearsal =
        serde_json::from_value(found.clone()).map_err(|e| HttpError::Malformed(e.to_string()))?;
    ui::answer(which.profile.output, &found, |_| ui::rehearsal(&rehearsal));
    if rehearsal.would_complete { Ok(()) } else { Err(CliError::Refused(rehearsal.findings)) }
}

/// Waits for the end of a cutover under way.
async fn until_complete(watched: &MigrationHandle<'_>) -> Result<(), CliError> {
    let mut waits = Waits::default();
    loop {
        let now = watched.detail().await?;
        waits.say(&now.progress);
        match now.phase {
            PhaseKind::CuttingOver | PhaseKind::Finalizing => {}
            PhaseKind::Complete => return Ok(()),
            PhaseKind::Synced | PhaseKind::CatchingUp => {
                let (code, message) = watched.last_failure().await?.map_or_else(
                    || ("CUTOVER".to_owned(), "the cutover was rolled back".to_owned()),
                    |reason| (reason.code, reason.message),
                );
                let remedy =
                    "The source is as it was and replication continues; when the cause is fixed, cut over again.";
                return Err(CliError::Failed { code, message, remedy: remedy.to_owned() });
            }
            other => {
                let reason = now.failure.map(|f| format!("{}: {}", f.code, f.message)).unwrap_or_default();
                let message = format!("the migration is {other:?} {reason}");
                return Err(CliError::Failed { code: "NOT_CUT_OVER".to_owned(), message, remedy: String::new() });
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
