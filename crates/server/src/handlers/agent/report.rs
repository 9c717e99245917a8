//! What agents report: how far a migration is, and what a preflight found.

use super::agent;
use crate::{
    handlers::reply,
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::{agent_reports::Reporter, migrations::NotChanged, validations},
};
use limosa_model::{MigrationId, protocol};
use serde_json::json;

/// Takes a report in; an agent that lost its lease is told to stop.
pub(crate) fn migration(call: &Call) -> Result<Reply, ApiError> {
    let agent = agent(call)?.id;
    let text = call.param("liveMigrationId");
    let id = text.parse::<MigrationId>().map_err(|_| ApiError::resource(text))?;
    let (store, org) = (&call.app.store, call.principal.org_id);
    let migration = store.migration_of(org, id)?.ok_or_else(|| ApiError::resource(text))?;
    let mut report: protocol::Report = call.parse()?;
    report.make_plain();
    let window_seconds = call.app.cutover_window_seconds;
    let taken = Reporter { store, org, agent, migration, window_seconds }.take(report);
    taken.map(|ordered| reply(&ordered)).map_err(|error| match error {
        NotChanged::Store(error) => error.into(),
        NotChanged::Illegal(_) | NotChanged::Unknown => ApiError::resource(text),
    })
}

/// Takes in what a preflight found.
pub(crate) fn validation(call: &Call) -> Result<Reply, ApiError> {
    let agent = agent(call)?;
    let mut report: protocol::ValidationReport = call.parse()?;
    report.make_plain();
    let id = call.param("validationId");
    if !validations::finish(&call.app.store, call.principal.org_id, agent.id, id, report)? {
        return Err(ApiError::resource(id));
    }
    Ok(Reply::ok(json!({})))
}
