//! The body of a request to create a migration or to ask whether it could start, checked.

use crate::{
    handlers::no_cluster,
    http::{context::Call, render::ApiError},
    service::migrations::NewMigration,
};
use limosa_model::{
    ApiVersion, GroupId, MigrationId, NamespaceFilter, Secret,
    filter::{InvalidPattern, NamespacePattern},
    state::{DestinationRef, SourceRef},
    wire::{
        live_migration::{HostnameSchemaType, LiveMigrationRequest, LiveMigrationRequest20240530, Source},
        own::MigrationRequest,
    },
};
use serde_json::json;

/// Atlas's, at either version.
pub(super) fn read(call: &Call, group: GroupId) -> Result<NewMigration, ApiError> {
    let request = if call.body_version >= ApiVersion::V2024_05_30 {
        call.parse::<LiveMigrationRequest20240530>()?
    } else {
        let LiveMigrationRequest { id, destination, drop_enabled, migration_hosts, sharding, source } = call.parse()?;
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
    check(call, group, request, NamespaceFilter::default(), Vec::new())
}

/// That of Limosa's own part of the API.
pub(super) fn read_with_namespaces(call: &Call, group: GroupId) -> Result<NewMigration, ApiError> {
    let request: MigrationRequest = call.parse()?;
    let filter = NamespaceFilter {
        include: patterns("includeNamespaces", &request.include_namespaces)?,
        exclude: patterns("excludeNamespaces", &request.exclude_namespaces)?,
    };
    let replaces = request.replace_migrations.clone();
    check(call, group, request.into(), filter, replaces)
}

fn check(
    call: &Call,
    group: GroupId,
    request: LiveMigrationRequest20240530,
    filter: NamespaceFilter,
    replaces: Vec<MigrationId>,
) -> Result<NewMigration, ApiError> {
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
    Ok(NewMigration { source, destination, host, drop_destination_data, filter, replaces, credentials })
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
