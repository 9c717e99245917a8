//! `/api/atlas/v2/groups/{groupId}/liveMigrations`

use crate::{
    handlers::{change, created, group, migration, new_migration, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
};
use axum::http::StatusCode;
use limosa_model::{Timestamp, transition::Event, wire::live_migration::LiveMigrationResponse};

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&LiveMigrationResponse::at(&migration(call)?, Timestamp::now())))
}

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let migration = created(call, group.id, new_migration::read(call, group.id)?)?;
    Ok(Reply { status: StatusCode::CREATED, ..reply(&LiveMigrationResponse::at(&migration, Timestamp::now())) })
}

pub(crate) fn cut_over(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    call.principal.owns_org()?;
    change(call, &migration, Event::CutOver)?;
    Ok(Reply::with(StatusCode::ACCEPTED, None))
}
