//! `…/liveMigrations/{id}/report`: the report of a migration that is over.

use crate::{
    handlers::migration,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::migration_reports::report,
};

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    if migration.phase.kind().is_final() {
        return Ok(Reply::ok(report(&call.app.store, &migration)?));
    }
    let id = migration.id.to_string();
    let detail = format!("Live migration {id} is not over: there is no report yet.");
    Err(ApiError::not_found("REPORT_NOT_READY", detail, &[&id]))
}
