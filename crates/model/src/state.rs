//! A migration as the control plane keeps it.

use crate::{
    AgentId, Epoch, ErrorCode, Failure, GroupId, Identities, Limits, MigrationId, NamespaceFilter, Progress, Timestamp,
    cutover::{CutoverOptions, Rehearsal, Reversal, RunOptions},
    progress::Waiting,
    protocol::Directive,
    wire::live_migration::HostnameSchemaType,
};
use serde::{Deserialize, Serialize};

/// Where the engine is, with what belongs to that place. All variants are stored; an agent's report sets those up to
/// `Complete`, a user's request `Paused` and `Cancelled`, the clock `Expired`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Phase {
    /// Waits for an agent.
    Scheduled,
    /// Preflight, connections, the change stream's start.
    Preparing,
    /// Initial copy.
    Copying,
    /// Secondary indexes.
    BuildingIndexes,
    /// Applying the spool.
    CatchingUp,
    /// Past the convergence point with small lag.
    Synced {
        /// When the timer lapses.
        expires_at: Timestamp,
    },
    /// The user asked for it.
    CuttingOver,
    /// Past the point of no return: the destination is being made writable.
    Finalizing,
    /// Done.
    Complete,
    /// Stopped by the user; continues with `from`.
    Paused {
        /// Where it was.
        from: PhaseKind,
        /// The timer that runs on while paused, if it was `Synced`.
        expires_at: Option<Timestamp>,
    },
    /// Ended by an error.
    Failed {
        /// What happened.
        failure: Failure,
    },
    /// The timer lapsed.
    Expired,
    /// Ended by the user.
    Cancelled {
        /// Whether what was copied is to be removed from the destination.
        drop_copied: bool,
    },
}

/// [`Phase`] without its data: to store, compare and report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PhaseKind {
    /// See [`Phase::Scheduled`].
    Scheduled,
    /// See [`Phase::Preparing`].
    Preparing,
    /// See [`Phase::Copying`].
    Copying,
    /// See [`Phase::BuildingIndexes`].
    BuildingIndexes,
    /// See [`Phase::CatchingUp`].
    CatchingUp,
    /// See [`Phase::Synced`].
    Synced,
    /// See [`Phase::CuttingOver`].
    CuttingOver,
    /// See [`Phase::Finalizing`].
    Finalizing,
    /// See [`Phase::Complete`].
    Complete,
    /// See [`Phase::Paused`].
    Paused,
    /// See [`Phase::Failed`].
    Failed,
    /// See [`Phase::Expired`].
    Expired,
    /// See [`Phase::Cancelled`].
    Cancelled,
}

impl Phase {
    /// The twin without data.
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Scheduled => PhaseKind::Scheduled,
            Self::Preparing => PhaseKind::Preparing,
            Self::Copying => PhaseKind::Copying,
            Self::BuildingIndexes => PhaseKind::BuildingIndexes,
            Self::CatchingUp => PhaseKind::CatchingUp,
            Self::Synced { .. } => PhaseKind::Synced,
            Self::CuttingOver => PhaseKind::CuttingOver,
            Self::Finalizing => PhaseKind::Finalizing,
            Self::Complete => PhaseKind::Complete,
            Self::Paused { .. } => PhaseKind::Paused,
            Self::Failed { .. } => PhaseKind::Failed,
            Self::Expired => PhaseKind::Expired,
            Self::Cancelled { .. } => PhaseKind::Cancelled,
        }
    }
}

impl PhaseKind {
    /// Whether `lagTimeSeconds` is a number in this phase.
    pub fn has_lag(self) -> bool {
        match self {
            Self::CatchingUp | Self::Synced => true,
            Self::Scheduled
            | Self::Preparing
            | Self::Copying
            | Self::BuildingIndexes
            | Self::CuttingOver
            | Self::Finalizing
            | Self::Complete
            | Self::Paused
            | Self::Failed
            | Self::Expired
            | Self::Cancelled => false,
        }
    }

