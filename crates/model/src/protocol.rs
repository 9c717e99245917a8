//! What agents and the control plane say to each other, under `/api/limosa/v1/agents`. Agents ask, the server answers;
//! it never connects to an agent. Every request carries digest credentials of the link token's API key, and every one
//! but `join` the agent's own secret in the header [`SECRET_HEADER`]: what an agent was given is given to no one else who
//! has the link token.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /api/limosa/v1/agents` | [`Join`] | 200 [`Joined`] |
//! | `POST /api/limosa/v1/agents/{agentId}/heartbeat` | [`Heartbeat`] | 200 [`Work`] |
//! | `POST /api/limosa/v1/agents/{agentId}/migrations/{id}/report` | [`Report`] | 200 [`ReportResponse`] |
//! | `POST /api/limosa/v1/agents/{agentId}/validations/{id}/report` | [`ValidationReport`] | 200 `{}` |

use crate::cutover::{CutoverTime, Rehearsal, RunOptions};
use crate::plain::{MESSAGE, NAME, make_plain};
use crate::progress::NAMESPACES;
use crate::report::Record;
use crate::{
    AgentId, DeploymentId, Epoch, Failure, Finding, GroupId, Identities, MigrationId, NamespaceFilter, PhaseKind,
    Progress, Secret, ValidationId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The header with the agent's secret.
pub const SECRET_HEADER: &str = "x-limosa-agent-secret";

/// An agent presents itself. Sent again after a restart with the same `agent_id`, it is the same agent; the answer to
/// a repeated call is the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// Made by the agent at its first start and kept in its data directory. Names the agent, and proves nothing.
    #[schema(value_type = String, pattern = "^[a-f0-9]{24}$")]
    pub agent_id: AgentId,
    /// The name under which migrations name it as their host.
    #[schema(pattern = r"^[A-Za-z0-9._:\[\]-]{1,253}$")]
    pub host_name: String,
    /// The version of the program.
    #[schema(pattern = r"^[A-Za-z0-9._+-]{1,64}$")]
    pub agent_version: String,
    /// The group whose deployments it announces; made if the organization has none of that name.
    #[schema(pattern = r"^\P{C}+$", max_length = 64)]
    pub group_name: String,
    /// What proves that a later call is this agent's: random, made by the agent and kept with `agent_id`. The first join
    /// binds it to the id. Agents of versions before have none.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 32, max_length = 128)]
    pub secret: Option<Secret>,
    /// What it can read.
    #[schema(max_items = 1000)]
    pub deployments: Vec<Deployment>,
}

/// The server's answer to [`Join`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// The group that has `group_name`.
    pub group_id: GroupId,
    /// How often to send a heartbeat.
    pub heartbeat_seconds: u64,
    /// How long a lease lives without a report.
    pub lease_seconds: u64,
}

/// A source deployment as the agent sees it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The agent's name for it.
    #[schema(pattern = r"^\P{C}+$", max_length = 255)]
    pub name: String,
    /// Stays the same for one deployment: taken from its replica set.
    #[schema(value_type = String, pattern = "^[a-f0-9]{24}$")]
    pub cluster_id: DeploymentId,
    /// Bytes on disk of all user databases.
    pub db_size_bytes: i64,
    /// `6.0`.
    #[schema(pattern = r"^\P{C}*$", max_length = 64)]
    pub feature_compatibility_version: String,
    /// `6.0.5`.
    #[schema(pattern = r"^\P{C}*$", max_length = 64)]
    pub mongo_db_version: String,
    /// The oplog's maximum size.
    pub oplog_size_mb: i32,
    /// Whether it is a sharded cluster.
    pub sharded: bool,
    /// The number of shards; 1 for a replica set.
    pub shards_size: i32,
    /// Whether the agent connects with TLS.
    pub tls_enabled: bool,
    /// Whether the agent was configured with credentials.
    pub managed: bool,
}

/// Sent every few seconds; asks for work as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// Refreshed facts.
    pub deployments: Vec<Deployment>,
    /// Whether it may be given a migration; an agent runs one at a time.
    pub idle: bool,
    /// Migrations that it doesn't run and of which its disk still has something to continue from.
    #[serde(default)]
    pub kept: Vec<MigrationId>,
}

/// What an agent is given to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Work {
    /// A migration to run, its lease already granted. The agent that runs it already ignores it.
    pub migration: Option<MigrationAssignment>,
    /// Validations to carry out, besides the migration.
    pub validations: Vec<ValidationAssignment>,
    /// Of those that it keeps, the ones that nobody will continue with.
    pub over: Vec<MigrationId>,
}

/// Which source to read, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceAccess {
    /// A deployment that the agent announced.
    pub name: String,
    /// Credentials to use instead of the agent's own: user and password.
    pub credentials: Option<(String, Secret)>,
    /// A file on the migration host.
    pub ca_certificate_path: Option<String>,
    /// Connect with TLS.
    pub ssl: bool,
}

