//! `limosa explain`: an error's page of the documentation, compiled in.

use crate::{error::CliError, ui};
use limosa_model::ErrorCode;

pub(crate) fn run(code: Option<&str>) -> Result<(), CliError> {
    let Some(wanted) = code else {
        let rows = ErrorCode::ALL.iter().map(|code| vec![code.name().to_owned(), code.remedy().to_owned()]);
        ui::print(&ui::table(&["CODE", "WHAT TO DO"], rows.collect()));
        return Ok(());
    };
    let name = wanted.to_ascii_uppercase().replace('-', "_");
    match ErrorCode::ALL.iter().find(|code| code.name() == name) {
        Some(code) => {
            ui::print(code.page().trim_end());
            Ok(())
        }
        None => Err(CliError::Usage(format!("there is no code {wanted}; 'limosa explain' lists them all"))),
    }
}
