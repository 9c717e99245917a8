//! What happened to a migration, as data: what its history keeps, and what notifications, reports, the dashboard and the
//! command line read. The English is made here, where an event is shown, and nothing reads it back.

use crate::{AgentId, Epoch, ErrorCode, Identities, Limits, PhaseKind, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An entry of a migration's history. The tag and the fields are stored, so their names stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum HistoryEvent {
    /// A user created it.
    Created {
        /// The host that carries it out.
        host: String,
    },
    /// An agent took it.
    Claimed {
        /// The new holder.
        agent: AgentId,
        /// The holder's epoch.
        epoch: Epoch,
    },
    /// The first agent found out between which clusters it goes.
    Identified {
        /// What both clusters are.
        identities: Box<Identities>,
    },
    /// It went from one phase to another.
    PhaseChanged {
        /// The phase before.
        from: PhaseKind,
        /// The phase now.
        to: PhaseKind,
    },
    /// It failed, or its cutover was rolled back.
    Failed {
        /// What kind of failure.
        code: ErrorCode,
        /// The failure's own sentence.
        message: String,
    },
    /// It waits for an operator.
    WaitingBegan {
        /// What has to be fixed.
        code: ErrorCode,
        /// The failure's own sentence.
        message: String,
    },
    /// What it waited for was fixed.
    WaitingEnded {
        /// What was fixed.
        code: ErrorCode,
    },
    /// The destination refused an index that the source has.
    IndexMissing {
        /// `database.collection` on the destination.
        namespace: String,
        /// The index's name.
        name: String,
        /// The destination's answer.
        reason: String,
    },
    /// The destination has all indexes again.
    IndexesComplete,
    /// The verifier found documents that differed, and wrote them again.
    DocumentsRepaired {
        /// How many until now.
        count: u64,
    },
    /// A user asked for a rehearsal.
    RehearsalRequested {
        /// Its number, from 1.
        number: u32,
    },
    /// A rehearsal ended.
    RehearsalDone {
        /// Whether a cutover would complete.
        would_complete: bool,
        /// How long its writers would be kept from writing, in milliseconds.
        predicted_pause_millis: i64,
    },
    /// A user asked to end the cutover under way.
    CutoverAbortRequested,
    /// A user asked for the copy to be made again.
    RecopyRequested,
    /// A user changed its limits.
    LimitsChanged {
        /// The limits from now on.
        limits: Limits,
    },
    /// What was copied was removed from the destination.
    CopiedDataRemoved,
    /// The time to cut over ends soon.
    CutoverDeadlineNear {
        /// Less than this is left, in hours.
        hours: i64,
        /// When it ends.
        ends_at: Timestamp,
    },
    /// The source's oplog soon reaches back no further than where it is read.
    OplogShort {
        /// How much is left of it, in seconds.
        seconds_left: i64,
    },
    /// An entry that was stored as words alone, by a version that had no others.
    Words {
        /// [`HistoryEvent::kind`] as it was.
        kind: String,
        /// What was shown.
        message: String,
    },
}

impl HistoryEvent {
    /// The group that it belongs to on the wire and in the store.
    pub fn kind(&self) -> &str {
        match self {
            Self::Created { .. } => "created",
            Self::Claimed { .. } => "claimed",
            Self::Identified { .. } => "identified",
            Self::PhaseChanged { .. } => "phase",
            Self::Failed { .. } => "failure",
            Self::WaitingBegan { .. } => "waiting",
            Self::WaitingEnded { .. } => "goesOn",
            Self::IndexMissing { .. } | Self::IndexesComplete => "index",
            Self::DocumentsRepaired { .. } => "repaired",
            Self::RehearsalRequested { .. } | Self::RehearsalDone { .. } => "rehearsal",
            Self::CutoverAbortRequested => "abort",
            Self::RecopyRequested => "recopy",
            Self::LimitsChanged { .. } => "limits",
            Self::CopiedDataRemoved => "removed",
            Self::CutoverDeadlineNear { .. } | Self::OplogShort { .. } => "warning",
            Self::Words { kind, .. } => kind,
        }
    }

    /// An entry of the store: its data, or, where the version that wrote it kept none, what its words say of phases,
    /// failures and the oplog.
    pub fn stored(kind: &str, message: &str, data: Option<&str>) -> Self {
        let of_words = || match kind {
            "phase" => {
                let (from, to) = message.split_once(" to ")?;
                let phase = |words: &str| PhaseKind::ALL.iter().find(|phase| format!("{phase:?}") == words).copied();
                Some(Self::PhaseChanged { from: phase(from)?, to: phase(to)? })
            }
            "failure" => {
                let (name, message) = message.split_once(": ")?;
                let code = ErrorCode::ALL.iter().find(|code| code.name() == name)?;
                Some(Self::Failed { code: *code, message: message.to_owned() })
            }
            "warning" => {
                let (_, left) = message.split_once("oplog reaches back only ")?;
                Some(Self::OplogShort { seconds_left: left.split(' ').next()?.parse().ok()? })
            }
            _ => None,
        };
        let words = || Self::Words { kind: kind.to_owned(), message: message.to_owned() };
        data.and_then(|data| serde_json::from_str(data).ok()).or_else(of_words).unwrap_or_else(words)
    }
}

