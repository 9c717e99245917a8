//! What agents are given to do.

use super::migrations::{NotChanged, apply};
use crate::{
    ServerError,
    store::{Agent, Store, Validation},
};
use limosa_model::{
    Migration, MigrationId, OrgId, Phase, PhaseKind, Secret, Timestamp, protocol,
    state::{DestinationRef, SourceRef},
    transition::Event,
};
use serde_json::Value;

/// How long a lease lives without a report.
pub(crate) const LEASE_SECONDS: i64 = 20;

/// How many that are over are told of, the newest first.
const MOST_REPLACED: usize = 500;

/// Takes an agent's news and hands out what waits for its host: a migration that no one holds, with a new lease.
pub(crate) fn hand_out(
    store: &Store,
    org: OrgId,
    known: Agent,
    beat: protocol::Heartbeat,
    now: Timestamp,
) -> Result<protocol::Work, ServerError> {
    let is_as_known = known.deployments == beat.deployments;
    let agent = Agent { deployments: beat.deployments, seen_at: now, ..known };
    match is_as_known {
        true => store.agent_seen(agent.id, now)?,
        false => store.put_agent(org, &agent)?,
    }
    let mut work = protocol::Work::default();
    for waiting in store.pending_validations(org, &agent.host_name)? {
        let Some(given) = validation(store, &waiting, &agent)? else { continue };
        if store.take_validation(&waiting.id, agent.id, now.plus_seconds(-LEASE_SECONDS))? {
            work.validations.push(given);
        }
    }
    for id in beat.kept {
        let known = store.migration_of(org, id)?;
        work.over.extend(known.filter(Migration::is_terminal).map(|migration| migration.id));
    }
    if beat.idle {
        work.migration = claim(store, org, &agent, now)?;
    }
    Ok(work)
}

/// The oldest migration that waits for this agent, now held by it.
fn claim(
    store: &Store,
    org: OrgId,
    agent: &Agent,
    now: Timestamp,
) -> Result<Option<protocol::MigrationAssignment>, ServerError> {
    let mut active = store.active_of_host(org, &agent.host_name)?;
    active.reverse();
    for migration in active.iter().filter(|m| is_for(m, agent, now)) {
        let event = Event::Claim { agent: agent.id, lease_seconds: LEASE_SECONDS };
        match apply(store, migration.id, event, now) {
            Ok(claimed) => return assignment(store, &claimed),
            Err(NotChanged::Store(error)) => return Err(error),
            Err(NotChanged::Illegal(_) | NotChanged::Unknown) => {}
        }
    }
    Ok(None)
}

fn is_for(migration: &Migration, agent: &Agent, now: Timestamp) -> bool {
    migration.migration_host == agent.host_name
        && migration.source.group_id == agent.group_id
        && !matches!(migration.phase, Phase::Paused { .. })
        && agent.deployments.iter().any(|d| d.name == migration.source.cluster_name)
        && migration.lease.as_ref().is_none_or(|lease| lease.until <= now || lease.agent == agent.id)
}

fn access(source: &SourceRef, credentials: Option<&Secret>) -> protocol::SourceAccess {
    protocol::SourceAccess {
        name: source.cluster_name.clone(),
        credentials: credentials.and_then(|both| serde_json::from_str(both.expose()).ok()),
        ca_certificate_path: source.ca_certificate_path.clone(),
        ssl: source.ssl,
    }
}

/// The destination's URI, of the kind that was asked for.
fn destination_uri(store: &Store, destination: &DestinationRef) -> Result<Option<Secret>, ServerError> {
    let cluster = store.cluster(destination.group_id, &destination.cluster_name)?;
    let private_link = destination.private_link_id.as_deref();
    Ok(cluster.and_then(|cluster| cluster.uris.pick(destination.hostname_schema_type, private_link).cloned()))
}

fn assignment(store: &Store, migration: &Migration) -> Result<Option<protocol::MigrationAssignment>, ServerError> {
    let Some(destination_uri) = destination_uri(store, &migration.destination)? else { return Ok(None) };
    let credentials = store.credentials(migration.id)?;
    Ok(Some(protocol::MigrationAssignment {
        migration_id: migration.id,
        epoch: migration.epoch,
        source: access(&migration.source, credentials.as_ref()),
        destination_uri,
        recopies: migration.carried.recopies,
        drop_destination_data: migration.drop_destination_data && migration.reversal.is_none(),
        filter: migration.filter.clone(),
        reversal_from: migration.reversal.map(|reversal| reversal.from),
        reversal_of: migration.reversal.map(|reversal| reversal.of),
        cancelled: migration.carried.to_remove,
        replaces: replaced(store, migration)?,
        identities: migration.carried.identities.clone(),
    }))
}

/// Whose place on the destination it takes: those that were named, and those that this server knows to be over.
fn replaced(store: &Store, migration: &Migration) -> Result<Vec<MigrationId>, ServerError> {
    let mut all = migration.carried.replaces.clone();
    if migration.epoch.0 <= 1 && migration.reversal.is_none() {
        let over = [PhaseKind::Cancelled, PhaseKind::Expired];
        let (known, _) = store.migrations(migration.group_id, &over, 0, MOST_REPLACED)?;
        let same = known.into_iter().filter(|other| {
            other.is_terminal() && other.reversal.is_none() && other.destination == migration.destination
        });
        all.extend(same.map(|other| other.id));
    }
    Ok(all)
}

fn validation(
    store: &Store,
    waiting: &Validation,
    agent: &Agent,
) -> Result<Option<protocol::ValidationAssignment>, ServerError> {
    let part = |name: &str| waiting.request.get(name).cloned().unwrap_or(Value::Null);
    let parsed = (
        waiting.id.parse(),
        serde_json::from_value(part("source")),
        serde_json::from_value::<DestinationRef>(part("destination")),
    );
    let (Ok(validation_id), Ok(source), Ok(destination)) = parsed else { return Ok(None) };
    let source: SourceRef = source;
    if source.group_id != agent.group_id || !agent.deployments.iter().any(|d| d.name == source.cluster_name) {
        return Ok(None);
    }
    let Some(destination_uri) = destination_uri(store, &destination)? else { return Ok(None) };
    Ok(Some(protocol::ValidationAssignment {
        validation_id,
        source: access(&source, waiting.credentials.as_ref()),
        destination_uri,
        drop_destination_data: part("dropDestinationData").as_bool().unwrap_or(false),
        filter: serde_json::from_value(part("filter")).unwrap_or_default(),
        replaces: serde_json::from_value(part("replaces")).unwrap_or_default(),
    }))
}