    /// Whether an agent works on a migration in this phase, and reports.
    pub fn is_under_way(self) -> bool {
        match self {
            Self::Preparing
            | Self::Copying
            | Self::BuildingIndexes
            | Self::CatchingUp
            | Self::Synced
            | Self::CuttingOver
            | Self::Finalizing => true,
            Self::Scheduled | Self::Complete | Self::Paused | Self::Failed | Self::Expired | Self::Cancelled => false,
        }
    }

    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Scheduled,
        Self::Preparing,
        Self::Copying,
        Self::BuildingIndexes,
        Self::CatchingUp,
        Self::Synced,
        Self::CuttingOver,
        Self::Finalizing,
        Self::Complete,
        Self::Paused,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::BuildingIndexes => "buildingIndexes",
            Self::CatchingUp => "catchingUp",
            Self::Synced => "synced",
            Self::CuttingOver => "cuttingOver",
            Self::Finalizing => "finalizing",
            Self::Complete => "complete",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        match self {
            Self::Complete | Self::Failed | Self::Expired | Self::Cancelled => true,
            Self::Scheduled
            | Self::Preparing
            | Self::Copying
            | Self::BuildingIndexes
            | Self::CatchingUp
            | Self::Synced
            | Self::CuttingOver
            | Self::Finalizing
            | Self::Paused => false,
        }
    }

    /// Whether the user can make it continue. What is final and can't leaves nothing to do but, perhaps, to remove what was
    /// copied.
    pub fn may_resume(self) -> bool {
        matches!(self, Self::Paused | Self::Failed)
    }
}

/// Who runs a migration now, and until when unless renewed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The holder.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it lapses.
    pub until: Timestamp,
}

/// That something was heard of the agent that holds a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// When, last.
    pub at: Timestamp,
    /// The epoch of the newest report. Absent after a claim: what an earlier run said counts no more.
    #[serde(default)]
    pub epoch: Option<Epoch>,
}

/// A host that has reported nothing for longer than this is silent: what it said last isn't known to be true any more. It
/// reports every second, so that this is ten in a row.
pub const SILENT_SECONDS: i64 = 10;

/// Which deployment is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    /// The group whose agent announced it.
    pub group_id: GroupId,
    /// The name under which it was announced.
    pub cluster_name: String,
    /// Use the agent's own credentials.
    pub managed_authentication: bool,
    /// Certificate authorities' file on the migration host.
    pub ca_certificate_path: Option<String>,
    /// Connect with TLS.
    pub ssl: bool,
}

/// Which cluster is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationRef {
    /// Its group.
    pub group_id: GroupId,
    /// The name under which it was registered.
    pub cluster_name: String,
    /// Which of its connection strings to use.
    #[serde(default)]
    pub hostname_schema_type: HostnameSchemaType,
    /// Which private link, if it is one.
    #[serde(default)]
    pub private_link_id: Option<String>,
}

/// One source deployment to one destination cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// Its id.
    pub id: MigrationId,
    /// The group it belongs to.
    pub group_id: GroupId,
    /// What is read.
    pub source: SourceRef,
    /// What is written.
    pub destination: DestinationRef,
    /// The host whose agent runs it.
    pub migration_host: String,
    /// Whether the destination's user data is dropped before the copy.
    pub drop_destination_data: bool,
    /// Which namespaces it carries, of those that its agent's own options admit.
    #[serde(default)]
    pub filter: NamespaceFilter,
    /// How much it may take of its clusters.
    #[serde(default)]
    pub limits: Limits,
    /// Where it is.
    pub phase: Phase,
    /// Who runs it.
    pub lease: Option<Lease>,
    /// The last epoch given out.
    pub epoch: Epoch,
    /// How far it is.
    pub progress: Progress,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it entered its phase.
    pub phase_since: Timestamp,
    /// How it is to be cut over.
    #[serde(default)]
    pub cutover: CutoverOptions,
    /// The newest rehearsal of its cutover.
    #[serde(default)]
    pub rehearsal: Option<Rehearsal>,
    /// Set for the reverse migration of another. Source and destination are that one's; the agent exchanges them.
    #[serde(default)]
    pub reversal: Option<Reversal>,
    /// What it carries from phase to phase.
    #[serde(default)]
    pub carried: Bookkeeping,
    /// What was heard of its agent last; absent before the first claim.
    #[serde(default)]
    pub heard: Option<Heard>,
}

/// What must outlive a change of phase or of agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bookkeeping {
    /// Until when the cutover is possible: set when it was synced first, whatever phase an agent's restart leads through.
    pub cutover_by: Option<Timestamp>,
    /// How many seconds before that the user was warned last.
    pub cutover_warned: Option<i64>,
    /// With how many seconds left of the source's oplog the user was warned last.
    pub oplog_warned: Option<i64>,
    /// How often the user asked for the copy to be made again.
    pub recopies: i64,
    /// Migrations whose place on the destination it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<MigrationId>,
    /// What its clusters were when an agent claimed it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identities: Option<Identities>,
    /// It was cancelled, and what was copied is still to be removed: some agent has to, however long that takes to come.
    pub to_remove: bool,
    /// The user asked to end the cutover under way; gone with it.
    pub abort_cutover: bool,
}

