//! Each migration as series of its own, and each agent: what alerts and boards want to know.

use crate::{App, ServerError};
use limosa_model::{Migration, OrgId, Phase, PhaseKind, Timestamp};
use std::fmt::{Display, Write};

/// So many of a group's migrations are shown at most, the newest.
const MOST: usize = 200;

/// How long a migration that is over is still shown.
const SHOWN_SECONDS: i64 = 86_400;

/// Name, what it is, its meaning, and how it is read.
type Metric = (&'static str, &'static str, &'static str, fn(&Migration, Timestamp) -> Option<i64>);

const METRICS: &[Metric] = &[
    (
        "lag_seconds",
        "gauge",
        "For how long there has been a write of the source that isn't applied; absent while nobody knows",
        |m, now| m.lag_time_seconds(now),
    ),
    ("report_age_seconds", "gauge", "Since when its migration host has reported nothing", |m, now| {
        let works = m.phase.kind().is_under_way();
        m.report_age_seconds(now).filter(|_| works)
    }),
    ("bytes_to_copy", "gauge", "Bytes to copy, as the source estimates", |m, _| Some(m.progress.bytes_total as i64)),
    ("bytes_copied_total", "counter", "Bytes copied", |m, _| Some(m.progress.bytes_copied as i64)),
    ("documents_copied_total", "counter", "Documents copied", |m, _| Some(m.progress.documents_copied as i64)),
    ("events_applied_total", "counter", "Change events applied", |m, _| Some(m.progress.events_applied as i64)),
    ("spool_bytes", "gauge", "Bytes in the spool", |m, now| m.is_known(now).then_some(m.progress.spool_bytes as i64)),
    ("documents_repaired_total", "counter", "Documents that the verifier repaired", |m, _| {
        Some(m.progress.documents_repaired as i64)
    }),
    (
        "oplog_window_seconds",
        "gauge",
        "How much further the source's oplog reaches back than where it is read",
        |m, now| m.known_progress(now).oplog_window_seconds,
    ),
    ("ready_for_cutover", "gauge", "Whether the cutover would be accepted", |m, now| {
        Some(i64::from(m.ready_for_cutover(now)))
    }),
    ("cutover_seconds_left", "gauge", "Until the time for the cutover is over", |m, now| match m.phase {
        Phase::Synced { expires_at } | Phase::Paused { expires_at: Some(expires_at), .. } => {
            Some(expires_at.seconds_since(now))
        }
        _ => None,
    }),
    ("phase_seconds", "gauge", "Since when it is in its phase", |m, now| Some(now.seconds_since(m.phase_since))),
];

/// A label's value, as the text format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn labels(m: &Migration) -> String {
    format!(
        "migration=\"{}\",group=\"{}\",source=\"{}\",destination=\"{}\",host=\"{}\"",
        m.id,
        m.group_id,
        escape(&m.source.cluster_name),
        escape(&m.destination.cluster_name),
        escape(&m.migration_host)
    )
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Of a counter the type is that of the name without its end.
    let name = name.strip_suffix("_total").unwrap_or(name);
    let _ = writeln!(text, "# HELP limosa_{name} {help}.\n# TYPE limosa_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(text, "limosa_{name}{{{labels}}} {value}");
}

/// All of an organization, in OpenMetrics text.
pub(super) fn series(app: &App, org: OrgId, now: Timestamp) -> Result<String, ServerError> {
    let mut migrations = Vec::new();
    for group in app.store.groups(org)? {
        migrations.extend(app.store.migrations(group.id, PhaseKind::ALL, 0, MOST)?.0);
    }
    migrations.retain(|m| !m.phase.kind().is_final() || now.seconds_since(m.phase_since) < SHOWN_SECONDS);
    let mut text = String::new();
    head(&mut text, "migration_phase", "gauge", "Where a migration is: 1 for its phase");
    for m in &migrations {
        let phase = serde_json::to_value(m.phase.kind()).unwrap_or_default();
        line(&mut text, "migration_phase", &format!("{},phase={phase}", labels(m)), 1);
    }
    for (name, kind, help, read) in METRICS {
        let name = format!("migration_{name}");
        head(&mut text, &name, kind, help);
        for m in &migrations {
            read(m, now).into_iter().for_each(|value| line(&mut text, &name, &labels(m), value));
        }
    }
    head(&mut text, "agent_seen_seconds", "gauge", "Seconds since a migration host last reported");
    for agent in app.store.agents(org)? {
        let labels = format!("agent=\"{}\",host=\"{}\"", agent.id, escape(&agent.host_name));
        line(&mut text, "agent_seen_seconds", &labels, now.seconds_since(agent.seen_at));
    }
    Ok(text)
}
