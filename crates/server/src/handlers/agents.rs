//! What agents say, and what is known of them.

use crate::{
    auth::bearer,
    handlers::{owned_org, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::{Agent, NotChanged},
};
use axum::http::StatusCode;
use limosa_model::{
    AgentId, Finding, GroupId, Identities, Migration, MigrationId, Phase, PhaseKind, Secret, Timestamp,
    cutover::{CutoverOptions, Reversal, TurningPoint, Wishes},
    protocol,
    state::{Carried, DestinationRef, SourceRef},
    transition::{Event, Report},
    wire::live_migration::{AvailableClustersDeployment, LiveImportAvailableProject},
};
use serde_json::{Value, json};

/// How long a lease lives without a report.
const LEASE_SECONDS: i64 = 20;

/// How often agents come.
const HEARTBEAT_SECONDS: u64 = 2;

/// How many that are over are told of, the newest first.
const MOST_REPLACED: usize = 500;

/// How long an agent counts as there after it was last heard of.
const SEEN_SECONDS: i64 = 60;

pub(crate) fn join(call: &Call) -> Result<Reply, ApiError> {
    let join: protocol::Join = call.parse()?;
    let (org, now) = (call.principal.org_id, Timestamp::now());
    let secret = join.secret.as_ref().ok_or_else(|| too_old(&join))?;
    admit(call, &join, secret.expose(), now)?;
    let secret_hash = bearer::hash(secret.expose());
    let name = &join.group_name;
    call.app.store.create_group(GroupId::generate(), org, name, &Default::default(), now)?;
    let group = call.app.store.group_by_name(org, name)?.ok_or_else(|| ApiError::resource(name))?;
    let group_id = group.id;
    let agent = Agent {
        id: join.agent_id,
        group_id,
        host_name: join.host_name,
        deployments: join.deployments,
        seen_at: now,
        version: join.agent_version,
        secret_hash: Some(secret_hash),
    };
    call.app.store.put_agent(org, &agent)?;
    let lease_seconds = LEASE_SECONDS as u64;
    Ok(reply(&protocol::Joined { group_id, heartbeat_seconds: HEARTBEAT_SECONDS, lease_seconds }))
}

fn too_old(join: &protocol::Join) -> ApiError {
    let (host, version) = (&join.host_name, &join.agent_version);
    let detail = format!(
        "The agent on {host} is of version {version}, which has no secret of its own. Install the server's version {} \
         there and start it again; it joins and continues by itself.",
        env!("CARGO_PKG_VERSION")
    );
    ApiError::new(StatusCode::FORBIDDEN, "AGENT_TOO_OLD", detail, &[host, version])
}

/// Whether who joins is the agent with that id: the first join binds the secret to it. An id of a version before is bound
/// to none; as long as it holds a migration nobody takes it over, since the id alone proves nothing.
fn admit(call: &Call, join: &protocol::Join, secret: &str, now: Timestamp) -> Result<(), ApiError> {
    let (org, id) = (call.principal.org_id, join.agent_id);
    let known = call.app.store.agent(org, id)?;
    if call.principal.is_replaced && known.as_ref().is_none_or(|agent| agent.secret_hash.is_none()) {
        let detail = "The link token was replaced by another one: start the agent with that.";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "LINK_TOKEN_REPLACED", detail, &[]));
    }
    match known {
        Some(agent) if agent.secret_hash.is_some() => match agent.is_proven_by(Some(secret)) {
            true => Ok(()),
            false => Err(wrong_secret(id)),
        },
        // Of another organization.
        None if call.app.store.has_agent(id)? => Err(wrong_secret(id)),
        _ => {
            let active = call.app.store.active_of_org(org)?;
            let holds = |m: &&Migration| m.lease.as_ref().is_some_and(|lease| lease.agent == id && lease.until > now);
            let Some(held) = active.iter().find(holds) else { return Ok(()) };
            let (id, held) = (id.to_string(), held.id.to_string());
            let detail = format!(
                "Agent {id} holds live migration {held} and joined before agents had secrets. Its lease ends within \
                 {LEASE_SECONDS} seconds: join again then."
            );
            Err(ApiError::conflict("AGENT_LEASE_RUNS", detail, &[&id, &held]))
        }
    }
}