/// A migration to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationAssignment {
    /// Which.
    pub migration_id: MigrationId,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// What to read.
    pub source: SourceAccess,
    /// What to write.
    pub destination_uri: Secret,
    /// Drop the destination's user data before the copy.
    pub drop_destination_data: bool,
    /// Which namespaces to carry, within the agent's own options.
    #[serde(default)]
    pub filter: NamespaceFilter,
    /// How often the copy was asked for again: a higher number than the checkpoint has means to make it again.
    #[serde(default)]
    pub recopies: i64,
    /// Where it begins, if it is a reverse migration: from that time on, what is to be written is read, and what is to be
    /// read is written.
    #[serde(default)]
    pub reversal_from: Option<CutoverTime>,
    /// The migration that a reverse migration leads back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversal_of: Option<MigrationId>,
    /// It is over: all that is left is to remove what was copied.
    #[serde(default)]
    pub cancelled: bool,
    /// Migrations whose place on the destination it takes.
    #[serde(default)]
    pub replaces: Vec<MigrationId>,
    /// What its clusters were when it was claimed first; source and destination as the engine has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Identities>,
}

/// A preflight to carry out and report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidationAssignment {
    /// Which.
    pub validation_id: ValidationId,
    /// What would be read.
    pub source: SourceAccess,
    /// What would be written.
    pub destination_uri: Secret,
    /// Whether the migration would drop the destination's data.
    pub drop_destination_data: bool,
    /// Which namespaces it would carry, within the agent's own options.
    #[serde(default)]
    pub filter: NamespaceFilter,
    /// Migrations whose place on the destination it would take.
    #[serde(default)]
    pub replaces: Vec<MigrationId>,
}

/// What an agent saw of the destination that it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterFacts {
    /// `8.0.4`.
    pub mongo_db_version: String,
    /// The replica set's name.
    pub replica_set: String,
    /// Its members that clients connect to, as `host:port`.
    pub hosts: Vec<String>,
}

/// Where a migration is, every second and at each change of phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The lease's epoch.
    pub epoch: Epoch,
    /// Where.
    pub phase: PhaseKind,
    /// How far.
    pub progress: Progress,
    /// Why it failed, or why the cutover went back to `Synced`.
    pub failure: Option<Failure>,
    /// The newest rehearsal's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
    /// What was seen of the destination, until a report with it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<ClusterFacts>,
    /// With `Complete`: what the migration's report is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// What both clusters are, once it was begun. The first report that has it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Identities>,
}

impl Report {
    /// Bounds its texts, and writes out what a terminal or a page would act on: they are whatever the agent, or a server
    /// that it reads, says.
    pub fn make_plain(&mut self) {
        let message = |text: &mut String| make_plain(text, MESSAGE);
        self.failure.iter_mut().for_each(|failure| message(&mut failure.message));
        self.progress.waiting.iter_mut().for_each(|waiting| message(&mut waiting.message));
        self.progress.slowed_because.iter_mut().for_each(message);
        self.progress.namespaces.truncate(NAMESPACES);
        self.progress.namespaces.iter_mut().for_each(|own| make_plain(&mut own.namespace, NAME));
        self.destination.iter_mut().for_each(ClusterFacts::make_plain);
    }
}

impl ClusterFacts {
    /// How many members a replica set has at most.
    const MEMBERS: usize = 50;

    fn make_plain(&mut self) {
        make_plain(&mut self.mongo_db_version, NAME);
        make_plain(&mut self.replica_set, NAME);
        self.hosts.truncate(Self::MEMBERS);
        self.hosts.iter_mut().for_each(|host| make_plain(host, NAME));
    }
}

impl ValidationReport {
    /// How many findings are kept.
    const FINDINGS: usize = 1_000;

    /// As [`Report::make_plain`].
    pub fn make_plain(&mut self) {
        self.findings.truncate(Self::FINDINGS);
        for finding in &mut self.findings {
            make_plain(&mut finding.subject, NAME);
            make_plain(&mut finding.evidence, MESSAGE);
            make_plain(&mut finding.remedy, MESSAGE);
        }
        self.destination.iter_mut().for_each(ClusterFacts::make_plain);
    }
}

/// The server's answer to [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportResponse {
    /// What to do.
    pub directive: Directive,
    /// And how.
    #[serde(default)]
    pub wishes: RunOptions,
}

/// What the control plane wants of a running migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Directive {
    /// Continue; replicate until told otherwise.
    Run,
    /// Cut over.
    CutOver,
    /// Stop, keep everything for a later resume.
    Pause,
    /// Stop permanently, cancelled or expired: nobody continues with it.
    Cancel {
        /// Remove what was copied from the destination.
        drop_copied: bool,
    },
    /// Stop at once: failed, or another agent's.
    Stop,
}

/// What a preflight found; the migration can start when none is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidationReport {
    /// In the order in which they were looked for.
    pub findings: Vec<Finding>,
    /// What was seen of the destination, if it could be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<ClusterFacts>,
}
