//! Migrations: how they begin, and how they change.

use crate::{ServerError, store::Store};
use limosa_model::{
    Epoch, GroupId, Limits, Migration, MigrationId, NamespaceFilter, OrgId, Phase, Progress, Secret, Timestamp,
    cutover::CutoverOptions,
    state::{Bookkeeping, DestinationRef, SourceRef},
    transition::{Event, IllegalTransition, apply_event},
};

/// A migration as it was asked for, checked.
pub(crate) struct NewMigration {
    pub source: SourceRef,
    pub destination: DestinationRef,
    pub host: String,
    pub drop_destination_data: bool,
    pub filter: NamespaceFilter,
    /// Migrations whose place on the destination it takes.
    pub replaces: Vec<MigrationId>,
    /// User and password as JSON, where the agent's own are not to be used.
    pub credentials: Option<Secret>,
}

/// Why a migration wasn't changed.
pub(crate) enum NotChanged {
    Illegal(IllegalTransition),
    Unknown,
    Store(ServerError),
}

impl From<ServerError> for NotChanged {
    fn from(error: ServerError) -> Self {
        Self::Store(error)
    }
}

/// Why a migration wasn't created.
pub(crate) enum NotCreated {
    /// Another one that isn't over has the same destination.
    InUse(MigrationId),
    Store(ServerError),
}

impl From<ServerError> for NotCreated {
    fn from(error: ServerError) -> Self {
        Self::Store(error)
    }
}

/// Creates a migration; it waits for an agent then.
pub(crate) fn create(
    store: &Store,
    org: OrgId,
    group_id: GroupId,
    wanted: NewMigration,
    now: Timestamp,
) -> Result<Migration, NotCreated> {
    let migration = Migration {
        id: MigrationId::generate(),
        group_id,
        source: wanted.source,
        destination: wanted.destination,
        migration_host: wanted.host,
        drop_destination_data: wanted.drop_destination_data,
        filter: wanted.filter,
        limits: Limits::default(),
        phase: Phase::Scheduled,
        lease: None,
        epoch: Epoch(0),
        progress: Progress::default(),
        created_at: now,
        phase_since: now,
        cutover: CutoverOptions::default(),
        rehearsal: None,
        carried: Bookkeeping { replaces: wanted.replaces, ..Bookkeeping::default() },
        reversal: None,
        heard: None,
    };
    match store.create_migration(org, &migration, wanted.credentials.as_ref())? {
        Some(other) => Err(NotCreated::InUse(other)),
        None => Ok(migration),
    }
}

/// What becomes of a migration by `event`, written. A report that changes nothing but how far it is comes again: the disk
/// isn't waited for.
pub(crate) fn apply(
    store: &Store,
    migration: MigrationId,
    event: Event,
    now: Timestamp,
) -> Result<Migration, NotChanged> {
    let change = store.begin_change(migration)?.ok_or(NotChanged::Unknown)?;
    let is_report = matches!(event, Event::Report(_));
    let (next, history) = apply_event(&change.current, event, now).map_err(NotChanged::Illegal)?;
    let is_as_before = next.phase == change.current.phase && next.carried == change.current.carried;
    let relaxed = is_report && history.is_empty() && is_as_before;
    Ok(change.write(next, &history, relaxed, now)?)
}
