//! `/api/limosa/v1/orgs/{orgId}/audit`: who did what, when and from where.

use super::owned_org;
use crate::{
    call::Call,
    paging,
    render::{ApiError, Reply},
};
use limosa_model::wire::own::AuditEntry;

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let all: Vec<AuditEntry> = call
        .app
        .store
        .audited(org)?
        .into_iter()
        .map(|(id, at, actor, address, operation, target)| AuditEntry {
            actor,
            address,
            id,
            operation,
            target,
            time: at.rfc3339(),
        })
        .collect();
    paging::page(call, &all)
}
