//! `/api/atlas/v2/groups/{groupId}/liveMigrations`

use super::{group, migration, owner};
use crate::{
    render::{ApiError, Reply},
    router::Call,
    store::NotChanged,
};
use axum::http::StatusCode;
use limosa_model::{
    ApiVersion, Epoch, GroupId, Migration, MigrationId, Phase, Progress, Timestamp,
    state::{DestinationRef, SourceRef},
    transition::Event,
    wire::live_migration::LiveMigrationResponse,
};
use serde_json::{Map, Value, json};

/// A request to create or to validate, checked.
pub(crate) struct Request {
    pub source: SourceRef,
    pub destination: DestinationRef,
    pub host: String,
    pub drop_destination_data: bool,
    /// User and password, where the agent's own are not to be used.
    pub credentials: Option<(String, String)>,
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    Ok(Reply::ok(body(&migration)))
}

fn body(migration: &Migration) -> Value {
    serde_json::to_value(LiveMigrationResponse::from(migration)).unwrap_or(Value::Null)
}

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    owner(call)?;
    let request = Request::read(call, group)?;
    let now = Timestamp::now();
    let migration = Migration {
        id: MigrationId::generate(),
        group_id: group,
        source: request.source,
        destination: request.destination,
        migration_host: request.host,
        drop_destination_data: request.drop_destination_data,
        phase: Phase::Scheduled,
        lease: None,
        epoch: Epoch(0),
        progress: Progress::default(),
        created_at: now,
        phase_since: now,
    };
    let credentials = request.credentials.map(|(user, password)| json!([user, password]).to_string());
    if let Some(active) = call.app.store.create_migration(call.principal.org_id, &migration, credentials.as_deref())? {
        let name = &migration.destination.cluster_name;
        let detail =
            format!("Cluster {name} is already the destination of live migration {active}, which is not over.");
        return Err(ApiError::conflict("DESTINATION_CLUSTER_ALREADY_MIGRATING", detail, &[name, &active.to_string()]));
    }
    let mut reply = Reply::with(StatusCode::CREATED, Some(body(&migration)));
    reply.sunset = call.version < ApiVersion::V2024_05_30;
    Ok(reply)
}

pub(crate) fn cut_over(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    owner(call)?;
    match call.app.store.change(migration.id, Event::CutOver, Timestamp::now()) {
        Ok(_) => Ok(Reply::with(StatusCode::ACCEPTED, None)),
        Err(not_changed) => Err(refused(&migration, not_changed)),
    }
}

/// A request that the migration's phase doesn't allow, or worse.
pub(crate) fn refused(migration: &Migration, error: NotChanged) -> ApiError {
    let id = migration.id.to_string();
    match error {
        NotChanged::Illegal(why) => {
            ApiError::conflict("LIVE_MIGRATION_NOT_READY", format!("Live migration {id}: {why}."), &[&id])
        }
        NotChanged::Unknown => ApiError::resource(&id),
        NotChanged::Store(error) => error.into(),
    }
}

/// An object's attributes, each taken once; what is left at the end is unknown.
struct Fields(Map<String, Value>, &'static str);

impl Fields {
    fn path(&self, name: &str) -> String {
        if self.1.is_empty() { name.to_owned() } else { format!("{}.{name}", self.1) }
    }

    fn mismatch(&self, name: &str) -> ApiError {
        let path = self.path(name);
        ApiError::bad(
            "INVALID_JSON_ATTRIBUTE",
            format!("Received JSON for the {path} attribute does not match expected format."),
            &[&path],
        )
    }

    /// Absent, null and empty are all unset.
    fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mismatch(name)),
        }
    }

    fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::missing(&self.path(name)))
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.mismatch(name)),
        }
    }

    fn object(&mut self, name: &'static str) -> Result<Self, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Err(ApiError::missing(name)),
            Some(Value::Object(fields)) => Ok(Self(fields, name)),
            Some(_) => Err(self.mismatch(name)),
        }
    }

    fn group(&mut self) -> Result<GroupId, ApiError> {
        let text = self.required("groupId")?;
        text.parse().map_err(|_| self.mismatch("groupId"))
    }

    fn end(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            Some(unknown) => Err(ApiError::invalid(&self.path(unknown))),
            None => Ok(()),
        }
    }
}

