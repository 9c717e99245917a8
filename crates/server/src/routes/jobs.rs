//! `/api/limosa/v1/groups/{groupId}/liveMigrations`: migrations in full, and the verbs that Atlas's API lacks.

use super::{group, live_migrations::refused, migration, reply};
use crate::{
    call::Call,
    paging,
    render::{ApiError, Reply},
};
use limosa_model::{
    Migration, Phase, PhaseKind, Status, Timestamp,
    transition::Event,
    wire::own::{CancelRequest, ClusterRef, ExtendRequest, FailureDetail, LagSample, MigrationDetail},
};
use serde_json::Value;

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_migrations(group.id)?;
    let status: Option<Status> = wanted(call, "status")?;
    let phase: Option<PhaseKind> = wanted(call, "phase")?;
    let mut found = call.app.store.migrations(group.id)?;
    found.retain(|m| {
        let kind = m.phase.kind();
        phase.is_none_or(|phase| phase == kind) && status.is_none_or(|status| status == kind.into())
    });
    let shown = found.iter().map(|m| detail(call, m)).collect::<Result<Vec<_>, _>>()?;
    paging::page(call, &shown)
}

fn wanted<T: serde::de::DeserializeOwned>(call: &Call, name: &str) -> Result<Option<T>, ApiError> {
    let value = call.query(name).map(|text| serde_json::from_value(Value::String(text.to_owned())));
    value.transpose().map_err(|_| ApiError::query(name))
}

pub(crate) fn describe(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&detail(call, &migration(call)?)?))
}

fn detail(call: &Call, m: &Migration) -> Result<MigrationDetail, ApiError> {
    let expires_at = match m.phase {
        Phase::Synced { expires_at } | Phase::Paused { expires_at: Some(expires_at), .. } => Some(expires_at.rfc3339()),
        _ => None,
    };
    let failure = match &m.phase {
        Phase::Failed { failure } => Some(FailureDetail {
            code: failure.code.name().to_owned(),
            message: failure.message.clone(),
            remedy: failure.code.remedy().to_owned(),
        }),
        _ => None,
    };
    let lags = call.app.store.lags(m.id)?.into_iter();
    let end = |name: &str, group: limosa_model::GroupId| ClusterRef {
        cluster_name: name.to_owned(),
        group_id: group.to_string(),
    };
    Ok(MigrationDetail {
        attempts: m.epoch.0,
        created_at: m.created_at.rfc3339(),
        destination: end(&m.destination.cluster_name, m.destination.group_id),
        expires_at,
        failure,
        group_id: m.group_id.to_string(),
        id: m.id.to_string(),
        lag_history: lags.map(|(at, seconds)| LagSample { seconds, time: at.rfc3339() }).collect(),
        lag_time_seconds: m.lag_time_seconds(),
        migration_hosts: vec![m.migration_host.clone()],
        phase: m.phase.kind(),
        phase_since: m.phase_since.rfc3339(),
        progress: m.progress.clone(),
        ready_for_cutover: m.ready_for_cutover(),
        source: end(&m.source.cluster_name, m.source.group_id),
        status: m.phase.kind().into(),
    })
}

pub(crate) fn pause(call: &Call) -> Result<Reply, ApiError> {
    act(call, Event::Pause)
}

pub(crate) fn resume(call: &Call) -> Result<Reply, ApiError> {
    act(call, Event::Resume)
}

pub(crate) fn cancel(call: &Call) -> Result<Reply, ApiError> {
    let CancelRequest { drop_copied } = call.parse()?;
    act(call, Event::Cancel { drop_copied })
}

pub(crate) fn extend(call: &Call) -> Result<Reply, ApiError> {
    let ExtendRequest { seconds } = call.parse()?;
    act(call, Event::Extend { seconds })
}

fn act(call: &Call, event: Event) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    call.principal.owns_group(migration.group_id)?;
    match call.app.store.change(migration.id, event, Timestamp::now()) {
        Ok(migration) => Ok(reply(&detail(call, &migration)?)),
        Err(error) => Err(refused(&migration, error)),
    }
}