impl Migration {
    /// Seconds since its agent was heard of last.
    pub fn report_age_seconds(&self, now: Timestamp) -> Option<i64> {
        self.heard.map(|heard| now.seconds_since(heard.at).max(0))
    }

    /// For how many seconds an agent that should report hasn't, if that is too long.
    pub fn silent_seconds(&self, now: Timestamp) -> Option<i64> {
        let kind = self.phase.kind();
        let reports = self.lease.is_some() && (kind.is_under_way() || self.carried.to_remove);
        self.report_age_seconds(now).filter(|age| reports && *age > SILENT_SECONDS)
    }

    /// Whether the current run has said how far it is, and lately.
    pub fn is_known(&self, now: Timestamp) -> bool {
        let spoke = self.heard.is_some_and(|heard| heard.epoch == Some(self.epoch));
        spoke && self.phase.kind().is_under_way() && self.silent_seconds(now).is_none()
    }

    /// `lagTimeSeconds` as clients see it.
    pub fn lag_time_seconds(&self, now: Timestamp) -> Option<i64> {
        let shown = self.phase.kind().has_lag() && self.is_known(now);
        if shown { self.progress.lag_seconds } else { None }
    }

    /// `readyForCutover` as clients see it.
    pub fn ready_for_cutover(&self, now: Timestamp) -> bool {
        matches!(self.phase, Phase::Synced { .. }) && self.is_known(now)
    }

    /// How far it is, as far as that is known: of a silent host only what never goes back, and that it is silent.
    pub fn known_progress(&self, now: Timestamp) -> Progress {
        let mut progress = self.progress.clone();
        if let Some(seconds) = self.silent_seconds(now) {
            progress.waiting = Some(Waiting { code: ErrorCode::HostSilent, message: self.silence(seconds) });
        } else if progress.waiting.as_ref().is_some_and(|waiting| waiting.code == ErrorCode::HostSilent) {
            progress.waiting = None;
        }
        if !self.is_known(now) {
            (progress.lag_seconds, progress.oplog_window_seconds) = (None, None);
            (progress.source_events_per_second, progress.applied_events_per_second) = (None, None);
        }
        progress
    }

    /// What is said of a silent host.
    pub(crate) fn silence(&self, seconds: i64) -> String {
        format!("the migration host {} has reported nothing for {seconds} s", self.migration_host)
    }

    /// Whether no agent will ever take it up again.
    pub fn is_terminal(&self) -> bool {
        let kind = self.phase.kind();
        kind.is_final() && !kind.may_resume() && !self.carried.to_remove
    }

    /// What the agent receives besides its directive.
    pub fn wishes(&self) -> RunOptions {
        let rehearsal = self.rehearsal.as_ref().map_or(0, |rehearsal| rehearsal.number);
        let abort_cutover = self.carried.abort_cutover;
        RunOptions { cutover: self.cutover, rehearsal, limits: self.limits, abort_cutover }
    }

    /// What the agent that reports with `agent` and `epoch` is to do next.
    pub fn directive(&self, agent: AgentId, epoch: Epoch) -> Directive {
        if !self.lease.as_ref().is_some_and(|lease| lease.agent == agent && lease.epoch == epoch) {
            // The last holder keeps what it would continue from until it learns that no agent will.
            return match self.phase {
                Phase::Cancelled { .. } | Phase::Expired if epoch == self.epoch => self.end_for_good(),
                _ => Directive::Stop,
            };
        }
        match self.phase {
            Phase::Scheduled
            | Phase::Preparing
            | Phase::Copying
            | Phase::BuildingIndexes
            | Phase::CatchingUp
            | Phase::Synced { .. } => Directive::Run,
            Phase::CuttingOver | Phase::Finalizing => Directive::CutOver,
            Phase::Paused { .. } => Directive::Pause,
            Phase::Cancelled { .. } | Phase::Expired => self.end_for_good(),
            Phase::Complete | Phase::Failed { .. } => Directive::Stop,
        }
    }

    fn end_for_good(&self) -> Directive {
        Directive::Cancel { drop_copied: self.carried.to_remove }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_the_name_that_it_is_written_with() {
        for phase in PhaseKind::ALL {
            assert_eq!(serde_json::json!(phase), phase.name());
        }
        let mut all = PhaseKind::ALL.to_vec();
        all.dedup();
        assert_eq!(all.len(), 13);
    }
}
