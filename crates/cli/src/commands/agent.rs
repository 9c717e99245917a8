//! `limosa agent`

use super::Interrupt;
use crate::{args, error::CliError, ui};
use limosa_agent::AgentConfig;

pub(crate) async fn run(given: args::Agent) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen()?;
    ui::say(&format!("joining {} as {}", given.server, given.host_name));
    let bounds = given.bounds.bounds();
    bounds.words().iter().for_each(|line| ui::say(&format!("  {line}")));
    let config = AgentConfig {
        server_url: given.server,
        link_token: given.link_token,
        host_name: given.host_name,
        group_name: given.group_name,
        sources: given.sources,
        filter: given.namespaces.filter(),
        data_dir: given.data_dir,
        tuning: given.tuning.tuning(),
        plain_http: given.plain_http,
        metrics_listen: given.metrics_listen,
        bounds,
    };
    Ok(limosa_agent::run(config, async move { interrupt.came().await }).await?)
}