impl fmt::Display for HistoryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { host } => write!(f, "on host {host}"),
            Self::Claimed { agent, epoch } => write!(f, "agent {agent} with epoch {}", epoch.0),
            Self::Identified { identities } => write!(f, "from {} to {}", identities.source, identities.destination),
            Self::PhaseChanged { from, to } => write!(f, "{from:?} to {to:?}"),
            Self::Failed { code, message } => write!(f, "{}: {message}", code.name()),
            Self::WaitingBegan { code, message } => write!(f, "{}: {message}. {}", code.name(), code.remedy()),
            Self::WaitingEnded { code } => write!(f, "{} is over", code.name()),
            Self::IndexMissing { namespace, name, reason } => {
                write!(f, "the destination lacks index {name} of {namespace}: {reason}")
            }
            Self::IndexesComplete => f.write_str("the destination has all indexes again"),
            Self::DocumentsRepaired { count } => write!(
                f,
                "{count} documents differed on the destination and were written again: another client changes them \
                 there; find that writer before the cutover"
            ),
            Self::RehearsalRequested { number } => write!(f, "rehearsal {number} requested"),
            Self::RehearsalDone { would_complete, predicted_pause_millis } => {
                let would = if *would_complete { "would complete" } else { "would be rolled back" };
                write!(f, "the cutover {would}, after {predicted_pause_millis} ms")
            }
            Self::CutoverAbortRequested => f.write_str("the cutover is to end, back to ready"),
            Self::RecopyRequested => f.write_str("the copy is made again"),
            Self::LimitsChanged { limits } => limits.fmt(f),
            Self::CopiedDataRemoved => f.write_str("what was copied was removed from the destination"),
            Self::CutoverDeadlineNear { hours, ends_at } => write!(
                f,
                "the time to cut over ends in less than {hours} h, at {}: cut over, or extend it",
                ends_at.rfc3339()
            ),
            Self::OplogShort { seconds_left } => write!(
                f,
                "the source's oplog reaches back only {seconds_left} s further than where it is read; enlarge it \
                 (replSetResizeOplog)"
            ),
            Self::Words { message, .. } => f.write_str(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let (from, to) = (PhaseKind::Copying, PhaseKind::BuildingIndexes);
        for event in [
            HistoryEvent::PhaseChanged { from, to },
            HistoryEvent::Claimed { agent: AgentId::generate(), epoch: Epoch(3) },
            HistoryEvent::WaitingBegan { code: ErrorCode::LocalStorage, message: "full".to_owned() },
            HistoryEvent::LimitsChanged { limits: Limits::default() },
            HistoryEvent::CutoverDeadlineNear { hours: 1, ends_at: Timestamp(5) },
            HistoryEvent::IndexesComplete,
        ] {
            let data = serde_json::to_string(&event).expect("is data");
            assert_eq!(HistoryEvent::stored(event.kind(), &event.to_string(), Some(&data)), event);
        }
        let data = serde_json::to_value(HistoryEvent::PhaseChanged { from, to }).expect("is data");
        let golden = serde_json::json!({"event": "phaseChanged", "from": "copying", "to": "buildingIndexes"});
        assert_eq!(data, golden, "the store of the version before has it so");
    }

    #[test]
    fn entries_of_words_alone_are_still_understood_and_shown_as_they_were() {
        let back = HistoryEvent::PhaseChanged { from: PhaseKind::CuttingOver, to: PhaseKind::Synced };
        let failed =
            HistoryEvent::Failed { code: ErrorCode::SourceWrittenDuringCutover, message: "a write: late".to_owned() };
        let short = HistoryEvent::OplogShort { seconds_left: 590 };
        for event in [back, failed, short] {
            let shown = event.to_string();
            assert_eq!(HistoryEvent::stored(event.kind(), &shown, None), event, "{shown}");
        }
        for (kind, message) in
            [("phase", "Copying"), ("failure", "a later code: x"), ("warning", "the time ends"), ("new", "x")]
        {
            let event = HistoryEvent::stored(kind, message, Some(r#"{"event": "ofALaterVersion"}"#));
            assert_eq!((event.kind(), event.to_string().as_str()), (kind, message));
        }
    }
}