fn wrong_secret(id: AgentId) -> ApiError {
    let id = id.to_string();
    let detail = format!(
        "The secret is not the one with which agent {id} joined. On a copy of its data directory, delete agent.json: \
         the agent there then joins as another one."
    );
    ApiError::new(StatusCode::UNAUTHORIZED, "AGENT_SECRET_WRONG", detail, &[&id])
}

/// The path's agent, if the caller has its secret.
fn agent(call: &Call) -> Result<Agent, ApiError> {
    let text = call.param("agentId");
    let id = text.parse::<AgentId>().map_err(|_| ApiError::resource(text))?;
    let known = call.app.store.agent(call.principal.org_id, id)?.ok_or_else(|| ApiError::resource(text))?;
    let missing = |detail: String| ApiError::new(StatusCode::UNAUTHORIZED, "AGENT_SECRET_MISSING", detail, &[text]);
    if known.secret_hash.is_none() {
        let detail = format!(
            "Agent {text} joined before agents had secrets. It must join again: install the server's version {} on its \
             host and start it there.",
            env!("CARGO_PKG_VERSION")
        );
        return Err(missing(detail));
    }
    let Some(secret) = &call.agent_secret else {
        let header = protocol::SECRET_HEADER;
        return Err(missing(format!("The request lacks the secret with which agent {text} joined, in {header}.")));
    };
    if known.is_proven_by(Some(secret.expose())) { Ok(known) } else { Err(wrong_secret(known.id)) }
}

/// Takes the agent's news and hands out what waits for its host: a migration that no one holds, with a new lease.
pub(crate) fn heartbeat(call: &Call) -> Result<Reply, ApiError> {
    let known = agent(call)?;
    let beat: protocol::Heartbeat = call.parse()?;
    let (org, now) = (call.principal.org_id, Timestamp::now());
    let is_as_known = known.deployments == beat.deployments;
    let agent = Agent { deployments: beat.deployments, seen_at: now, ..known };
    match is_as_known {
        true => call.app.store.agent_seen(agent.id, now)?,
        false => call.app.store.put_agent(org, &agent)?,
    }
    let mut work = protocol::Work::default();
    for waiting in call.app.store.pending_validations(org, &agent.host_name)? {
        let Some(given) = validation(call, &waiting, &agent)? else { continue };
        if call.app.store.take_validation(&waiting.id, agent.id, now.plus_seconds(-LEASE_SECONDS))? {
            work.validations.push(given);
        }
    }
    for id in beat.kept {
        let known = call.app.store.migration_of(org, id)?;
        work.over.extend(known.filter(Migration::is_over_for_good).map(|migration| migration.id));
    }
    if beat.idle {
        work.migration = claim(call, &agent, now)?;
    }
    Ok(reply(&work))
}

/// The oldest migration that waits for this agent, now held by it.
fn claim(call: &Call, agent: &Agent, now: Timestamp) -> Result<Option<protocol::MigrationAssignment>, ApiError> {
    let mut active = call.app.store.active_of_host(call.principal.org_id, &agent.host_name)?;
    active.reverse();
    for migration in active.iter().filter(|m| is_for(m, agent, now)) {
        let event = Event::Claim { agent: agent.id, lease_seconds: LEASE_SECONDS };
        match call.app.store.change(migration.id, event, now) {
            Ok(claimed) => return assignment(call, &claimed),
            Err(NotChanged::Store(error)) => return Err(error.into()),
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
        reversal_of: migration.reversal.map(|reversal| reversal.of),
        cancelled: migration.carried.to_remove,
        replaces: replaced(call, migration)?,
        identities: migration.carried.identities.clone(),
    }))
}

