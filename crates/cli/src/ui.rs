//! The only place that prints: answers and events to stdout, everything for people to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use crate::{args::Output, error::CliError, logging, terminal};
use indicatif::{HumanBytes, HumanCount};
use limosa_model::{
    ErrorCode, Finding, MigrationId, PhaseKind, Progress, Timestamp,
    cutover::Rehearsal,
    plain::{one_line, plain},
};
use serde::Serialize;
use serde_json::Value;
use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// How much is shown of a text that someone else chose, in characters: a link token and a table are shorter.
const SHOWN: usize = 100_000;

/// Plain progress lines come no closer than this.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What happens to a migration, as it is told.
#[derive(Clone, Copy, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Event<'a> {
    Started {
        url: &'a str,
        profile: &'a Path,
        resumed: bool,
    },
    Phase {
        phase: PhaseKind,
        /// Why a cutover went back.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    Progress {
        phase: PhaseKind,
        lag_time_seconds: Option<i64>,
        /// How long ago its host was heard of.
        report_age_seconds: Option<i64>,
        #[serde(flatten)]
        progress: &'a Progress,
    },
    ReadyForCutover {
        profile: &'a Path,
        expires_at: Option<&'a str>,
        #[serde(skip)]
        by_itself: bool,
    },
    Complete {
        #[serde(flatten)]
        progress: &'a Progress,
    },
    Failed {
        code: &'a str,
        message: &'a str,
        remedy: &'a str,
    },
}

impl<'a> Event<'a> {
    pub fn failed(finding: &'a Finding) -> Self {
        Self::Failed { code: finding.code.name(), message: &finding.evidence, remedy: &finding.remedy }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Event<'a>,
    time: String,
    migration_id: Option<MigrationId>,
}

/// Shows one migration.
pub(crate) struct Ui {
    output: Output,
    quiet: bool,
    migration: Option<MigrationId>,
    last_line: Option<Instant>,
    began: Instant,
}

impl Ui {
    pub fn new(output: Output, quiet: bool) -> Self {
        Self { output, quiet, migration: None, last_line: None, began: Instant::now() }
    }

    /// Whether a person sits before a terminal and wants to see it all.
    pub fn takes_the_screen(&self) -> bool {
        self.output == Output::Text && !self.quiet && terminal::is_possible()
    }

    /// From now on it is about this one.
    pub fn begin(&mut self, migration: MigrationId) {
        self.migration = Some(migration);
    }

    pub fn show(&mut self, event: Event<'_>) {
        if self.output == Output::Json {
            let line = Line { event: &event, time: Timestamp::now().rfc3339(), migration_id: self.migration };
            out(&serde_json::to_string(&line).unwrap_or_default());
        }
        match event {
            Event::Started { url, profile, resumed } => {
                let id = self.migration.map(|id| id.to_string()).unwrap_or_default();
                let verb = if resumed { "continues" } else { "started" };
                self.tell(&format!("migration {id} {verb}; API {url}, profile {}", profile.display()));
            }
            Event::Phase { phase, reason } => self.enter(phase, reason),
            Event::Progress { phase, lag_time_seconds, progress, .. } => {
                self.progress(phase, lag_time_seconds, progress);
            }
            Event::ReadyForCutover { profile, expires_at, by_itself } => {
                say("ready for cutover: the destination follows the source");
                if !by_itself {
                    let until = expires_at.map(|at| format!(" (until {at})")).unwrap_or_default();
                    say(&format!(
                        "  stop the application's writes, then{until}: limosa migrations cutover --wait --profile {}",
                        profile.display()
                    ));
                }
            }
            Event::Complete { progress } => {
                let pause = progress.write_pause_millis.map(|ms| format!(", write pause {ms} ms")).unwrap_or_default();
                say(&format!(
                    "complete: {} documents ({}) copied, {} changes applied, {:.0} s{pause}",
                    HumanCount(progress.documents_copied),
                    HumanBytes(progress.bytes_copied),
                    HumanCount(progress.events_applied),
                    self.began.elapsed().as_secs_f64()
                ));
            }
            Event::Failed { .. } => {}
        }
    }

    /// A line that nobody must act on.
    pub fn tell(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    fn enter(&mut self, phase: PhaseKind, reason: Option<&str>) {
        self.last_line = None;
        if let Some(reason) = reason {
            say(&format!("the cutover was rolled back: {}", one_line(reason, SHOWN)));
            say("  the source is as it was and replication continues");
        }
        self.tell(words(phase));
    }

    fn progress(&mut self, phase: PhaseKind, lag: Option<i64>, p: &Progress) {
        let text = match phase {
            PhaseKind::Copying => format!(
                "{}/{} documents, {}/{} collections, {} changes waiting, {} of {}",
                HumanCount(p.documents_copied),
                HumanCount(p.documents_total),
                p.collections_copied,
                p.collections_total,
                HumanBytes(p.spool_bytes),
                HumanBytes(p.bytes_copied),
                HumanBytes(p.bytes_total)
            ),
            PhaseKind::BuildingIndexes => format!("{}/{} indexes", p.indexes_built, p.indexes_total),
            PhaseKind::CatchingUp | PhaseKind::Synced => {
                let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| format!("{lag} s"));
                let verified = match p.verification_passes {
                    0 => {
                        format!("verifying {}/{}", HumanCount(p.documents_verified), HumanCount(p.documents_to_verify))
                    }
                    _ => format!("verified, {} to look at again", HumanCount(p.documents_dirty)),
                };
                let repaired = match p.documents_repaired {
                    0 => String::new(),
                    n => format!(", {} REPAIRED", HumanCount(n)),
                };
                format!("{} changes applied, lag {lag}, {verified}{repaired}", HumanCount(p.events_applied))
            }
            _ => String::new(),
        };
        if !text.is_empty() && self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            self.tell(&format!("  {text}"));
        }
    }
}

