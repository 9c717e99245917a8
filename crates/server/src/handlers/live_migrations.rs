//! `/api/atlas/v2/groups/{groupId}/liveMigrations`

use crate::{
    handlers::{group, migration, no_cluster, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::NotChanged,
};
use axum::http::StatusCode;
use limosa_model::{
    ApiVersion, Epoch, GroupId, Limits, Migration, MigrationId, NamespaceFilter, Phase, Progress, Secret, Timestamp,
    filter::{InvalidPattern, NamespacePattern},
    state::{Carried, DestinationRef, SourceRef},
    transition::{Event, IllegalTransition},
    wire::{
        live_migration::{
            HostnameSchemaType, LiveMigrationRequest, LiveMigrationRequest20240530, LiveMigrationResponse, Source,
        },
        own::MigrationRequest,
    },
};
use serde_json::json;

/// A request to create or to validate, checked.
pub(crate) struct Request {
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

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&LiveMigrationResponse::at(&migration(call)?, Timestamp::now())))
}

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let migration = begin(call, group.id, Request::read(call, group.id)?)?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&LiveMigrationResponse::at(&migration, Timestamp::now())) })
}

/// Creates the migration that was asked for.
pub(crate) fn begin(call: &Call, group_id: GroupId, request: Request) -> Result<Migration, ApiError> {
    let now = Timestamp::now();
    let migration = Migration {
        id: MigrationId::generate(),
        group_id,
        source: request.source,
        destination: request.destination,
        migration_host: request.host,
        drop_destination_data: request.drop_destination_data,
        filter: request.filter,
        limits: Limits::default(),
        phase: Phase::Scheduled,
        lease: None,
        epoch: Epoch(0),
        progress: Progress::default(),
        created_at: now,
        phase_since: now,
        cutover: limosa_model::cutover::CutoverOptions::default(),
        rehearsal: None,
        carried: Carried { replaces: request.replaces, ..Carried::default() },
        reversal: None,
        heard: None,
    };
    let (org, credentials) = (call.principal.org_id, request.credentials.as_ref());
    if let Some(active) = call.app.store.create_migration(org, &migration, credentials)? {
        let name = &migration.destination.cluster_name;
        let detail =
            format!("Cluster {name} is already the destination of live migration {active}, which is not over.");
        return Err(ApiError::conflict("DESTINATION_CLUSTER_ALREADY_MIGRATING", detail, &[name, &active.to_string()]));
    }
    Ok(migration)
}

pub(crate) fn cut_over(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    call.principal.owns_org()?;
    match call.app.store.change(migration.id, Event::CutOver, Timestamp::now()) {
        Ok(_) => Ok(Reply::with(StatusCode::ACCEPTED, None)),
        Err(not_changed) => Err(refused(&migration, not_changed)),
    }
}

/// A request that the migration's phase doesn't allow, or worse.
pub(crate) fn refused(migration: &Migration, error: NotChanged) -> ApiError {
    let id = migration.id.to_string();
    match error {
        NotChanged::Illegal(why @ IllegalTransition::HostSilent { .. }) => {
            ApiError::conflict("LIVE_MIGRATION_HOST_SILENT", format!("Live migration {id}: {why}."), &[&id])
        }
        NotChanged::Illegal(why) => {
            ApiError::conflict("LIVE_MIGRATION_NOT_READY", format!("Live migration {id}: {why}."), &[&id])
        }
        NotChanged::Unknown => ApiError::resource(&id),
        NotChanged::Store(error) => error.into(),
    }
}

impl Request {
    /// The body of create and validate, at either version.
    pub fn read(call: &Call, group: GroupId) -> Result<Self, ApiError> {
        let request = if call.body_version >= ApiVersion::V2024_05_30 {
            call.parse::<LiveMigrationRequest20240530>()?
        } else {
            let LiveMigrationRequest { id, destination, drop_enabled, migration_hosts, sharding, source } =
                call.parse()?;
            let drop_destination_data = drop_enabled;
            LiveMigrationRequest20240530 {
                id,
                destination,
                drop_destination_data,
                links: Vec::new(),
                migration_hosts,
                sharding,
                source,
            }
        };
        Self::check(call, group, request, NamespaceFilter::default(), Vec::new())
    }

    /// The body of create and validate in Limosa's own part of the API.
    pub fn read_own(call: &Call, group: GroupId) -> Result<Self, ApiError> {
        let request: MigrationRequest = call.parse()?;
        let filter = NamespaceFilter {
            include: patterns("includeNamespaces", &request.include_namespaces)?,
            exclude: patterns("excludeNamespaces", &request.exclude_namespaces)?,
        };
        let replaces = request.replace_migrations.clone();
        Self::check(call, group, request.into(), filter, replaces)
    }

