//! From phase to the public status. Exhaustive, so that a new phase must say what clients see of it.

use crate::state::PhaseKind;
use serde::{Deserialize, Serialize};

/// What Atlas's clients see of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Scheduled, not taken by an agent yet.
    New,
    /// An agent is at it, or it is paused.
    Working,
    /// It failed or was cancelled.
    Failed,
    /// Cut over.
    Complete,
    /// The time to cut over ran out.
    Expired,
}

impl From<PhaseKind> for Status {
    fn from(phase: PhaseKind) -> Self {
        match phase {
            PhaseKind::Scheduled => Self::New,
            PhaseKind::Preparing
            | PhaseKind::Copying
            | PhaseKind::BuildingIndexes
            | PhaseKind::CatchingUp
            | PhaseKind::Synced
            | PhaseKind::CuttingOver
            | PhaseKind::Finalizing
            | PhaseKind::Paused => Self::Working,
            PhaseKind::Complete => Self::Complete,
            PhaseKind::Failed | PhaseKind::Cancelled => Self::Failed,
            PhaseKind::Expired => Self::Expired,
        }
    }
}