impl Request {
    /// The body of create and validate, at either version.
    pub fn read(call: &Call, group: GroupId) -> Result<Self, ApiError> {
        let mut fields = Fields(call.object()?, "");
        let mut destination = fields.object("destination")?;
        let mut source = fields.object("source")?;
        let host = hosts(&mut fields)?;
        let drop_destination_data = if call.version >= ApiVersion::V2024_05_30 {
            fields.flag("dropDestinationData")?.unwrap_or(false)
        } else {
            fields.flag("dropEnabled")?.ok_or_else(|| ApiError::missing("dropEnabled"))?
        };
        if fields.0.remove("sharding").is_some_and(|s| !s.is_null()) {
            return Err(ApiError::bad(
                "INVALID_ATTRIBUTE",
                "Invalid attribute sharding specified: the destination is a replica set.",
                &["sharding"],
            ));
        }
        fields.end()?;
        let to = DestinationRef { group_id: destination.group()?, cluster_name: destination.required("clusterName")? };
        match destination.text("hostnameSchemaType")?.as_deref() {
            None | Some("PUBLIC" | "VPC_PEERING" | "PRIVATE_LINK") => {}
            Some(other) => {
                return Err(ApiError::bad(
                    "INVALID_ENUM_VALUE",
                    format!("An invalid enumeration value {other} was specified."),
                    &[other],
                ));
            }
        }
        destination.text("privateLinkId")?;
        destination.end()?;
        if to.group_id != group {
            let text = to.group_id.to_string();
            return Err(ApiError::bad(
                "GROUP_MISMATCH",
                format!("The specified group ID {text} does not match the URL."),
                &[&text],
            ));
        }
        if call.app.store.cluster_uri(group, &to.cluster_name)?.is_none() {
            let (name, in_group) = (&to.cluster_name, group.to_string());
            return Err(ApiError::not_found(
                "CLUSTER_NOT_FOUND",
                format!("No cluster named {name} exists in group {in_group}."),
                &[name, &in_group],
            ));
        }
        let from = SourceRef {
            group_id: source.group()?,
            cluster_name: source.required("clusterName")?,
            managed_authentication: source
                .flag("managedAuthentication")?
                .ok_or_else(|| ApiError::missing("source.managedAuthentication"))?,
            ca_certificate_path: source.text("caCertificatePath")?,
            ssl: source.flag("ssl")?.ok_or_else(|| ApiError::missing("source.ssl"))?,
        };
        let (user, password) = (source.text("username")?, source.text("password")?);
        source.end()?;
        let credentials = match (from.managed_authentication, user, password) {
            (_, None, None) => None,
            (false, Some(user), Some(password)) => Some((user, password)),
            (true, Some(_), _) => return Err(ApiError::invalid("source.username")),
            (true, _, Some(_)) => return Err(ApiError::invalid("source.password")),
            (false, None, _) => return Err(ApiError::missing("source.username")),
            (false, _, None) => return Err(ApiError::missing("source.password")),
        };
        let agents = call.app.store.agents(call.principal.org_id)?;
        let announced = |a: &crate::store::Agent| {
            a.group_id == from.group_id && a.deployments.iter().any(|d| d.name == from.cluster_name)
        };
        if !agents.iter().any(announced) {
            let (name, in_group) = (&from.cluster_name, from.group_id.to_string());
            return Err(ApiError::not_found(
                "CLUSTER_NOT_FOUND",
                format!("No cluster named {name} exists in group {in_group}."),
                &[name, &in_group],
            ));
        }
        if !agents.iter().any(|a| announced(a) && a.host_name == host) {
            return Err(ApiError::bad(
                "INVALID_ATTRIBUTE",
                format!(
                    "Invalid attribute migrationHosts specified: no agent on {host} announces {}.",
                    from.cluster_name
                ),
                &["migrationHosts"],
            ));
        }
        Ok(Self { source: from, destination: to, host, drop_destination_data, credentials })
    }
}

/// Just one host.
fn hosts(fields: &mut Fields) -> Result<String, ApiError> {
    match fields.0.remove("migrationHosts") {
        None | Some(Value::Null) => Err(ApiError::missing("migrationHosts")),
        Some(Value::Array(hosts)) => match hosts.as_slice() {
            [Value::String(host)] if !host.is_empty() => Ok(host.clone()),
            _ => Err(ApiError::invalid("migrationHosts")),
        },
        Some(_) => Err(fields.mismatch("migrationHosts")),
    }
}
