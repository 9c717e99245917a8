//! `limosa check`

use crate::{args, error::CliError, ui};
use limosa_engine::Settings;
use limosa_model::{AgentId, Epoch, Finding, MigrationId};
use serde_json::json;

pub(crate) async fn run(given: args::Check) -> Result<(), CliError> {
    let findings = preflight(&given.ends, MigrationId::generate()).await;
    let can_start = !findings.iter().any(Finding::is_error);
    let report = json!({"findings": findings, "canStart": can_start});
    if can_start {
        findings.iter().for_each(ui::finding);
        ui::answer(given.output, &report, |_| "nothing stands in the way of this migration".to_owned());
        return Ok(());
    }
    if given.output == args::Output::Json {
        ui::answer(given.output, &report, |_| String::new());
    }
    Err(CliError::Refused(findings))
}

/// Everything to know before. Writes nothing.
pub(crate) async fn preflight(ends: &args::EndpointArgs, id: MigrationId) -> Vec<Finding> {
    limosa_engine::preflight(&settings(ends, id)).await
}

/// What the engine is to look at.
pub(super) fn settings(ends: &args::EndpointArgs, id: MigrationId) -> Settings {
    Settings {
        migration_id: id,
        epoch: Epoch(0),
        agent_id: AgentId::generate(),
        source_uri: ends.source.clone(),
        destination_uri: ends.destination.clone(),
        filter: ends.namespaces.filter(),
        drop_destination_data: ends.drop_destination_data,
        recopies: 0,
        data_dir: std::env::temp_dir(),
        tuning: limosa_engine::Tuning::default(),
        steering: limosa_engine::ControlHandle::default(),
        metrics: limosa_engine::Metrics::default(),
        reversal_from: None,
        claim: limosa_engine::Claim { replaces: ends.replaces.clone(), ..limosa_engine::Claim::default() },
    }
}
