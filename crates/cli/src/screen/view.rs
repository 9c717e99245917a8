//! What the screen shows, and the questions that it has.

use limosa_model::{
    Limits, PhaseKind, Timestamp,
    plain::{MESSAGE, one_line},
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;

/// How many measurements a line over time has.
const MEASURES: usize = 240;

/// A question that waits for its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asking {
    #[default]
    Nothing,
    /// Or, of a migration that stands still, to resume it.
    Pause,
    /// How hard the copy may go.
    Load,
    /// With what was typed so far of the destination's name.
    CutOver(String),
}

/// Everything that is shown.
#[derive(Default)]
pub(crate) struct View {
    /// As the API describes it.
    pub detail: Value,
    /// Oldest first.
    pub events: Vec<Value>,
    pub asking: Asking,
    /// What became of the last key.
    pub said: String,
    /// Whether the server answers no more.
    pub is_lost: bool,
    /// Bytes copied a second, and changes applied a second.
    pub copied: VecDeque<u64>,
    pub applied: VecDeque<u64>,
    pub lags: VecDeque<u64>,
    before: Option<(Timestamp, u64, u64)>,
}

impl View {
    pub fn update(&mut self, detail: Value, events: Vec<Value>) {
        self.is_lost = false;
        (self.detail, self.events) = (made_plain(detail), events.into_iter().map(made_plain).collect());
        let now = Timestamp::now();
        let (bytes, changes) = (self.count("bytesCopied"), self.count("eventsApplied"));
        if let Some((at, bytes_before, changes_before)) = self.before {
            let millis = (now.0 - at.0).max(1) as u64;
            keep(&mut self.copied, bytes.saturating_sub(bytes_before) * 1000 / millis);
            keep(&mut self.applied, changes.saturating_sub(changes_before) * 1000 / millis);
        }
        if let Some(lag) = self.detail["lagTimeSeconds"].as_u64() {
            keep(&mut self.lags, lag);
        }
        self.before = Some((now, bytes, changes));
    }

    pub fn phase(&self) -> Option<PhaseKind> {
        PhaseKind::deserialize(&self.detail["phase"]).ok()
    }

    pub fn is_ready(&self) -> bool {
        self.detail["readyForCutover"] == true
    }

    /// Whether its host says nothing: all that is shown is what was known last.
    pub fn is_unknown(&self) -> bool {
        self.is_lost || self.detail["progress"]["waiting"]["code"] == "HOST_SILENT"
    }

    pub fn can_resume(&self) -> bool {
        self.phase() == Some(PhaseKind::Paused)
    }

    pub fn destination(&self) -> &str {
        self.detail["destination"]["clusterName"].as_str().unwrap_or_default()
    }

    pub fn source(&self) -> &str {
        self.detail["source"]["clusterName"].as_str().unwrap_or_default()
    }

    /// How much it may take of its clusters.
    pub fn limits(&self) -> Limits {
        Limits::deserialize(&self.detail["limits"]).unwrap_or_default()
    }

    /// One of the progress's counters.
    pub fn count(&self, name: &str) -> u64 {
        self.detail["progress"][name].as_u64().unwrap_or_default()
    }

    /// Between 0 and 1, of the phase.
    pub fn share(&self) -> f64 {
        let of = |part: &str, total: &str| {
            let total = self.count(total);
            if total == 0 { 0.0 } else { (self.count(part) as f64 / total as f64).min(1.0) }
        };
        match self.phase() {
            Some(PhaseKind::Copying) => of("bytesCopied", "bytesTotal"),
            Some(PhaseKind::BuildingIndexes) => of("indexesBuilt", "indexesTotal"),
            Some(PhaseKind::CatchingUp | PhaseKind::Synced | PhaseKind::CuttingOver | PhaseKind::Finalizing) => 1.0,
            _ => 0.0,
        }
    }
}

fn keep(line: &mut VecDeque<u64>, value: u64) {
    line.push_back(value);
    if line.len() > MEASURES {
        line.pop_front();
    }
}

/// All of its texts, made fit for a terminal.
fn made_plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(one_line(&text, MESSAGE)),
        Value::Array(values) => values.into_iter().map(made_plain).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (one_line(&name, MESSAGE), made_plain(value))).collect()
        }
        other => other,
    }
}
