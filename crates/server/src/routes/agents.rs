//! What agents say, and what is known of them.

use super::{owned_org, reply};
use crate::{
    call::Call,
    render::{ApiError, Reply},
    store::{Agent, NotChanged},
};
use limosa_model::{
    AgentId, Finding, GroupId, Migration, MigrationId, Phase, PhaseKind, Secret, Timestamp,
    cutover::{CutoverOptions, Reversal, TurningPoint, Wishes},
    protocol,
    state::{DestinationRef, SourceRef},
    transition::Event,
    wire::live_migration::{AvailableClustersDeployment, LiveImportAvailableProject},
};
use serde_json::{Value, json};

/// How long a lease lives without a report.
const LEASE_SECONDS: i64 = 20;

/// How often agents come.
const HEARTBEAT_SECONDS: u64 = 2;

/// How long an agent counts as there after it was last heard of.
const SEEN_SECONDS: i64 = 60;

pub(crate) fn join(call: &Call) -> Result<Reply, ApiError> {
    let join: protocol::Join = call.parse()?;
    let org = call.principal.org_id;
    let name = &join.group_name;
    call.app.store.create_group(GroupId::generate(), org, name, Timestamp::now())?;
    let group = call.app.store.group_by_name(org, name)?.ok_or_else(|| ApiError::resource(name))?;
    let group_id = group.id;
    let agent = Agent {
        id: join.agent_id,
        group_id,
        host_name: join.host_name,
        deployments: join.deployments,
        seen_at: Timestamp::now(),
        version: join.agent_version,
    };
    call.app.store.put_agent(org, &agent)?;
    let lease_seconds = LEASE_SECONDS as u64;
    Ok(reply(&protocol::Joined { group_id, heartbeat_seconds: HEARTBEAT_SECONDS, lease_seconds }))
}

fn agent(call: &Call) -> Result<Agent, ApiError> {
    let text = call.param("agentId");
    let id = text.parse::<AgentId>().map_err(|_| ApiError::resource(text))?;
    call.app.store.agent(call.principal.org_id, id)?.ok_or_else(|| ApiError::resource(text))
}

