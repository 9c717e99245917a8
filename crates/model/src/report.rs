//! The report of a finished migration: what was moved, when, and how it was proven.

use crate::{
    Finding, Migration, PhaseKind, Progress,
    cutover::{CutoverOptions, CutoverTime},
    verification::{Difference, NamespaceVerification},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write};
use utoipa::ToSchema;

/// What the engine alone knows, told with its last report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The source's version.
    pub source_version: String,
    /// The destination's version.
    pub destination_version: String,
    /// The program's.
    pub limosa_version: String,
    /// How the engine was set, without secrets.
    pub configuration: BTreeMap<String, String>,
    /// What is on the destination, by namespace.
    pub namespaces: Vec<NamespaceReport>,
    /// Whole passes of the verifier.
    pub verification_passes: u64,
    /// The first documents that were repaired.
    pub repaired: Vec<RepairedDocument>,
    /// Definitions that differed when the cutover began and were brought over in it.
    pub brought_over: Vec<String>,
    /// What the source has that is never carried over, in words.
    pub left_behind: Vec<String>,
    /// Documents whose change the source couldn't tell, so that they were read again, each in one line; the first of them.
    pub reread: Vec<String>,
    /// The cutover's steps.
    pub cutover_steps: Vec<CutoverStep>,
    /// Where the reverse migration begins, if there is to be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turning_point: Option<CutoverTime>,
}

/// One namespace of a finished migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceReport {
    /// What the verifier found when it compared the whole of it last. The digest is that of what the destination held
    /// when the migration was complete, and absent if that isn't known: see `changed_since`.
    #[serde(flatten)]
    pub verification: NamespaceVerification,
    /// Whether documents were changed after that comparison began. Each of them was compared on its own, but they may or may
    /// not be in these numbers.
    pub changed_since: bool,
    /// Secondary indexes.
    pub index_count: u64,
}

/// A document that was written again because it differed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepairedDocument {
    /// Where.
    pub namespace: String,
    /// Which, and what was the matter.
    #[serde(flatten)]
    pub difference: Difference,
}

/// A step of the cutover and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CutoverStep {
    /// Its number and name.
    pub step: String,
    /// How long it took.
    pub millis: i64,
}

/// When a phase began and ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseSpan {
    /// Which, as the events call it.
    pub phase: String,
    /// From.
    pub began_at: String,
    /// To; absent for the last.
    pub ended_at: Option<String>,
}

/// The lag while changes were replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LagSummary {
    /// Half of the samples were at most this.
    pub p50_seconds: i64,
    /// 95 of 100.
    pub p95_seconds: i64,
    /// 99 of 100.
    pub p99_seconds: i64,
    /// None was more.
    pub most_seconds: i64,
    /// How many samples were kept.
    pub samples: u64,
}

impl LagSummary {
    /// Of samples in any order.
    pub fn of(mut seconds: Vec<i64>) -> Self {
        seconds.sort_unstable();
        let at = |percent: usize| {
            let index = (seconds.len() * percent).div_ceil(100).saturating_sub(1);
            seconds.get(index).copied().unwrap_or(0)
        };
        let samples = seconds.len() as u64;
        Self { p50_seconds: at(50), p95_seconds: at(95), p99_seconds: at(99), most_seconds: at(100), samples }
    }
}

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationReport {
    /// Whose.
    pub migration_id: String,
    /// How it ended.
    pub phase: PhaseKind,
    /// Whether it is complete and both sides were the same then.
    pub equal: bool,
    /// What was read.
    pub source_cluster: String,
    /// What was written.
    pub destination_cluster: String,
    /// The source's version.
    pub source_version: String,
    /// The destination's version.
    pub destination_version: String,
    /// The program's version.
    pub limosa_version: String,
    /// How it was set, without secrets.
    pub configuration: BTreeMap<String, String>,
    /// How it was to be cut over.
    pub cutover_options: CutoverOptions,
    /// When it was created.
    pub created_at: String,
    /// When each phase began and ended.
    pub phases: Vec<PhaseSpan>,
    /// All counters.
    pub progress: Progress,
    /// The lag.
    pub lag: LagSummary,
    /// The write pause that the last rehearsal foresaw; the measured one is in `progress`.
    pub predicted_pause_millis: Option<i64>,
    /// Each step of the cutover.
    pub cutover_steps: Vec<CutoverStep>,
    /// Definitions that the cutover brought over.
    pub brought_over: Vec<String>,
    /// What the source had that is never carried over, in words: databases of other tools, collections in `admin`, stored
    /// functions.
    #[serde(default)]
    #[schema(required = false)]
    pub left_behind: Vec<String>,
    /// Each namespace: documents, bytes, indexes, digest.
    pub namespaces: Vec<NamespaceReport>,
    /// The first documents that were repaired.
    pub repaired: Vec<RepairedDocument>,
    /// Documents whose change the source couldn't tell, so that they were read again, each in one line; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub reread: Vec<String>,
    /// Why it failed, if it did.
    pub failure: Option<Finding>,
    /// SHA-256 of this document without this field, its keys sorted, without white space.
    pub sha256: String,
}

