//! The reverse migration of one that was cut over.

use crate::{ServerError, store::Store};
use limosa_model::{
    Epoch, Identities, Migration, MigrationId, OrgId, Phase, Progress, Timestamp,
    cutover::{CutoverOptions, CutoverTime, Reversal},
    state::Bookkeeping,
};

/// Its time to cut over: it continues until someone ends it.
pub(super) const WINDOW_SECONDS: i64 = 100 * 365 * 24 * 3600;

/// Creates the reverse migration of `of`, once, before that one is complete: whatever dies then, it is there.
pub(super) fn begin(store: &Store, org: OrgId, of: MigrationId, from: CutoverTime) -> Result<(), ServerError> {
    let Some(forth) = store.migration(of)? else { return Ok(()) };
    if store.has_reverse_migration(of)? {
        return Ok(());
    }
    let now = Timestamp::now();
    let back = Migration {
        id: MigrationId::generate(),
        phase: Phase::Scheduled,
        lease: None,
        epoch: Epoch(0),
        progress: Progress::default(),
        created_at: now,
        phase_since: now,
        cutover: CutoverOptions::default(),
        rehearsal: None,
        // The same two clusters: a URI that was changed meanwhile leads nowhere else.
        carried: Bookkeeping {
            identities: forth.carried.identities.as_ref().map(Identities::reversed),
            ..Bookkeeping::default()
        },
        reversal: Some(Reversal { of, from }),
        heard: None,
        ..forth
    };
    let credentials = store.credentials(of)?;
    store.create_migration(org, &back, credentials.as_ref())?;
    Ok(())
}
