//! Preflights that were asked for.

use super::migrations::NewMigration;
use crate::{
    ServerError,
    store::{Store, Validation},
};
use limosa_model::{
    AgentId, Finding, GroupId, OrgId, Timestamp, ValidationId, protocol::ValidationReport, state::DestinationRef,
    wire::live_migration::ValidationStatus,
};
use serde_json::json;

/// Asks for a preflight of a migration; it waits for an agent of the migration's host then.
pub(crate) fn begin(
    store: &Store,
    org: OrgId,
    group_id: GroupId,
    wanted: &NewMigration,
) -> Result<Validation, ServerError> {
    let kept = json!({
        "source": wanted.source, "destination": wanted.destination,
        "dropDestinationData": wanted.drop_destination_data, "filter": wanted.filter,
        "replaces": wanted.replaces,
    });
    let validation = Validation {
        id: ValidationId::generate().to_string(),
        group_id,
        status: ValidationStatus::Pending,
        error_message: None,
        findings: Vec::new(),
        request: kept,
        credentials: wanted.credentials.clone(),
    };
    store.create_validation(org, &validation, &wanted.host, Timestamp::now())?;
    Ok(validation)
}

/// Ends the preflight that `agent` was given; `false` if it isn't this agent's.
pub(crate) fn finish(
    store: &Store,
    org: OrgId,
    agent: AgentId,
    id: &str,
    report: ValidationReport,
) -> Result<bool, ServerError> {
    let failed = report.findings.iter().any(Finding::is_error);
    let mut findings = report.findings;
    findings.sort_by_key(|finding| finding.severity);
    // Clients take any message for a failure: where there are only warnings, Limosa's own part of the API tells them.
    let message = failed.then(|| findings.iter().map(line).collect::<Vec<_>>().join("\n"));
    if !store.finish_validation(org, agent, id, failed, message.as_deref(), &findings)? {
        return Ok(false);
    }
    if let (Some(facts), Some(known)) = (report.destination, store.validation(id)?)
        && let Ok(seen) = serde_json::from_value::<DestinationRef>(known.request["destination"].clone())
    {
        store.put_facts(seen.group_id, &seen.cluster_name, &facts)?;
    }
    Ok(true)
}

fn line(finding: &Finding) -> String {
    let severity = if finding.is_error() { "" } else { "Warning: " };
    format!("{severity}{}: {}. {}", finding.code.name(), finding.evidence, finding.remedy)
}
