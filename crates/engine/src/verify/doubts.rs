//! Collections of which it isn't certain that every change was marked: compared as a whole, out of turn, before everything
//! counts as compared. They are noted on the agent's disk, so that a restart doesn't forget them.

use crate::{
    mongo::catalog::{self, Uuid},
    retry::Backoff,
    verify::{
        collection_pair::{CollectionPair, Interval},
        dirty_set::storage,
        online::Verifier,
    },
};
use limosa_model::Failure;
use std::time::Duration;
use tokio::time::Instant;

impl Verifier {
    /// Has a collection compared as a whole.
    pub fn doubt(&self, uuid: Uuid) -> Result<(), Failure> {
        self.inner.notes.touch(uuid)?;
        self.inner.notes.doubts.insert(uuid, []).map_err(storage)?;
        self.inner.notes.dirty.sync()?;
        self.inner.doubted.notify_one();
        Ok(())
    }

    /// All that are to be compared.
    pub(super) fn doubts(&self) -> Result<Vec<Uuid>, Failure> {
        let mut all = Vec::new();
        for item in self.inner.notes.doubts.iter() {
            let uuid: Uuid = item.key().map_err(storage)?.as_ref().try_into().map_err(storage)?;
            all.push(uuid);
        }
        Ok(all)
    }

    /// Whether any of them is replicated.
    pub(super) fn is_in_doubt(&self) -> Result<bool, Failure> {
        let pairs = self.state().pairs.clone();
        Ok(self.doubts()?.iter().any(|uuid| pairs.contains_key(uuid)))
    }

    /// These were compared.
    pub(super) fn settle_doubts(&self, uuids: &[Uuid]) -> Result<(), Failure> {
        uuids.iter().try_for_each(|uuid| self.inner.notes.doubts.remove(uuid).map_err(storage))
    }

    /// Rests for so long, and compares what comes to be in doubt meanwhile.
    pub(super) async fn rest(&self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            self.compare_doubts(&[]).await?;
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Ok(()),
                () = self.inner.doubted.notified() => {}
            }
        }
    }

    /// Compares all that is in doubt, but `others`.
    pub(super) async fn compare_doubts(&self, others: &[Uuid]) -> Result<(), Failure> {
        for uuid in self.doubts()?.into_iter().filter(|uuid| !others.contains(uuid)) {
            self.unless_held(|| self.compare_doubt(uuid)).await?;
            self.inner.scan_rests.send_replace(true);
        }
        Ok(())
    }

    async fn compare_doubt(&self, uuid: Uuid) -> Result<(), Failure> {
        let (ends, mut backoff) = (&self.inner.ends, Backoff::default());
        loop {
            self.room().await;
            let Some(known) = self.state().pairs.get(&uuid).cloned() else { break };
            let Some(entry) = catalog::find_by_uuid(&ends.source, &known.source, uuid).await? else { break };
            let pair = CollectionPair::of(&entry, &known.destination);
            let since = ends.since(*self.inner.applied.borrow());
            match self.scan(&since, &pair, &Interval::default(), &self.held()).await {
                Ok(counted) => {
                    let documents = counted.compared;
                    tracing::info!(ns = %pair.destination, documents, "a collection that was in doubt is compared");
                    break;
                }
                Err(broken) if ends.again(&broken, &mut backoff).await? => {}
                // Renamed or dropped under the scan: it is looked for where it is now.
                Err(broken) if !backoff.wait().await => return Err(ends.failure(&broken)),
                Err(_) => {}
            }
        }
        // What isn't on the source any more, or isn't known here, is gone with its events.
        self.settle_doubts(&[uuid])
    }
}
