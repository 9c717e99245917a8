//! The only place that prints: answers and events to stdout, everything for people to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use crate::{args::Output, error::CliError};
use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use limosa_model::{Failure, MigrationId, PhaseKind, Progress, Timestamp};
use serde::Serialize;
use serde_json::Value;
use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

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
    pub fn failed(failure: &'a Failure) -> Self {
        Self::Failed { code: failure.code.name(), message: &failure.message, remedy: failure.code.remedy() }
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
    migration: Option<MigrationId>,
    bars: MultiProgress,
    bar: Option<ProgressBar>,
    phase: Option<PhaseKind>,
    last_line: Option<Instant>,
    began: Instant,
}

impl Ui {
    pub fn new(output: Output) -> Self {
        let (bars, began) = (MultiProgress::new(), Instant::now());
        Self { output, migration: None, bars, bar: None, phase: None, last_line: None, began }
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
                let verb = if resumed { "goes on" } else { "started" };
                self.say(&format!("migration {id} {verb}; API {url}, profile {}", profile.display()));
            }
            Event::Phase { phase, reason } => self.enter(phase, reason),
            Event::Progress { phase, lag_time_seconds, progress } => self.progress(phase, lag_time_seconds, progress),
            Event::ReadyForCutover { profile, expires_at, by_itself } => {
                self.say("ready for cutover: the destination follows the source");
                if !by_itself {
                    let until = expires_at.map(|at| format!(" (until {at})")).unwrap_or_default();
                    self.say(&format!(
                        "  stop the application's writes, then{until}: limosa migrations cutover --wait --profile {}",
                        profile.display()
                    ));
                }
            }
            Event::Complete { progress } => {
                self.finish_bar();
                let pause = progress.write_pause_millis.map(|ms| format!(", write pause {ms} ms")).unwrap_or_default();
                self.say(&format!(
                    "complete: {} documents ({}) copied, {} changes applied, {:.0} s{pause}",
                    HumanCount(progress.documents_copied),
                    HumanBytes(progress.bytes_copied),
                    HumanCount(progress.events_applied),
                    self.began.elapsed().as_secs_f64()
                ));
            }
            Event::Failed { .. } => self.finish_bar(),
        }
    }

    fn say(&self, text: &str) {
        self.bars.suspend(|| say(text));
    }

    fn enter(&mut self, phase: PhaseKind, reason: Option<&str>) {
        self.finish_bar();
        self.last_line = None;
        self.phase = Some(phase);
        if let Some(reason) = reason {
            self.say(&format!("the cutover was taken back: {reason}"));
            self.say("  the source is as it was and replication goes on");
        }
        if !io::stderr().is_terminal() {
            self.say(words(phase));
        } else if !phase.is_final() {
            let bar = self.bars.add(ProgressBar::new(0));
            let template = match phase {
                PhaseKind::Copying => "{prefix:18} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}  {msg}",
                PhaseKind::BuildingIndexes => "{prefix:18} [{wide_bar}] {pos}/{len} {elapsed}",
                _ => "{prefix:18} {spinner} {elapsed}  {msg}",
            };
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(words(phase));
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = Some(bar);
        }
    }

    fn finish_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }

    fn progress(&mut self, phase: PhaseKind, lag: Option<i64>, p: &Progress) {
        let text = match phase {
            PhaseKind::Copying => format!(
                "{}/{} documents, {}/{} collections, {} changes waiting",
                HumanCount(p.documents_copied),
                HumanCount(p.documents_total),
                p.collections_copied,
                p.collections_total,
                HumanBytes(p.spool_bytes)
            ),
            PhaseKind::BuildingIndexes => format!("{}/{} indexes", p.indexes_built, p.indexes_total),
            PhaseKind::CatchingUp | PhaseKind::Synced => {
                let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| format!("{lag} s"));
                format!("{} changes applied, lag {lag}", HumanCount(p.events_applied))
            }
            _ => String::new(),
        };
        if let Some(bar) = &self.bar {
            match phase {
                PhaseKind::Copying => {
                    bar.set_length(p.bytes_total.max(p.bytes_copied));
                    bar.set_position(p.bytes_copied);
                }
                PhaseKind::BuildingIndexes => {
                    bar.set_length(p.indexes_total);
                    bar.set_position(p.indexes_built);
                }
                _ => {}
            }
            bar.set_message(text);
        } else if !text.is_empty() && self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let bytes = match phase {
                PhaseKind::Copying => format!(", {} of {}", HumanBytes(p.bytes_copied), HumanBytes(p.bytes_total)),
                _ => String::new(),
            };
            say(&format!("  {text}{bytes}"));
        }
    }
}

fn words(phase: PhaseKind) -> &'static str {
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

/// A line for people.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// An answer of the API: as it is, or in words.
pub(crate) fn answer(output: Output, value: &Value, words: impl FnOnce(&Value) -> String) {
    match output {
        Output::Json => out(&value.to_string()),
        Output::Text => out(&words(value)),
    }
}

/// A value as a person would write it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
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

/// A migration, a fact a line.
pub(crate) fn describe(value: &Value) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &Value| lines.push(format!("{name:22} {}", text(value)));
    for name in ["id", "phase", "status", "phaseSince", "createdAt", "readyForCutover", "expiresAt", "lagTimeSeconds"] {
        line(name, &value[name]);
    }
    for (name, part) in [("source", "clusterName"), ("destination", "clusterName")] {
        line(name, &value[name][part]);
    }
    line("migrationHosts", &value["migrationHosts"]);
    if let Some(progress) = value["progress"].as_object() {
        progress.iter().filter(|(_, v)| !v.is_null()).for_each(|(name, v)| line(name, v));
    }
    if let Some(failure) = value["failure"].as_object() {
        failure.iter().for_each(|(name, v)| line(&format!("failure.{name}"), v));
    }
    lines.join("\n")
}

/// The process's end: the error in words, its exit status.
pub(crate) fn end(ended: Result<(), CliError>) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    match &error {
        CliError::Refused(findings) => {
            for finding in findings {
                say(&format!("error: {finding}\n  {}", finding.code.remedy()));
            }
        }
        CliError::Interrupted => say(&error.to_string()),
        other => {
            say(&format!("error: {}", limosa_model::secret::redact_uris(&other.to_string()).replace('\n', "\n  ")));
        }
    }
    ExitCode::from(error.exit_status())
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env("LIMOSA_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

/// Logs to stderr.
pub(crate) fn log(default: &str) {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(layer.with_filter(filter(default))).init();
}

/// Logs to a file, and what a person should know above the progress display.
pub(crate) fn log_to(file: &Path, ui: &Ui) -> Result<(), CliError> {
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    let opened = opened.map_err(|e| CliError::File(file.to_owned(), e))?;
    let to_file = tracing_subscriber::fmt::layer().with_writer(Mutex::new(opened)).with_ansi(false);
    let above = Above(ui.bars.clone());
    let to_person = tracing_subscriber::fmt::layer()
        .with_writer(move || above.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_filter(tracing_subscriber::filter::LevelFilter::WARN);
    tracing_subscriber::registry().with(to_file.with_filter(filter("info"))).with(to_person).init();
    Ok(())
}

/// Writes between the bars.
#[derive(Clone)]
struct Above(MultiProgress);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
