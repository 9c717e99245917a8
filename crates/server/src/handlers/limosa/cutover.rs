//! `…/liveMigrations/{id}/cutover`: how to cut over, and what it would do.

use crate::{
    handlers::{change, migration, reply},
    http::{
        context::Call,
        render::{ApiError, Reply},
    },
};
use axum::http::StatusCode;
use limosa_model::{Migration, cutover::CutoverOptions, transition::Event};

/// Holds for the next cutover, by whichever client and API it is asked for.
pub(crate) fn choose(call: &Call) -> Result<Reply, ApiError> {
    let options: CutoverOptions = call.parse()?;
    if options.reversible {
        // It makes a migration that writes to the source's cluster.
        call.principal.owns_org()?;
    }
    Ok(reply(&owned_change(call, Event::ChooseCutover(options))?.cutover))
}

pub(crate) fn options(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&migration(call)?.cutover))
}

/// Asks for a rehearsal; its agent carries it out with its next report. One that is under way is this one.
pub(crate) fn rehearse(call: &Call) -> Result<Reply, ApiError> {
    let rehearsed = owned_change(call, Event::Rehearse)?.rehearsal;
    Ok(Reply { status: StatusCode::ACCEPTED, ..reply(&rehearsed) })
}

/// The newest rehearsal.
pub(crate) fn rehearsal(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    let none = || {
        let id = migration.id.to_string();
        ApiError::not_found(
            "REHEARSAL_NOT_FOUND",
            format!("The cutover of live migration {id} was not rehearsed."),
            &[&id],
        )
    };
    migration.rehearsal.as_ref().map(reply).ok_or_else(none)
}

fn owned_change(call: &Call, event: Event) -> Result<Migration, ApiError> {
    let migration = migration(call)?;
    call.principal.owns_group(migration.group_id)?;
    change(call, &migration, event)
}