impl MigrationReport {
    /// The report of `migration`, whose phases began at `began`, with what its engine told.
    pub fn new(migration: &Migration, record: Record, began: &[(String, String)], lags: Vec<i64>) -> Self {
        let phases = began.iter().enumerate().map(|(index, (phase, at))| PhaseSpan {
            phase: phase.clone(),
            began_at: at.clone(),
            ended_at: began.get(index + 1).map(|(_, at)| at.clone()),
        });
        let failure = match &migration.phase {
            crate::Phase::Failed { failure } => Some(failure.clone().into()),
            _ => None,
        };
        let complete = migration.phase.kind() == PhaseKind::Complete;
        let mut report = Self {
            migration_id: migration.id.to_string(),
            phase: migration.phase.kind(),
            equal: complete && record.namespaces.iter().all(|n| n.verification.is_equal()),
            source_cluster: migration.source.cluster_name.clone(),
            destination_cluster: migration.destination.cluster_name.clone(),
            source_version: record.source_version,
            destination_version: record.destination_version,
            limosa_version: record.limosa_version,
            configuration: record.configuration,
            cutover_options: migration.cutover,
            created_at: migration.created_at.rfc3339(),
            phases: phases.collect(),
            progress: migration.progress.clone(),
            lag: LagSummary::of(lags),
            predicted_pause_millis: migration.rehearsal.as_ref().and_then(|r| r.predicted_pause_millis),
            cutover_steps: record.cutover_steps,
            brought_over: record.brought_over,
            left_behind: record.left_behind,
            namespaces: record.namespaces,
            repaired: record.repaired,
            reread: record.reread,
            failure,
            sha256: String::new(),
        };
        report.sha256 = digest(&serde_json::to_value(&report).unwrap_or_default());
        report
    }

    /// A page for people, in Markdown.
    pub fn page(&self) -> String {
        let p = &self.progress;
        let mut page = String::new();
        let mut line = |text: String| {
            let _ = writeln!(page, "{text}");
        };
        line(format!("# Migration {}\n", self.migration_id));
        line(format!("**{:?}**, {} to {}", self.phase, self.source_cluster, self.destination_cluster));
        line(format!(
            "(MongoDB {} to {}, Limosa {}).\n",
            self.source_version, self.destination_version, self.limosa_version
        ));
        if let Some(failure) = &self.failure {
            line(format!("{failure}\n"));
        }
        line(format!(
            "{} documents ({} bytes) copied, {} changes applied, {} documents read again, {} repaired.",
            p.documents_copied, p.bytes_copied, p.events_applied, p.documents_refetched, p.documents_repaired
        ));
        let foreseen = self.predicted_pause_millis.map(|ms| format!(" (foreseen: {ms} ms)")).unwrap_or_default();
        let pause = p.write_pause_millis.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms{foreseen}"));
        line(format!(
            "Write pause: {pause}. Lag: half of the time at most {} s, 99 of 100 times at most {} s, never more than {} s.\n",
            self.lag.p50_seconds, self.lag.p99_seconds, self.lag.most_seconds
        ));
        line("| phase | from | to |\n|---|---|---|".to_owned());
        for span in &self.phases {
            line(format!("| {} | {} | {} |", span.phase, span.began_at, span.ended_at.as_deref().unwrap_or("")));
        }
        if !self.cutover_steps.is_empty() {
            line("\n| cutover step | ms |\n|---|---|".to_owned());
            self.cutover_steps.iter().for_each(|step| line(format!("| {} | {} |", step.step, step.millis)));
        }
        line(format!("\n## Verification: {}\n", if self.equal { "equal" } else { "not proven equal" }));
        line("| namespace | documents | bytes | indexes | digest |\n|---|---|---|---|---|".to_owned());
        for of in &self.namespaces {
            let v = &of.verification;
            let digest = v.digest.as_deref().unwrap_or(if of.changed_since { "changed since" } else { "" });
            let row = (&v.namespace, v.documents_compared, v.bytes_compared, of.index_count);
            line(format!("| {} | {} | {} | {} | {digest} |", row.0, row.1, row.2, row.3));
        }
        for repaired in &self.repaired {
            let path = repaired.difference.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
            let (id, how) = (&repaired.difference.id, repaired.difference.departure.words());
            line(format!("\nRepaired: {} _id {id}{path}: {how}", repaired.namespace));
        }
        self.reread.iter().for_each(|text| line(format!("\nRead again: {text}")));
        self.brought_over.iter().for_each(|text| line(format!("\nBrought over at the cutover: {text}")));
        self.left_behind.iter().for_each(|text| line(format!("\nNot carried over: {text}")));
        line("\n## Configuration\n".to_owned());
        self.configuration.iter().for_each(|(name, value)| line(format!("- {name}: {value}")));
        line(format!("\nSHA-256 of the JSON document: {}", self.sha256));
        page
    }
}

/// SHA-256 of a report's JSON without its own field for it.
pub fn digest(report: &Value) -> String {
    let mut report = report.clone();
    report.as_object_mut().into_iter().for_each(|fields| drop(fields.remove("sha256")));
    let hash = Sha256::digest(report.to_string());
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_samples() {
        let summary = LagSummary::of((1..=100).rev().collect());
        assert_eq!((summary.p50_seconds, summary.p95_seconds, summary.most_seconds), (50, 95, 100));
        assert_eq!(LagSummary::of(vec![7]).p99_seconds, 7);
        assert_eq!(LagSummary::of(Vec::new()), LagSummary::default());
    }

    #[test]
    fn a_digest_covers_everything_but_itself() {
        let a = serde_json::json!({"b": 1, "a": 2, "sha256": "x"});
        let b = serde_json::json!({"a": 2, "b": 1, "sha256": "y"});
        assert_eq!(digest(&a), digest(&b));
        assert_ne!(digest(&a), digest(&serde_json::json!({"a": 2, "b": 2})));
        // Of {"a":2,"b":1}, as sha256sum says.
        assert_eq!(digest(&a), "d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772");
    }
}