/// Takes the agent's news and hands out what waits for its host: a migration that no one holds, with a new lease.
pub(crate) fn heartbeat(call: &Call) -> Result<Reply, ApiError> {
    let beat: protocol::Heartbeat = call.parse()?;
    let now = Timestamp::now();
    let known = agent(call)?;
    let is_as_known = known.deployments == beat.deployments;
    let agent = Agent { deployments: beat.deployments, seen_at: now, ..known };
    match is_as_known {
        true => call.app.store.agent_seen(agent.id, now)?,
        false => call.app.store.put_agent(call.principal.org_id, &agent)?,
    }
    let mut work = protocol::Work::default();
    for waiting in call.app.store.pending_validations(call.principal.org_id, &agent.host_name)? {
        work.validations.extend(validation(call, &waiting)?);
    }
    for id in beat.kept {
        let known = call.app.store.migration(id)?;
        work.over.extend(known.filter(Migration::is_over_for_good).map(|migration| migration.id));
    }
    if beat.idle {
        let mut active = call.app.store.active_of_host(call.principal.org_id, &agent.host_name)?;
        active.reverse();
        for migration in active.iter().filter(|m| is_for(m, &agent, now)) {
            match call.app.store.change(
                migration.id,
                Event::Claim { agent: agent.id, lease_seconds: LEASE_SECONDS },
                now,
            ) {
                Ok(claimed) => {
                    work.migration = assignment(call, &claimed)?;
                    break;
                }
                Err(NotChanged::Store(error)) => return Err(error.into()),
                Err(NotChanged::Illegal(_) | NotChanged::Unknown) => {}
            }
        }
    }
    Ok(reply(&work))
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
fn destination_uri(call: &Call, destination: &DestinationRef) -> Result<Option<Secret>, ApiError> {
    let cluster = call.app.store.cluster(destination.group_id, &destination.cluster_name)?;
    let private_link = destination.private_link_id.as_deref();
    Ok(cluster.and_then(|cluster| cluster.uris.pick(destination.hostname_schema_type, private_link).cloned()))
}

fn assignment(call: &Call, migration: &Migration) -> Result<Option<protocol::MigrationAssignment>, ApiError> {
    let Some(destination_uri) = destination_uri(call, &migration.destination)? else { return Ok(None) };
    let credentials = call.app.store.credentials(migration.id)?;
    Ok(Some(protocol::MigrationAssignment {
        migration_id: migration.id,
        epoch: migration.epoch,
        source: access(&migration.source, credentials.as_ref()),
        destination_uri,
        recopies: migration.carried.recopies,
        drop_destination_data: migration.drop_destination_data && migration.reversal.is_none(),
        filter: migration.filter.clone(),
        reversal_from: migration.reversal.map(|reversal| reversal.from),
        cancelled: migration.carried.to_remove,
    }))
}

fn validation(
    call: &Call,
    waiting: &crate::store::Validation,
) -> Result<Option<protocol::ValidationAssignment>, ApiError> {
    let part = |name: &str| waiting.request.get(name).cloned().unwrap_or(Value::Null);
    let parsed = (
        waiting.id.parse(),
        serde_json::from_value(part("source")),
        serde_json::from_value::<DestinationRef>(part("destination")),
    );
    let (Ok(validation_id), Ok(source), Ok(destination)) = parsed else { return Ok(None) };
    let Some(destination_uri) = destination_uri(call, &destination)? else { return Ok(None) };
    let source: SourceRef = source;
    Ok(Some(protocol::ValidationAssignment {
        validation_id,
        source: access(&source, waiting.credentials.as_ref()),
        destination_uri,
        drop_destination_data: part("dropDestinationData").as_bool().unwrap_or(false),
        filter: serde_json::from_value(part("filter")).unwrap_or_default(),
    }))
}

/// Takes a report in; an agent that lost its lease is told to stop.
pub(crate) fn report(call: &Call) -> Result<Reply, ApiError> {
    let agent = agent(call)?;
    let text = call.param("liveMigrationId");
    let id = text.parse::<MigrationId>().map_err(|_| ApiError::resource(text))?;
    let report: protocol::Report = call.parse()?;
    let protocol::Report { epoch, phase, progress, failure, rehearsal, record } = report;
    let progress = Box::new(progress);
    let is_way_back = call.app.store.migration(id)?.is_some_and(|m| m.reversal.is_some());
    let window_seconds = if is_way_back { WAY_BACK_SECONDS } else { call.app.cutover_window_seconds };
    let lease_seconds = LEASE_SECONDS;
    if let Some(record) = &record {
        let holder = call.app.store.migration(id)?.and_then(|m| m.lease).filter(|lease| lease.agent == agent.id);
        if holder.is_some_and(|lease| lease.epoch == epoch) {
            call.app.store.put_record(id, record)?;
            if let Some(from) = record.turning_point {
                begin_way_back(call, id, from)?;
            }
        }
    }
    let event = Event::Report { agent: agent.id, epoch, phase, progress, failure, lease_seconds, window_seconds };
    let told = |migration: &Migration| protocol::Ordered {
        directive: migration.directive(agent.id, epoch),
        wishes: migration.wishes(),
    };
    let mut ordered = match call.app.store.change(id, event, Timestamp::now()) {
        Ok(migration) => {
            if migration.phase.kind() == PhaseKind::Complete {
                super::reports::report(&call.app.store, &migration)?;
            }
            told(&migration)
        }
        Err(NotChanged::Illegal(_)) => match call.app.store.migration(id)? {
            Some(migration) => told(&migration),
            None => protocol::Ordered { directive: protocol::Directive::Stop, wishes: Wishes::default() },
        },
        Err(NotChanged::Unknown) => return Err(ApiError::resource(text)),
        Err(NotChanged::Store(error)) => return Err(error.into()),
    };
    if let Some(rehearsal) = rehearsal {
        let event = Event::Rehearsed { agent: agent.id, epoch, rehearsal };
        match call.app.store.change(id, event, Timestamp::now()) {
            Ok(migration) => ordered = told(&migration),
            Err(NotChanged::Store(error)) => return Err(error.into()),
            Err(NotChanged::Illegal(_) | NotChanged::Unknown) => {}
        }
    }
    Ok(reply(&ordered))
}

/// A way back goes on until it is told to end.
const WAY_BACK_SECONDS: i64 = 100 * 365 * 24 * 3600;

/// Creates the migration in the other direction, once, before the one that it belongs to is complete: whatever dies then,
/// it is there.
fn begin_way_back(call: &Call, of: MigrationId, from: TurningPoint) -> Result<(), ApiError> {
    let store = &call.app.store;
    let Some(forth) = store.migration(of)? else { return Ok(()) };
    if store.has_way_back(of)? {
        return Ok(());
    }
    let now = Timestamp::now();
    let back = Migration {
        id: MigrationId::generate(),
        phase: Phase::Scheduled,
        lease: None,
        epoch: limosa_model::Epoch(0),
        progress: limosa_model::Progress::default(),
        created_at: now,
        phase_since: now,
        cutover: CutoverOptions::default(),
        rehearsal: None,
        carried: Default::default(),
        reversal: Some(Reversal { of, from }),
        ..forth
    };
    let credentials = store.credentials(of)?;
    store.create_migration(call.principal.org_id, &back, credentials.as_ref())?;
    Ok(())
}

pub(crate) fn report_validation(call: &Call) -> Result<Reply, ApiError> {
    agent(call)?;
    let report: protocol::ValidationReport = call.parse()?;
    let failed = report.findings.iter().any(Finding::is_error);
    let mut findings = report.findings;
    findings.sort_by_key(|finding| finding.severity);
    let told: Vec<String> = findings
        .iter()
        .map(|f| {
            let severity = if f.is_error() { "" } else { "Warning: " };
            format!("{severity}{}: {}. {}", f.code.name(), f.evidence, f.remedy)
        })
        .collect();
    // Clients take any message for a failure: where there are only warnings, Limosa's own part of the API tells them.
    let message = if failed { Some(told.join("\n")) } else { None };
    call.app.store.finish_validation(call.param("validationId"), failed, message.as_deref(), &findings)?;
    Ok(Reply::ok(json!({})))
}

/// `GET /api/atlas/v2/orgs/{orgId}/liveMigrations/availableProjects`: a bare array.
pub(crate) fn available_projects(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let now = Timestamp::now();
    let mut agents = call.app.store.agents(org)?;
    agents.retain(|a| now.seconds_since(a.seen_at) <= SEEN_SECONDS);
    let mut projects = Vec::new();
    for group in call.app.store.groups(org)? {
        let own: Vec<&Agent> = agents.iter().filter(|a| a.group_id == group.id).collect();
        if own.is_empty() {
            continue;
        }
        let mut deployments: Vec<AvailableClustersDeployment> =
            own.iter().flat_map(|a| a.deployments.iter().map(|d| announced(a, d))).collect();
        deployments.sort_by(|a, b| a.name.cmp(&b.name));
        deployments.dedup_by(|a, b| a.name == b.name);
        let mut hosts: Vec<String> = own.iter().map(|a| a.host_name.clone()).collect();
        hosts.dedup();
        projects.push(LiveImportAvailableProject {
            deployments,
            migration_hosts: hosts,
            name: group.name,
            project_id: group.id,
        });
    }
    Ok(reply(&projects))
}

fn announced(agent: &Agent, d: &protocol::Deployment) -> AvailableClustersDeployment {
    AvailableClustersDeployment {
        agent_version: agent.version.clone(),
        cluster_id: d.cluster_id.to_string(),
        db_size_bytes: d.db_size_bytes,
        feature_compatibility_version: d.feature_compatibility_version.clone(),
        managed: d.managed,
        mongo_db_version: d.mongo_db_version.clone(),
        name: d.name.clone(),
        oplog_size_mb: d.oplog_size_mb,
        sharded: d.sharded,
        shards_size: d.shards_size,
        tls_enabled: d.tls_enabled,
    }
}
