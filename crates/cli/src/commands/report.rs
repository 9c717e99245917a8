//! `limosa migrations report`, and the copy of it that `limosa migrate` leaves: its server ends with it.

use super::{call::Call, migration_handle::MigrationHandle};
use crate::{
    args::Which,
    error::CliError,
    profile::write_private,
    ui::{self, Ui},
};
use limosa_agent::http::HttpError;
use limosa_model::report::{MigrationReport, digest};
use reqwest::Method;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where a report is kept: beside the profile.
fn kept_beside(profile: &Path) -> PathBuf {
    profile.with_file_name("report.json")
}

/// Keeps the report of a migration that is complete.
pub(super) async fn keep(watched: &MigrationHandle<'_>, ui: &Ui) -> Result<(), CliError> {
    let path = watched.profile.own(&format!("liveMigrations/{}/report", watched.id));
    let report = watched.client.call(Method::GET, &path, None).await?;
    let file = kept_beside(watched.profile_file);
    write_private(&file, &serde_json::to_vec_pretty(&report).unwrap_or_default())?;
    ui.tell(&format!("  report: limosa migrations report, or {}", file.display()));
    Ok(())
}

/// The report; one whose digest isn't its own is not shown as one.
pub(super) async fn show(which: &Which) -> Result<(), CliError> {
    let answer = match ask(which).await {
        Err(CliError::Http(HttpError::Unreachable(..))) if kept(which).is_some() => kept(which).unwrap_or_default(),
        asked => asked?,
    };
    if answer["sha256"] != digest(&answer) {
        let message = "the report's SHA-256 is not that of its contents".to_owned();
        let remedy = "It was changed after it was made; look at the server's store.".to_owned();
        return Err(CliError::Failed { code: "REPORT_CHANGED".to_owned(), message, remedy });
    }
    let report: MigrationReport =
        serde_json::from_value(answer.clone()).map_err(|e| HttpError::Malformed(e.to_string()))?;
    ui::answer(which.profile.output, &answer, |_| report.page());
    Ok(())
}

async fn ask(which: &Which) -> Result<Value, CliError> {
    let call = Call::open(which).await?;
    Ok(call.client.call(Method::GET, &call.path("/report"), None).await?)
}

/// What was kept of the migration that is asked for.
fn kept(which: &Which) -> Option<Value> {
    let text = fs::read(kept_beside(&which.profile.file)).ok()?;
    let report: Value = serde_json::from_slice(&text).ok()?;
    (which.id.is_none() || report["migrationId"].as_str() == which.id.as_deref()).then_some(report)
}
