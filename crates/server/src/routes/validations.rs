//! `/api/atlas/v2/groups/{groupId}/liveMigrations/validate`: a preflight that an agent carries out.

use super::{group, live_migrations::Request, owner};
use crate::{
    render::{ApiError, Reply},
    router::Call,
    store::Validation,
};
use limosa_model::{ApiVersion, ValidationId};
use serde_json::{Value, json};

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    owner(call)?;
    let request = Request::read(call, group)?;
    let kept = json!({
        "source": request.source, "destination": request.destination,
        "dropDestinationData": request.drop_destination_data, "credentials": request.credentials,
    });
    let validation = Validation {
        id: ValidationId::generate().to_string(),
        group_id: group,
        status: "PENDING".to_owned(),
        error_message: None,
        request: kept,
    };
    call.app.store.create_validation(call.principal.org_id, &validation, &request.host)?;
    let mut reply = Reply::ok(body(&validation));
    reply.sunset = call.version < ApiVersion::V2024_05_30;
    Ok(reply)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    owner(call)?;
    let id = call.param("validationId");
    let found = call.app.store.validation(id)?.filter(|v| v.group_id == group);
    found.map(|v| Reply::ok(body(&v))).ok_or_else(|| ApiError::resource(id))
}

fn body(validation: &Validation) -> Value {
    let source = validation.request.get("source").and_then(|s| s.get("groupId")).cloned();
    json!({
        "_id": validation.id, "errorMessage": validation.error_message, "groupId": validation.group_id,
        "sourceGroupId": source, "status": validation.status,
    })
}
