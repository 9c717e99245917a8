//! `/api/limosa/v1/groups/{groupId}/…`: what the Atlas API lacks.

use super::{group, live_migrations::refused, migration, owner};
use crate::{
    render::{ApiError, Reply},
    router::Call,
};
use axum::http::StatusCode;
use limosa_model::{Migration, Phase, Secret, Status, Timestamp, transition::Event};
use serde_json::{Value, json};

/// More time for a cutover, unless a span is given.
const EXTENSION_SECONDS: i64 = 24 * 3600;

pub(crate) fn list_clusters(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    let names: Vec<Value> = call.app.store.clusters(group)?.into_iter().map(|name| json!({"name": name})).collect();
    Ok(Reply::ok(json!({"results": names})))
}

/// Registers a destination; its URI can be written and never read.
pub(crate) fn add_cluster(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    owner(call)?;
    let body = call.object()?;
    let text = |name: &str| {
        body.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).ok_or_else(|| ApiError::missing(name))
    };
    let (name, uri) = (text("name")?, text("uri")?);
    if !uri.starts_with("mongodb://") && !uri.starts_with("mongodb+srv://") {
        return Err(ApiError::invalid("uri"));
    }
    call.app.store.put_cluster(group, name, &Secret::new(uri))?;
    Ok(Reply::with(StatusCode::CREATED, Some(json!({"name": name}))))
}

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    let wanted = call.query("status");
    let found = call.app.store.migrations(group)?;
    let shown: Vec<Value> = found.iter().map(detail).filter(|m| wanted.is_none_or(|w| m["status"] == w)).collect();
    Ok(Reply::ok(json!({"results": shown, "totalCount": shown.len()})))
}

pub(crate) fn describe(call: &Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(detail(&migration(call)?)))
}

fn detail(m: &Migration) -> Value {
    let kind = m.phase.kind();
    let expires_at = match m.phase {
        Phase::Synced { expires_at } | Phase::Paused { expires_at: Some(expires_at), .. } => Some(expires_at.rfc3339()),
        _ => None,
    };
    let failure = match &m.phase {
        Phase::Failed { failure } => {
            json!({"code": failure.code, "message": failure.message, "remedy": failure.code.remedy()})
        }
        _ => Value::Null,
    };
    json!({
        "id": m.id, "groupId": m.group_id, "phase": kind, "status": Status::from(kind), "progress": m.progress, "failure": failure,
        "readyForCutover": m.ready_for_cutover(), "lagTimeSeconds": m.lag_time_seconds(), "expiresAt": expires_at,
        "createdAt": m.created_at.rfc3339(), "phaseSince": m.phase_since.rfc3339(), "attempts": m.epoch,
        "source": {"groupId": m.source.group_id, "clusterName": m.source.cluster_name},
        "destination": {"groupId": m.destination.group_id, "clusterName": m.destination.cluster_name},
        "migrationHosts": [m.migration_host],
    })
}

pub(crate) fn events(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    let events = call.app.store.events(migration.id)?.into_iter();
    let shown: Vec<Value> = events
        .map(|(n, at, kind, message)| json!({"id": n, "time": at.rfc3339(), "kind": kind, "message": message}))
        .collect();
    Ok(Reply::ok(json!({"results": shown})))
}

/// `POST …/pause`, `resume`, `cancel`, `extend`.
pub(crate) fn act(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    owner(call)?;
    let body = call.object().unwrap_or_default();
    let event = match call.param("verb") {
        "pause" => Event::Pause,
        "resume" => Event::Resume,
        "cancel" => Event::Cancel { drop_copied: body.get("dropCopied").and_then(Value::as_bool).unwrap_or(false) },
        "extend" => {
            let seconds = body
                .get("seconds")
                .map_or(Some(EXTENSION_SECONDS), Value::as_i64)
                .filter(|s| (1..=90 * 86_400).contains(s));
            Event::Extend { seconds: seconds.ok_or_else(|| ApiError::invalid("seconds"))? }
        }
        other => return Err(ApiError::resource(other)),
    };
    match call.app.store.change(migration.id, event, Timestamp::now()) {
        Ok(migration) => Ok(Reply::ok(detail(&migration))),
        Err(error) => Err(refused(&migration, error)),
    }
}