/// Whose place on the destination it takes: those that were named, and those that this server knows to be over.
fn replaced(call: &Call, migration: &Migration) -> Result<Vec<MigrationId>, ApiError> {
    let mut all = migration.carried.replaces.clone();
    if migration.epoch.0 <= 1 && migration.reversal.is_none() {
        let over = [PhaseKind::Cancelled, PhaseKind::Expired];
        let (known, _) = call.app.store.migrations(migration.group_id, &over, 0, MOST_REPLACED)?;
        let same = known.into_iter().filter(|other| {
            other.is_over_for_good() && other.reversal.is_none() && other.destination == migration.destination
        });
        all.extend(same.map(|other| other.id));
    }
    Ok(all)
}

fn validation(
    call: &Call,
    waiting: &crate::store::Validation,
    agent: &Agent,
) -> Result<Option<protocol::ValidationAssignment>, ApiError> {
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
    let Some(destination_uri) = destination_uri(call, &destination)? else { return Ok(None) };
    Ok(Some(protocol::ValidationAssignment {
        validation_id,
        source: access(&source, waiting.credentials.as_ref()),
        destination_uri,
        drop_destination_data: part("dropDestinationData").as_bool().unwrap_or(false),
        filter: serde_json::from_value(part("filter")).unwrap_or_default(),
        replaces: serde_json::from_value(part("replaces")).unwrap_or_default(),
    }))
}

/// Takes a report in; an agent that lost its lease is told to stop.
pub(crate) fn report(call: &Call) -> Result<Reply, ApiError> {
    let agent = agent(call)?;
    let text = call.param("liveMigrationId");
    let id = text.parse::<MigrationId>().map_err(|_| ApiError::resource(text))?;
    let current = call.app.store.migration_of(call.principal.org_id, id)?.ok_or_else(|| ApiError::resource(text))?;
    let mut report: protocol::Report = call.parse()?;
    report.make_plain();
    let protocol::Report { epoch, phase, progress, failure, rehearsal, destination, record, identities } = report;
    if let Some(identities) = identities.filter(|_| current.carried.identities.is_none()) {
        let event = Event::Identified { agent: agent.id, epoch, identities: Box::new(identities) };
        if let Err(NotChanged::Store(error)) = call.app.store.change(id, event, Timestamp::now()) {
            return Err(error.into());
        }
    }
    let progress = Box::new(progress);
    let is_way_back = current.reversal.is_some();
    let holds = current.lease.as_ref().is_some_and(|lease| lease.agent == agent.id && lease.epoch == epoch);
    let window_seconds = if is_way_back { WAY_BACK_SECONDS } else { call.app.cutover_window_seconds };
    let lease_seconds = LEASE_SECONDS;
    if let Some(facts) = destination.filter(|_| holds && !is_way_back) {
        call.app.store.put_facts(current.destination.group_id, &current.destination.cluster_name, &facts)?;
    }
    if let Some(record) = record.as_ref().filter(|_| holds) {
        call.app.store.put_record(id, record)?;
        if let Some(from) = record.turning_point {
            begin_way_back(call, id, from)?;
        }
    }
    let event =
        Event::Report(Report { agent: agent.id, epoch, phase, progress, failure, lease_seconds, window_seconds });
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

/// A way back continues until it is told to end.
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
        // The same two clusters: a URI that was changed meanwhile leads nowhere else.
        carried: Carried {
            identities: forth.carried.identities.as_ref().map(Identities::reversed),
            ..Carried::default()
        },
        reversal: Some(Reversal { of, from }),
        heard: None,
        ..forth
    };
    let credentials = store.credentials(of)?;
    store.create_migration(call.principal.org_id, &back, credentials.as_ref())?;
    Ok(())
}

pub(crate) fn report_validation(call: &Call) -> Result<Reply, ApiError> {
    let agent = agent(call)?;
    let mut report: protocol::ValidationReport = call.parse()?;
    report.make_plain();
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
    let (org, id) = (call.principal.org_id, call.param("validationId"));
    if !call.app.store.finish_validation(org, agent.id, id, failed, message.as_deref(), &findings)? {
        return Err(ApiError::resource(id));
    }
    if let (Some(facts), Some(known)) = (report.destination, call.app.store.validation(id)?)
        && let Ok(seen) = serde_json::from_value::<DestinationRef>(known.request["destination"].clone())
    {
        call.app.store.put_facts(seen.group_id, &seen.cluster_name, &facts)?;
    }
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