/// A phase as a person says it.
pub(crate) fn words(phase: PhaseKind) -> &'static str {
    match phase {
        PhaseKind::Scheduled => "waiting for a host",
        PhaseKind::Preparing => "preparing",
        PhaseKind::Copying => "copying",
        PhaseKind::BuildingIndexes => "building indexes",
        PhaseKind::CatchingUp => "catching up",
        PhaseKind::Synced => "synced",
        PhaseKind::CuttingOver => "cutting over",
        PhaseKind::Finalizing => "finalizing",
        PhaseKind::Complete => "complete",
        PhaseKind::Paused => "paused",
        PhaseKind::Failed => "failed",
        PhaseKind::Expired => "expired",
        PhaseKind::Cancelled => "cancelled",
    }
}

/// A line for programs. Nobody listening is no reason to stop.
fn out(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Text that was asked for.
pub(crate) fn print(text: &str) {
    out(text);
}

/// A line for people.
pub(crate) fn say(text: &str) {
    if logging::is_json() {
        tracing::info!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "{}", plain(text, SHOWN));
    }
}

/// Why it ends.
fn complain(text: &str) {
    if logging::is_json() {
        tracing::error!("{text}");
    } else {
        say(&format!("error: {}", text.replace('\n', "\n  ")));
    }
}

/// An answer of the API: as it is, or in words.
pub(crate) fn answer(output: Output, value: &Value, words: impl FnOnce(&Value) -> String) {
    match output {
        Output::Json => out(&value.to_string()),
        Output::Text => out(&plain(&words(value), SHOWN)),
    }
}

/// A value as a person would write it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => one_line(text, SHOWN),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Columns as wide as they must be.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether the cutover would be accepted, or why nobody can tell.
pub(crate) fn readiness(migration: &Value) -> String {
    let waiting = &migration["progress"]["waiting"]["code"];
    match (migration["readyForCutover"] == true, waiting.as_str()) {
        (true, _) => "ready".to_owned(),
        (false, Some(code)) => code.to_owned(),
        (false, None) => "-".to_owned(),
    }
}

/// How long ago its host was heard of.
pub(crate) fn report_age(migration: &Value) -> String {
    migration["reportAgeSeconds"].as_i64().map_or_else(|| "-".to_owned(), |age| format!("{age} s ago"))
}

/// A migration, a fact a line.
pub(crate) fn describe(value: &Value) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &Value| lines.push(format!("{name:22} {}", text(value)));
    for name in [
        "id",
        "phase",
        "status",
        "phaseSince",
        "createdAt",
        "readyForCutover",
        "expiresAt",
        "lagTimeSeconds",
        "reportAgeSeconds",
    ] {
        line(name, &value[name]);
    }
    for (name, part) in [("source", "clusterName"), ("destination", "clusterName")] {
        line(name, &value[name][part]);
    }
    line("migrationHosts", &value["migrationHosts"]);
    if let Some(progress) = value["progress"].as_object() {
        let plain = progress.iter().filter(|(_, v)| !v.is_null() && !v.is_array() && !v.is_object());
        plain.for_each(|(name, v)| line(name, v));
        let waiting = &progress.get("waiting").unwrap_or(&Value::Null);
        if let (Some(code), Some(message)) = (waiting["code"].as_str(), waiting["message"].as_str()) {
            line("waiting", &Value::String(format!("{code}: {message}")));
        }
    }
    if let Some(failure) = value["failure"].as_object() {
        failure.iter().for_each(|(name, v)| line(&format!("failure.{name}"), v));
    }
    lines.join("\n")
}

/// Something that was found.
pub(crate) fn finding(found: &Finding) {
    let severity = if found.is_error() { "error" } else { "warning" };
    let (told, remedy) = (one_line(&found.to_string(), SHOWN), one_line(&found.remedy, SHOWN));
    say(&format!("{severity}: {told}\n  {remedy}\n  {}", page(found.code.name())));
}

/// A rehearsal, a step a line.
pub(crate) fn rehearsal(found: &Rehearsal) -> String {
    let mut lines: Vec<String> = found
        .steps
        .iter()
        .map(|step| format!("{:20} {:>8} ms  {}", step.step, step.predicted_millis, step.would))
        .collect();
    let pause = found.predicted_pause_millis.unwrap_or(0);
    lines.push(match found.would_complete {
        true => format!("the cutover would complete; the write pause would be about {pause} ms"),
        false => "the cutover would be rolled back".to_owned(),
    });
    lines.join("\n")
}

/// Where an error's page is.
fn page(code: &str) -> String {
    format!("more: limosa explain {code}, or docs/errors/{code}.md")
}

/// The process's end: the error in words, its exit status.
pub(crate) fn end(ended: Result<(), CliError>) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    match &error {
        CliError::Refused(findings) => {
            findings.iter().for_each(finding);
        }
        CliError::Interrupted => say(&error.to_string()),
        CliError::Failed { code, .. } if ErrorCode::ALL.iter().any(|known| known.name() == code) => {
            complain(&format!("{error}\n{}", page(code)));
        }
        other => complain(&limosa_model::secret::redact_uris(&other.to_string())),
    }
    ExitCode::from(error.exit_status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_is_shown_without_control_characters() {
        let hostile = serde_json::json!("name\u{1b}]0;x\u{7}\nsecond");
        assert_eq!(text(&hostile), "name\\u{1b}]0;x\\u{7}\\nsecond");
    }
}
