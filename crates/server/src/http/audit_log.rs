//! Writes into the audit who did what, or was refused.

use crate::{App, auth::Principal};
use limosa_model::{Timestamp, wire::own::Outcome};
use std::net::IpAddr;

/// Writes into the audit. What is refused is written so often a minute that an owner sees it, and no more often.
pub(crate) fn audit(
    app: &App,
    principal: &Principal,
    address: IpAddr,
    operation: &str,
    target: &str,
    outcome: Outcome,
) {
    let now = Timestamp::now();
    if outcome == Outcome::Refused && app.limits.refusal(&principal.name, now).is_err() {
        return;
    }
    if let Err(error) = app.store.audit(principal, &address.to_string(), operation, target, outcome, now) {
        tracing::error!(%error, operation, "the audit could not be written");
    }
}
