//! `/api/limosa/v1/orgs/{orgId}/audit`: who did what, when and from where.

use crate::{
    handlers::owned_org,
    http::{
        context::Call,
        paging::Window,
        render::{ApiError, Reply},
    },
    store::Audit,
};
use limosa_model::wire::own::AuditEntry;

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let org = owned_org(call)?;
    let window = Window::of(call)?;
    let (entries, total) = call.app.store.audited(org, window.first(), window.size)?;
    let shown = entries.into_iter().map(|entry| {
        let Audit { id, at, actor, address, operation, target, outcome } = entry;
        AuditEntry { actor, address, id, operation, outcome, target, time: at.rfc3339() }
    });
    Ok(window.reply(call, &shown.collect::<Vec<_>>(), total))
}
