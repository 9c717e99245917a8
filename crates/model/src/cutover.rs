//! What a cutover may be asked for beyond itself, and what a rehearsal of it found.

use crate::{Limits, MigrationId, finding::Finding};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How to cut over; holds for the next cutover and those after it until changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CutoverOptions {
    /// Make the source refuse its users' writes when the cutover begins: `setUserWriteBlockMode`, from MongoDB 6.0 on.
    /// It lets them write again if the cutover doesn't complete, and stays so if it does.
    #[schema(default = false, required = false)]
    pub block_source_writes: bool,
    /// Once complete, carry the destination's changes back to the source's cluster, until told to stop.
    #[schema(default = false, required = false)]
    pub reversible: bool,
}

/// What the control plane tells a running engine besides its directive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunOptions {
    /// How to cut over.
    pub cutover: CutoverOptions,
    /// The number of the rehearsal that is wanted; one that was carried out already is not again.
    pub rehearsal: u32,
    /// How much it may take of its clusters.
    pub limits: Limits,
    /// End the cutover under way: the migration is ready again.
    pub abort_cutover: bool,
}

/// The cluster time on the destination at which a cutover was complete: where the reverse migration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TurningPoint)]
pub struct CutoverTime {
    /// Seconds.
    pub time: u32,
    /// Within the second.
    pub increment: u32,
}

/// What makes a migration the reverse migration of another: the roles exchanged, nothing copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reversal {
    /// The migration that it reverses.
    pub of: MigrationId,
    /// From when on.
    pub from: CutoverTime,
}

/// Where a rehearsal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RehearsalState {
    /// Waits for the agent.
    #[default]
    Pending,
    /// The result is there.
    Done,
}

/// One step of a cutover as a rehearsal foresees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RehearsedStep {
    /// Its number and name.
    pub step: String,
    /// How long it would take.
    pub predicted_millis: i64,
    /// What it would do.
    pub would: String,
}

/// A cutover gone through without changing anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rehearsal {
    /// Grows with each rehearsal of a migration.
    pub number: u32,
    /// Where it is.
    pub state: RehearsalState,
    /// When it was asked for.
    pub requested_at: String,
    /// When its result came.
    pub ended_at: Option<String>,
    /// Whether the cutover would complete as things are.
    pub would_complete: bool,
    /// How long the application would have to wait, from the stop of its writers to the end.
    pub predicted_pause_millis: Option<i64>,
    /// The steps, in order.
    pub steps: Vec<RehearsedStep>,
    /// What would stand in the way.
    pub findings: Vec<Finding>,
}
