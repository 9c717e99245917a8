//! `/api/limosa/v1/groups/{groupId}/liveMigrations`: migrations in full, and the verbs that Atlas's API lacks.

use crate::{
    handlers::{change, created, group, migration, new_migration, reply},
    http::{
        context::Call,
        paging::Window,
        render::{ApiError, Reply},
    },
};
use axum::http::StatusCode;
use limosa_model::{
    Limits, Migration, Phase, PhaseKind, Status, Timestamp,
    transition::Event,
    wire::own::{CancelRequest, ClusterRef, ExtendRequest, FailureDetail, LagSample, MigrationDetail, ResumeRequest},
};
use serde_json::Value;

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.reads_migrations(group.id)?;
    let status: Option<Status> = wanted(call, "status")?;
    let phase: Option<PhaseKind> = wanted(call, "phase")?;
    let window = Window::of(call)?;
    let mut phases = PhaseKind::ALL.to_vec();
    phases.retain(|kind| phase.is_none_or(|p| p == *kind) && status.is_none_or(|s| s == (*kind).into()));
    let (found, total) = call.app.store.migrations(group.id, &phases, window.first(), window.size)?;
    let shown = found.iter().map(|m| detail(call, m)).collect::<Result<Vec<_>, _>>()?;
    Ok(window.reply(call, &shown, total))
}

/// As Atlas's create, with a choice of namespaces.
pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let migration = created(call, group.id, new_migration::read_with_namespaces(call, group.id)?)?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&detail(call, &migration)?) })
}

fn wanted<T: serde::de::DeserializeOwned>(call: &Call, name: &str) -> Result<Option<T>, ApiError> {
    let value = call.query(name).map(|text| serde_json::from_value(Value::String(text.to_owned())));
    value.transpose().map_err(|_| ApiError::query(name))
}

pub(crate) fn describe(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&detail(call, &migration(call)?)?))
}

/// How far it was over time.
pub(crate) fn history(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&call.app.store.history(migration(call)?.id)?))
}

fn detail(call: &Call, m: &Migration) -> Result<MigrationDetail, ApiError> {
    let expires_at = match m.phase {
        Phase::Synced { expires_at } | Phase::Paused { expires_at: Some(expires_at), .. } => Some(expires_at.rfc3339()),
        _ if m.phase.kind().is_final() => None,
        _ => m.carried.cutover_by.map(Timestamp::rfc3339),
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
    let mut ends =
        (end(&m.source.cluster_name, m.source.group_id), end(&m.destination.cluster_name, m.destination.group_id));
    if m.reversal.is_some() {
        ends = (ends.1, ends.0);
    }
    let (source, destination) = ends;
    let now = Timestamp::now();
    Ok(MigrationDetail {
        attempts: m.epoch.0,
        created_at: m.created_at.rfc3339(),
        destination,
        drop_destination_data: m.drop_destination_data,
        exclude_namespaces: m.filter.exclude.iter().cloned().map(String::from).collect(),
        expires_at,
        failure,
        group_id: m.group_id.to_string(),
        id: m.id.to_string(),
        include_namespaces: m.filter.include.iter().cloned().map(String::from).collect(),
        lag_history: lags.map(|(at, seconds)| LagSample { seconds, time: at.rfc3339() }).collect(),
        lag_time_seconds: m.lag_time_seconds(now),
        limits: m.limits,
        migration_hosts: vec![m.migration_host.clone()],
        phase: m.phase.kind(),
        phase_since: m.phase_since.rfc3339(),
        progress: m.known_progress(now),
        ready_for_cutover: m.ready_for_cutover(now),
        report_age_seconds: m.report_age_seconds(now),
        removal_pending: m.carried.to_remove,
        reversal_of: m.reversal.map(|reversal| reversal.of.to_string()),
        source,
        status: m.phase.kind().into(),
    })
}

pub(crate) fn pause(call: &Call) -> Result<Reply, ApiError> {
    act(call, Event::Pause)
}

pub(crate) fn resume(call: &Call) -> Result<Reply, ApiError> {
    let ResumeRequest { recopy } = call.parse()?;
    act(call, Event::Resume { recopy })
}

pub(crate) fn cancel(call: &Call) -> Result<Reply, ApiError> {
    let CancelRequest { drop_copied } = call.parse()?;
    if drop_copied {
        // It deletes what creating the migration wrote.
        call.principal.owns_org()?;
    }
    act(call, Event::Cancel { drop_copied })
}

/// Takes effect with the agent's next report.
pub(crate) fn abort_cutover(call: &Call) -> Result<Reply, ApiError> {
    act(call, Event::AbortCutover)
}

pub(crate) fn extend(call: &Call) -> Result<Reply, ApiError> {
    let ExtendRequest { seconds } = call.parse()?;
    act(call, Event::Extend { seconds })
}

pub(crate) fn limit(call: &Call) -> Result<Reply, ApiError> {
    let limits: Limits = call.parse()?;
    limits.validate().map_err(ApiError::invalid)?;
    act(call, Event::Limit(limits))
}

fn act(call: &Call, event: Event) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    call.principal.owns_group(migration.group_id)?;
    Ok(reply(&detail(call, &change(call, &migration, event)?)?))
}
