//! `/api/atlas/v2/groups/{groupId}/liveMigrations/validate`: a preflight that an agent carries out.

use crate::{
    handlers::{group, new_migration, reply, unreadable_validation, validation},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::validations,
    store::Validation,
};
use limosa_model::{
    state::SourceRef,
    wire::live_migration::{LiveImportValidation, ValidationStatus},
};

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let wanted = new_migration::read(call, group.id)?;
    shown(validations::begin(&call.app.store, call.principal.org_id, group.id, &wanted)?)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    shown(validation(call)?)
}

/// Clients take an `errorMessage` for a failure: warnings of a success are not shown in it.
fn shown(validation: Validation) -> Result<Reply, ApiError> {
    let failed = validation.status == ValidationStatus::Failed;
    let source: SourceRef =
        serde_json::from_value(validation.request["source"].clone()).map_err(|_| unreadable_validation(&validation))?;
    Ok(reply(&LiveImportValidation {
        id: validation.id.parse().map_err(|_| unreadable_validation(&validation))?,
        error_message: validation.error_message.filter(|_| failed),
        group_id: validation.group_id,
        source_group_id: source.group_id,
        status: Some(validation.status),
    }))
}
