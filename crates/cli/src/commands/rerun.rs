//! What the options of `limosa migrate` mean for a migration that is there already. Some hold from now on, those of the
//! cutover too; what only a beginning takes is not passed over in silence. Another cluster or other namespaces are refused
//! where they are read.

use super::{
    check,
    migration_handle::{Detail, MigrationHandle},
};
use crate::{args::Migrate, error::CliError, ui};
use limosa_agent::http::HttpError;
use limosa_engine::Settings;
use limosa_model::{Failure, PhaseKind, cutover::CutoverOptions};
use std::path::PathBuf;

/// Makes the options hold for the migration, `known` if it was there before, as far as they still can.
pub(super) async fn apply(
    given: &Migrate,
    watched: &MigrationHandle<'_>,
    known: Option<&Detail>,
) -> Result<(), CliError> {
    let is_over = known.is_some_and(|known| known.phase.is_final() && known.phase != PhaseKind::Failed);
    if !is_over && let Some(limits) = given.limits.change(watched.limits().await?) {
        watched.limit(limits).await?;
    }
    let held = watched.cutover_options().await?;
    if let Some(wanted) = given.how.change(held) {
        match watched.choose_cutover(wanted).await {
            Err(HttpError::Refused(409, ..)) => ui::say(&too_late(held)),
            done => done?,
        }
    }
    if let Some(known) = known {
        unheard(given, known).iter().for_each(|line| ui::say(line));
    }
    Ok(())
}

/// What the same command does once the migration is complete: nothing, and it says so. Anything but the same command is
/// refused.
pub(super) async fn completed(given: &Migrate, known: &Detail, data_dir: PathBuf) -> Result<String, CliError> {
    let settings = Settings { data_dir, ..check::settings(&given.ends, known.id) };
    let refused = |failure: Failure| CliError::Refused(vec![failure.into()]);
    let at = limosa_engine::completed(&settings).await.map_err(refused)?;
    Ok(format!("this migration was completed on {at}; nothing was done"))
}

fn too_late(held: CutoverOptions) -> String {
    let CutoverOptions { block_source_writes, reversible } = held;
    format!(
        "--block-source-writes and --reversible come too late, the cutover is under way or over: what holds is \
         --block-source-writes={block_source_writes} --reversible={reversible}"
    )
}

/// What was said for nothing, and what to do about it.
fn unheard(given: &Migrate, known: &Detail) -> Vec<String> {
    let mut lines = Vec::new();
    if given.ends.drop_destination_data && !known.drop_destination_data {
        lines.push(
            "--drop-destination-data is not heard: this migration began without it, and drops nothing that it finds; \
             with another --state-dir a new one begins"
                .to_owned(),
        );
    }
    if given.recopy && !known.phase.is_final() && known.phase != PhaseKind::Paused {
        lines.push(format!(
            "--recopy is not heard: this migration is {}, and the copy is made again after a failure or a pause; \
             'limosa migrations pause' and then 'resume --recopy' do it",
            ui::words(known.phase)
        ));
    }
    lines
}
