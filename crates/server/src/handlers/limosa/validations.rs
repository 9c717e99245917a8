//! `/api/limosa/v1/groups/{groupId}/liveMigrations/validate`: as Atlas's, where namespaces can be chosen and warnings are
//! told too.

use crate::{
    handlers::{group, new_migration, reply, unreadable_validation, validation},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
    service::validations,
    store::Validation,
};
use limosa_model::wire::own::MigrationValidation;

pub(crate) fn create(call: &Call) -> Result<Reply, ApiError> {
    let group = group(call)?;
    call.principal.owns_org()?;
    let wanted = new_migration::read_with_namespaces(call, group.id)?;
    shown(validations::begin(&call.app.store, call.principal.org_id, group.id, &wanted)?)
}

pub(crate) fn get(call: &Call) -> Result<Reply, ApiError> {
    shown(validation(call)?)
}

fn shown(validation: Validation) -> Result<Reply, ApiError> {
    Ok(reply(&MigrationValidation {
        id: validation.id.parse().map_err(|_| unreadable_validation(&validation))?,
        error_message: validation.error_message.filter(|_| validation.findings.is_empty()),
        findings: validation.findings,
        group_id: validation.group_id,
        status: validation.status,
    }))
}