    fn check(
        call: &Call,
        group: GroupId,
        request: LiveMigrationRequest20240530,
        filter: NamespaceFilter,
        replaces: Vec<MigrationId>,
    ) -> Result<Self, ApiError> {
        let wanted = request.destination;
        if wanted.group_id != group {
            let text = wanted.group_id.to_string();
            let detail = format!("The specified group ID {text} does not match the URL.");
            return Err(ApiError::bad("GROUP_MISMATCH", detail, &[&text]));
        }
        let destination = DestinationRef {
            group_id: group,
            cluster_name: wanted.cluster_name,
            hostname_schema_type: wanted.hostname_schema_type,
            private_link_id: wanted.private_link_id,
        };
        reachable(call, &destination)?;
        if request.sharding.is_some() {
            let detail = "Invalid attribute sharding specified: the destination is a replica set.";
            return Err(ApiError::bad("INVALID_ATTRIBUTE", detail, &["sharding"]));
        }
        let host = request.migration_hosts.into_iter().next().unwrap_or_default();
        let (source, credentials) = source(request.source)?;
        announced(call, &source, &host)?;
        let drop_destination_data = request.drop_destination_data;
        Ok(Self { source, destination, host, drop_destination_data, filter, replaces, credentials })
    }
}

fn patterns(attribute: &str, texts: &[String]) -> Result<Vec<NamespacePattern>, ApiError> {
    let parsed = texts.iter().map(|text| text.trim().parse());
    parsed.collect::<Result<_, _>>().map_err(|error: InvalidPattern| {
        let detail = format!("Invalid attribute {attribute} specified: {error}.");
        ApiError::bad("INVALID_ATTRIBUTE", detail, &[attribute])
    })
}

/// The destination is registered, with the connection string that is asked for.
fn reachable(call: &Call, destination: &DestinationRef) -> Result<(), ApiError> {
    let name = &destination.cluster_name;
    let known = call.app.store.cluster(destination.group_id, name)?;
    let known = known.ok_or_else(|| no_cluster(name, destination.group_id))?;
    let kind = destination.hostname_schema_type;
    if known.uris.pick(kind, destination.private_link_id.as_deref()).is_some() {
        return Ok(());
    }
    let attribute = if kind == HostnameSchemaType::PrivateLink {
        "destination.privateLinkId"
    } else {
        "destination.hostnameSchemaType"
    };
    let detail = format!("Invalid attribute {attribute} specified: cluster {name} is not registered with such a URI.");
    Err(ApiError::bad("INVALID_ATTRIBUTE", detail, &[attribute]))
}

/// What to read, and with which credentials if not with the agent's own.
fn source(wanted: Source) -> Result<(SourceRef, Option<Secret>), ApiError> {
    // It becomes a part of a URI on the migration host.
    if wanted.ca_certificate_path.as_deref().is_some_and(|path| !limosa_model::uri::is_plain_value(path)) {
        return Err(ApiError::invalid("source.caCertificatePath"));
    }
    let credentials = match (wanted.managed_authentication, wanted.username, wanted.password) {
        (_, None, None) => None,
        (false, Some(user), Some(password)) => Some(Secret::new(json!([user, password]).to_string())),
        (true, Some(_), _) => return Err(ApiError::invalid("source.username")),
        (true, _, Some(_)) => return Err(ApiError::invalid("source.password")),
        (false, None, _) => return Err(ApiError::missing("source.username")),
        (false, _, None) => return Err(ApiError::missing("source.password")),
    };
    let source = SourceRef {
        group_id: wanted.group_id,
        cluster_name: wanted.cluster_name,
        managed_authentication: wanted.managed_authentication,
        ca_certificate_path: wanted.ca_certificate_path,
        ssl: wanted.ssl,
    };
    Ok((source, credentials))
}

/// An agent on `host` announces the source.
fn announced(call: &Call, source: &SourceRef, host: &str) -> Result<(), ApiError> {
    let mut agents = call.app.store.agents(call.principal.org_id)?;
    let name = &source.cluster_name;
    agents.retain(|a| a.group_id == source.group_id && a.deployments.iter().any(|d| d.name == *name));
    if agents.is_empty() {
        return Err(no_cluster(name, source.group_id));
    }
    if agents.iter().any(|agent| agent.host_name == host) {
        return Ok(());
    }
    let detail = format!("Invalid attribute migrationHosts specified: no agent on {host} announces {name}.");
    Err(ApiError::bad("INVALID_ATTRIBUTE", detail, &["migrationHosts"]))
}
