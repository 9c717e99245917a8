//! `limosa check`

use crate::{args, error::CliError, ui};
use limosa_engine::Settings;
use limosa_model::{AgentId, Epoch, Failure, MigrationId};
use serde_json::json;

pub(crate) async fn run(given: args::Check) -> Result<(), CliError> {
    let findings = preflight(&given.ends, MigrationId::generate()).await;
    let shown: Vec<_> =
        findings.iter().map(|f| json!({"code": f.code, "message": f.message, "remedy": f.code.remedy()})).collect();
    let report = json!({"findings": shown, "canStart": findings.is_empty()});
    if findings.is_empty() {
        ui::answer(given.output, &report, |_| "nothing stands in the way of this migration".to_owned());
        return Ok(());
    }
    if given.output == args::Output::Json {
        ui::answer(given.output, &report, |_| String::new());
    }
    Err(CliError::Refused(findings))
}

/// Every reason not to start. Writes nothing.
pub(crate) async fn preflight(ends: &args::Ends, id: MigrationId) -> Vec<Failure> {
    let settings = Settings {
        migration_id: id,
        epoch: Epoch(0),
        agent_id: AgentId::generate(),
        source_uri: ends.source.clone(),
        destination_uri: ends.destination.clone(),
        filter: ends.namespaces.filter(),
        drop_destination_data: ends.drop_destination_data,
        data_dir: std::env::temp_dir(),
    };
    limosa_engine::preflight(&settings).await
}
