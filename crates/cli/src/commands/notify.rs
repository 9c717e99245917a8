//! `limosa notify`

use crate::{error::CliError, ui};
use limosa_server::NotifyConfig;
use std::path::Path;

/// Every channel is tried, whatever becomes of the others.
pub(crate) async fn test(file: &Path) -> Result<(), CliError> {
    let mut failed = None;
    for (channel, done) in limosa_server::send_test(&NotifyConfig::read(file)?).await? {
        match done {
            Ok(()) => ui::print(&format!("{channel}: taken")),
            Err(error) => {
                ui::print(&format!("{channel}: {error}"));
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
