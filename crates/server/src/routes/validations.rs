//! `/api/atlas/v2/groups/{groupId}/liveMigrations/validate`: a preflight that an agent carries out.

use super::{group, live_migrations::Request, reply};
use crate::{
    call::Call,
    render::{ApiError, Reply},
    store::Validation,
};
use limosa_model::{
    Timestamp, ValidationId,
    state::SourceRef,
    wire::live_migration::{LiveImportValidation, ValidationStatus},
};
use serde_json::json;

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let request = Request::read(call, group.id)?;
    let kept = json!({
        "source": request.source, "destination": request.destination,
        "dropDestinationData": request.drop_destination_data, "credentials": request.credentials,
    });
    let validation = Validation {
        id: ValidationId::generate().to_string(),
        group_id: group.id,
        status: ValidationStatus::Pending,
        error_message: None,
        request: kept,
    };
    call.app.store.create_validation(call.principal.org_id, &validation, &request.host, Timestamp::now())?;
    shown(validation)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let id = call.param("validationId");
    let found = call.app.store.validation(id)?.filter(|v| v.group_id == group.id);
    shown(found.ok_or_else(|| ApiError::resource(id))?)
}

/// Clients take an `errorMessage` for a failure: warnings beside a success are not shown in it.
fn shown(validation: Validation) -> Result<Reply, ApiError> {
    let failed = validation.status == ValidationStatus::Failed;
    let unreadable = || crate::ServerError::Corrupt(format!("validation {}", validation.id));
    let source: SourceRef =
        serde_json::from_value(validation.request["source"].clone()).map_err(|_| ApiError::from(unreadable()))?;
    Ok(reply(&LiveImportValidation {
        id: validation.id.parse().map_err(|_| ApiError::from(unreadable()))?,
        error_message: validation.error_message.filter(|_| failed),
        group_id: validation.group_id,
        source_group_id: source.group_id,
        status: Some(validation.status),
    }))
}
