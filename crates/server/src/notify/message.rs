//! What is told.

use limosa_model::{Migration, PhaseKind, Timestamp, history::HistoryEvent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Why someone is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Occasion {
    /// The cutover can begin.
    Ready,
    /// It stopped by an error.
    Failed,
    /// A cutover went back.
    CutoverTakenBack,
    /// Little time is left for the cutover.
    TimeRunningOut,
    /// The source's oplog soon reaches back no further than where it is read.
    OplogShort,
    /// It stands still until something is fixed.
    Waiting,
    /// The verifier found documents that somebody else changed on the destination.
    Mismatch,
    /// Nobody cut over in time.
    Expired,
    /// Cut over.
    Complete,
    /// Someone tries whether messages arrive.
    Test,
}

impl Occasion {
    /// Of an entry in a migration's history, if an operator has to know of it.
    pub fn of_event(event: &HistoryEvent) -> Option<Self> {
        match event {
            HistoryEvent::OplogShort { .. } => Some(Self::OplogShort),
            HistoryEvent::PhaseChanged { from, to } => Self::of_phase(*from, *to),
            // By its kind, since an entry of an earlier version has no more.
            other => match other.kind() {
                "waiting" => Some(Self::Waiting),
                "repaired" => Some(Self::Mismatch),
                "warning" => Some(Self::TimeRunningOut),
                _ => None,
            },
        }
    }

    fn of_phase(from: PhaseKind, to: PhaseKind) -> Option<Self> {
        let back = matches!(from, PhaseKind::CuttingOver | PhaseKind::Finalizing);
        match to {
            PhaseKind::CatchingUp | PhaseKind::Synced if back => Some(Self::CutoverTakenBack),
            PhaseKind::Synced => Some(Self::Ready),
            PhaseKind::Failed => Some(Self::Failed),
            PhaseKind::Expired => Some(Self::Expired),
            PhaseKind::Complete => Some(Self::Complete),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Ready => "ready for cutover",
            Self::Failed => "failed",
            Self::CutoverTakenBack => "the cutover was rolled back",
            Self::TimeRunningOut => "the time for the cutover runs out",
            Self::OplogShort => "the source's oplog gets short",
            Self::Waiting => "it stands still until something is fixed",
            Self::Mismatch => "documents differed on the destination and were written again",
            Self::Expired => "expired: nobody cut over in time",
            Self::Complete => "complete",
            Self::Test => "this is a test",
        }
    }
}

/// A message, the same for all channels.
pub(crate) struct Message(Value);

impl Message {
    pub fn new(occasion: Occasion, migration: &Migration, at: Timestamp, text: &str, page: Option<&str>) -> Self {
        let (source, destination) = (&migration.source.cluster_name, &migration.destination.cluster_name);
        let reason = match &migration.phase {
            limosa_model::Phase::Failed { failure } if occasion == Occasion::Failed => {
                json!({"code": failure.code.name(), "message": failure.message, "remedy": failure.code.remedy()})
            }
            _ => Value::Null,
        };
        let link = page
            .map(|page| format!("{}/#/migrations/{}/{}", page.trim_end_matches('/'), migration.group_id, migration.id));
        Self(json!({
            "event": occasion,
            "subject": format!("{source} → {destination}: {}", occasion.words()),
            "text": text,
            "time": at.rfc3339(),
            "failure": reason,
            "link": link,
            "migration": {
                "id": migration.id, "groupId": migration.group_id, "source": source, "destination": destination,
                "host": migration.migration_host, "phase": migration.phase.kind(),
                "reportAgeSeconds": migration.report_age_seconds(Timestamp::now()),
            },
        }))
    }

    pub fn test(page: Option<&str>) -> Self {
        Self(json!({
            "event": Occasion::Test, "subject": "Limosa: this is a test", "text": "Messages arrive here.",
            "time": Timestamp::now().rfc3339(), "failure": null, "link": page, "migration": null,
        }))
    }

    pub fn to_json(&self) -> String {
        self.0.to_string()
    }
}

/// Subject and text of a message, for people.
pub(super) fn email(body: &str) -> (String, String) {
    let message: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failure = &message["failure"];
    let reason = failure["code"]
        .as_str()
        .map(|code| format!("{code}: {}\nWhat to do: {}", text(&failure["message"]), text(&failure["remedy"])));
    let migration = message["migration"]["id"].as_str().map(|id| {
        format!(
            "Migration {id} on {}, phase {}",
            text(&message["migration"]["host"]),
            text(&message["migration"]["phase"])
        )
    });
    let parts = [Some(text(&message["text"])), reason, migration, message["link"].as_str().map(ToOwned::to_owned)];
    let parts: Vec<String> = parts.into_iter().flatten().chain([text(&message["time"])]).collect();
    (text(&message["subject"]), parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_someone_must_act_on_is_told() {
        for (kind, text, expected) in [
            ("phase", "CatchingUp to Synced", Some(Occasion::Ready)),
            ("phase", "CuttingOver to Synced", Some(Occasion::CutoverTakenBack)),
            ("phase", "CuttingOver to CatchingUp", Some(Occasion::CutoverTakenBack)),
            ("phase", "Synced to CatchingUp", None),
            ("phase", "Copying to Failed", Some(Occasion::Failed)),
            ("phase", "Synced to Expired", Some(Occasion::Expired)),
            ("phase", "Finalizing to Complete", Some(Occasion::Complete)),
            ("warning", "the source's oplog reaches back only 5 s further", Some(Occasion::OplogShort)),
            ("warning", "the time to cut over ends", Some(Occasion::TimeRunningOut)),
            ("waiting", "LOCAL_STORAGE: full", Some(Occasion::Waiting)),
            ("repaired", "1 documents differed", Some(Occasion::Mismatch)),
            ("goesOn", "LOCAL_STORAGE is over", None),
            ("phase", "Scheduled to Copying", None),
            ("failure", "X to Synced", None),
            ("created", "on host Complete", None),
        ] {
            let event = HistoryEvent::stored(kind, text, None);
            assert_eq!(Occasion::of_event(&event), expected, "{kind} {text}");
        }
    }
}
