//! `/api/atlas/v2/groups/{groupId}/liveMigrations/validate`: a preflight that an agent carries out.

use crate::{
    handlers::{group, live_migrations::Request, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    store::Validation,
};
use limosa_model::{
    GroupId, Timestamp, ValidationId,
    state::SourceRef,
    wire::{
        live_migration::{LiveImportValidation, ValidationStatus},
        own::MigrationValidation,
    },
};
use serde_json::json;

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    shown(begin(call, group.id, &Request::read(call, group.id)?)?)
}

/// In Limosa's own part of the API, where namespaces can be chosen and warnings are told too.
pub(crate) fn create_own(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    shown_own(begin(call, group.id, &Request::read_own(call, group.id)?)?)
}

fn begin(call: &Call, group_id: GroupId, request: &Request) -> Result<Validation, ApiError> {
    let kept = json!({
        "source": request.source, "destination": request.destination,
        "dropDestinationData": request.drop_destination_data, "filter": request.filter,
        "replaces": request.replaces,
    });
    let validation = Validation {
        id: ValidationId::generate().to_string(),
        group_id,
        status: ValidationStatus::Pending,
        error_message: None,
        findings: Vec::new(),
        request: kept,
        credentials: request.credentials.clone(),
    };
    call.app.store.create_validation(call.principal.org_id, &validation, &request.host, Timestamp::now())?;
    Ok(validation)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    shown(validation(call)?)
}

pub(crate) fn get_own(call: &Call) -> Result<Reply, ApiError> {
    shown_own(validation(call)?)
}

/// The path's.
fn validation(call: &Call) -> Result<Validation, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let id = call.param("validationId");
    let found = call.app.store.validation(id)?.filter(|v| v.group_id == group.id);
    found.ok_or_else(|| ApiError::resource(id))
}

fn unreadable(validation: &Validation) -> ApiError {
    crate::ServerError::Corrupt(format!("validation {}", validation.id)).into()
}

fn shown_own(validation: Validation) -> Result<Reply, ApiError> {
    Ok(reply(&MigrationValidation {
        id: validation.id.parse().map_err(|_| unreadable(&validation))?,
        error_message: validation.error_message.filter(|_| validation.findings.is_empty()),
        findings: validation.findings,
        group_id: validation.group_id,
        status: validation.status,
    }))
}

/// Clients take an `errorMessage` for a failure: warnings beside a success are not shown in it.
fn shown(validation: Validation) -> Result<Reply, ApiError> {
    let failed = validation.status == ValidationStatus::Failed;
    let source: SourceRef =
        serde_json::from_value(validation.request["source"].clone()).map_err(|_| unreadable(&validation))?;
    Ok(reply(&LiveImportValidation {
        id: validation.id.parse().map_err(|_| unreadable(&validation))?,
        error_message: validation.error_message.filter(|_| failed),
        group_id: validation.group_id,
        source_group_id: source.group_id,
        status: Some(validation.status),
    }))
}
