//! Which of the destination's collections an event of the source belongs to.
//!
//! From 6.0 on events carry the collection's UUID, which stays the same through renames; what it is called on the
//! destination is looked up here. Before, the name has to do.
//!
//! Each of the source's collections is one of the destination's, by their UUIDs: the checkpoint keeps the pairs. A pair
//! is noted when the collection is whole, and two collections never share one.

use crate::{
    destination::{
        checkpoint::CheckpointStore,
        definition::{self, Place, lost},
    },
    failpoint,
    mongo::{
        catalog::{self, Entry, Kind, Made, Uuid},
        cluster::Cluster,
    },
    tuning::CATALOG_CONCURRENCY,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{Failure, Namespace, NamespaceFilter};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Collections that are made before it is written down which they are; each write waits for the majority.
const NOTED_AT_ONCE: usize = 256;

/// How often a place is cleared and a collection created there, before somebody else must be at work.
const TRIES: usize = 3;

/// A collection on the destination that receives changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub ns: Namespace,
    /// The source's UUID.
    pub uuid: Option<Uuid>,
    /// The destination's UUID.
    pub own: Option<Uuid>,
    /// Capped: changes stay in order, outside of transactions.
    pub keeps_order: bool,
    /// Has a collation, under which different strings may be equal as `_id`s.
    pub folds: bool,
}

impl Target {
    /// The image of the source's `uuid`, as the destination lists it.
    fn of(own: &Entry, uuid: Option<Uuid>) -> Self {
        Self { ns: own.ns.clone(), uuid, own: own.uuid, keeps_order: own.is_capped(), folds: own.is_collated() }
    }

    /// Where it is on the destination.
    pub fn place(&self) -> Place {
        Place { ns: self.ns.clone(), uuid: self.own }
    }

    #[cfg(any(test, feature = "bench"))]
    pub fn plain(ns: Namespace) -> Self {
        Self { ns, uuid: None, own: None, keeps_order: false, folds: false }
    }
}

/// All targets.
pub(crate) struct CollectionMap {
    source: Cluster,
    destination: Cluster,
    store: CheckpointStore,
    filter: NamespaceFilter,
    by_uuid: HashMap<Uuid, Arc<Target>>,
    by_name: HashMap<Namespace, Arc<Target>>,
    /// The noted pairs, the source's UUID first, of which the destination has the second. Whatever is here is in
    /// `by_uuid` too, or it was forgotten by mistake.
    mapped: HashMap<Uuid, Uuid>,
    /// The same, the destination's first.
    owners: HashMap<Uuid, Uuid>,
    /// Noted pairs of which the destination didn't have the second when this was loaded, or of which two claimed one.
    missing: HashSet<Uuid>,
    /// Collections of the destination that two pairs claimed.
    contested: Vec<Place>,
    /// What came, went or changed its name since [`Self::take_touched`].
    touched: HashSet<Uuid>,
    /// What may hold documents that the source doesn't have, since [`Self::take_doubtful`].
    doubtful: HashSet<Uuid>,
}

impl CollectionMap {
    /// Knows what the checkpoint has mapped, under the names that the destination has now.
    pub async fn load(
        source: &Cluster,
        destination: &Cluster,
        store: &CheckpointStore,
        filter: &NamespaceFilter,
    ) -> Result<Self, Failure> {
        let mut registry = Self {
            source: source.clone(),
            destination: destination.clone(),
            store: store.clone(),
            filter: filter.clone(),
            by_uuid: HashMap::new(),
            by_name: HashMap::new(),
            mapped: HashMap::new(),
            owners: HashMap::new(),
            missing: HashSet::new(),
            contested: Vec::new(),
            touched: HashSet::new(),
            doubtful: HashSet::new(),
        };
        let present = registry.confirmed_entries().await?;
        let mut claims: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
        for (uuid, own) in store.mapped().await? {
            claims.entry(own).or_default().push(uuid);
        }
        for (own, uuids) in claims {
            match (present.get(&own), uuids.as_slice()) {
                (Some(entry), [uuid]) => {
                    registry.mapped.insert(*uuid, own);
                    registry.owners.insert(own, *uuid);
                    registry.insert(Target::of(entry, Some(*uuid)));
                }
                (Some(entry), _) => {
                    registry.contested.push(Place { ns: entry.ns.clone(), uuid: entry.uuid });
                    registry.missing.extend(uuids);
                }
                (None, _) => registry.missing.extend(uuids),
            }
        }
        Ok(registry)
    }

    /// What the destination has, by UUID, and its majority too: listed between two writes of one term. A list that a
    /// primary gave which was replaced meanwhile may show what is rolled back.
    async fn confirmed_entries(&self) -> Result<HashMap<Uuid, Entry>, Failure> {
        let mut before = self.store.confirm().await?;
        loop {
            let listed = catalog::list(&self.destination, &NamespaceFilter::default()).await?;
            let after = self.store.confirm().await?;
            if before == after {
                return Ok(listed.into_iter().filter_map(|entry| Some((entry.uuid?, entry))).collect());
            }
            before = after;
        }
    }

    fn insert(&mut self, target: Target) {
        let target = Arc::new(target);
        self.touched.extend(target.uuid);
        if let Some(uuid) = target.uuid {
            let former = self.by_uuid.insert(uuid, Arc::clone(&target));
            if let Some(former) = former.filter(|former| former.ns != target.ns)
                && self.by_name.get(&former.ns).is_some_and(|named| named.uuid == former.uuid)
            {
                self.by_name.remove(&former.ns);
            }
        }
        let former = self.by_name.insert(target.ns.clone(), Arc::clone(&target));
        if let Some(former) = former.and_then(|former| former.uuid).filter(|former| target.uuid != Some(*former)) {
            self.by_uuid.remove(&former);
            self.touched.insert(former);
        }
    }

    /// Creates `entry` of the source on the destination under `ns` and knows it from now on.
    pub async fn create(&mut self, entry: &Entry, ns: &Namespace) -> Result<(), Failure> {
        let made = self.make(entry, ns).await?;
        self.note(vec![made]).await
    }

    /// The same without noting it: after a crash it is nobody's until [`Self::settle`] says that it is whole.
    pub async fn create_unsettled(&mut self, entry: &Entry, ns: &Namespace) -> Result<(), Failure> {
        let (target, _) = self.make(entry, ns).await?;
        self.insert(target);
        Ok(())
    }

    /// Notes a collection that was filled after [`Self::create_unsettled`].
    pub async fn settle(&mut self, ns: &Namespace) -> Result<(), Failure> {
        let pair = self.by_name(ns).and_then(|target| target.uuid.zip(target.own));
        self.record_mapping(pair.into_iter().collect()).await
    }

    /// The same for many, under their own names, several at a time: there may be thousands.
    pub async fn create_all(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        for some in entries.chunks(NOTED_AT_ONCE) {
            let all: Vec<_> = some.iter().map(|entry| self.make(entry, &entry.ns)).collect();
            let made = futures::stream::iter(all).buffer_unordered(CATALOG_CONCURRENCY).try_collect().await?;
            self.note(made).await?;
        }
        Ok(())
    }

    /// Drops what an earlier plan created that isn't under its name of now on the source, or isn't there any more:
    /// while nothing is copied, whatever happened to it is in the stream too.
    pub async fn keep_only(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        let now: HashMap<Uuid, &Namespace> = entries.iter().filter_map(|e| Some((e.uuid?, &e.ns))).collect();
        let known: Vec<Arc<Target>> = self.by_name.values().cloned().collect();
        for target in known {
            if target.uuid.is_none_or(|uuid| now.get(&uuid) != Some(&&target.ns)) {
                definition::drop_collection(&self.destination, &target.place()).await?;
                self.remove(&target.ns);
            }
        }
        Ok(())
    }

    /// Creates `entry` under `ns`; returns it, and whether it is new. What is in its place is taken for it if it was made
    /// for it: an engine may have died before it noted that.
    async fn make(&self, entry: &Entry, ns: &Namespace) -> Result<(Target, Made), Failure> {
        for _ in 0..TRIES {
            let made = catalog::create(&self.destination, ns, &entry.options).await?;
            let Some(found) = catalog::find(&self.destination, ns).await? else {
                self.clear_plain(ns).await?;
                continue;
            };
            let owner = found.uuid.and_then(|own| self.owner(own));
            if owner.is_some() && owner != entry.uuid {
                return Err(lost(format!("{ns} is made for {}, and is the image of another collection", entry.ns)));
            }
            // A view is left by a cutover that was rolled back; what the source has in its place comes first.
            let is_another = found.kind == Kind::View || owner.is_none() && differs(entry, &found);
            if made == Made::Existed && is_another {
                tracing::info!(%ns, "something else is in a collection's place; it is dropped");
                definition::drop_collection(&self.destination, &Place { ns: ns.clone(), uuid: found.uuid }).await?;
                continue;
            }
            failpoint::reach(failpoint::COLLECTION_MADE, &self.store.id()).await;
            let target = Target { ns: ns.clone(), own: found.uuid, ..Target::of(entry, entry.uuid) };
            return Ok((target, made));
        }
        Err(lost(format!("{ns} was created {TRIES} times, and each time something else was in its place")))
    }

    /// Clears a time-series collection's own name, beside that of its buckets, of what is nobody's.
    async fn clear_plain(&self, buckets: &Namespace) -> Result<(), Failure> {
        let Some(plain) = buckets.coll.strip_prefix(catalog::BUCKETS) else { return Ok(()) };
        let plain = Namespace::new(&buckets.db, plain);
        match catalog::find(&self.destination, &plain).await? {
            Some(found) if found.uuid.is_none_or(|own| self.owner(own).is_none()) => {
                definition::drop_collection(&self.destination, &Place { ns: plain, uuid: found.uuid }).await
            }
            _ => Ok(()),
        }
    }

    /// Which of the source's collections the destination's `own` is the image of.
    pub fn owner(&self, own: Uuid) -> Option<Uuid> {
        self.owners.get(&own).copied()
    }

    /// Writes down what became of which, and knows it.
    async fn note(&mut self, made: Vec<(Target, Made)>) -> Result<(), Failure> {
        self.record_mapping(made.iter().filter_map(|(target, _)| target.uuid.zip(target.own)).collect()).await?;
        for (target, made) in made {
            if made == Made::Existed {
                self.doubtful.extend(target.uuid);
            }
            self.insert(target);
        }
        Ok(())
    }

    async fn record_mapping(&mut self, pairs: Vec<(Uuid, Uuid)>) -> Result<(), Failure> {
        self.store.record_mapping(&pairs).await?;
        for (uuid, own) in pairs {
            self.missing.remove(&uuid);
            self.mapped.insert(uuid, own);
            self.owners.insert(own, uuid);
        }
        Ok(())
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Option<Arc<Target>> {
        self.by_uuid.get(&uuid).cloned()
    }

    /// The same for a document's event. One that is noted and isn't known was forgotten by mistake: its changes must not
    /// be passed over.
    pub fn receiver(&self, uuid: Uuid) -> Result<Option<Arc<Target>>, Failure> {
        match self.by_uuid(uuid) {
            None if self.mapped.contains_key(&uuid) => {
                Err(lost("a change belongs to a collection that is noted, and not known".to_owned()))
            }
            known => Ok(known),
        }
    }

    pub fn by_name(&self, ns: &Namespace) -> Option<Arc<Target>> {
        self.by_name.get(ns).cloned()
    }

    pub fn filter(&self) -> &NamespaceFilter {
        &self.filter
    }

    pub fn source(&self) -> &Cluster {
        &self.source
    }

    pub fn destination(&self) -> &Cluster {
        &self.destination
    }

    pub fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// `ns` on the destination no longer exists.
    pub fn remove(&mut self, ns: &Namespace) {
        if let Some(uuid) = self.by_name.remove(ns).and_then(|target| target.uuid)
            && self.by_uuid.get(&uuid).is_some_and(|known| known.ns == *ns)
        {
            self.by_uuid.remove(&uuid);
            self.mapped.remove(&uuid).and_then(|own| self.owners.remove(&own));
            self.touched.insert(uuid);
        }
    }

    /// `from` on the destination is called `to` now, in place of what was there.
    pub fn rename(&mut self, from: &Namespace, to: &Namespace) {
        if from == to {
            return;
        }
        self.remove(to);
        if let Some(target) = self.by_name.remove(from) {
            self.insert(Target { ns: to.clone(), ..(*target).clone() });
        }
    }

    /// Changes of this collection go one after the other from now on.
    pub fn keep_order(&mut self, ns: &Namespace) {
        if let Some(target) = self.by_name.get(ns) {
            self.insert(Target { keeps_order: true, ..(**target).clone() });
        }
    }

    /// Collections that are noted, are on the source within the chosen namespaces, and aren't on the destination:
    /// somebody dropped them there, or an engine died while it copied them again.
    pub async fn lost(&self) -> Result<Vec<Entry>, Failure> {
        if self.missing.is_empty() {
            return Ok(Vec::new());
        }
        let listed = catalog::list(&self.source, &self.filter).await?;
        Ok(listed.into_iter().filter(|entry| entry.uuid.is_some_and(|uuid| self.missing.contains(&uuid))).collect())
    }

    /// Collections of the destination that two of the source's claimed, once.
    pub fn take_contested(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.contested)
    }

    /// The source's UUIDs of what came, went or changed its name since this was asked last.
    pub fn take_touched(&mut self) -> HashSet<Uuid> {
        std::mem::take(&mut self.touched)
    }

    /// The source's UUIDs of what is to be compared as a whole, since this was asked last.
    pub fn take_doubtful(&mut self) -> HashSet<Uuid> {
        std::mem::take(&mut self.doubtful)
    }

    /// Has a collection compared as a whole.
    pub fn doubt(&mut self, uuid: Option<Uuid>) {
        self.doubtful.extend(uuid);
    }

    /// Makes everything count as changed.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.by_uuid.keys());
    }

    /// All collections of `db` that are known.
    pub fn of_database(&self, db: &str) -> Vec<Arc<Target>> {
        self.by_name.values().filter(|target| target.ns.db == db).cloned().collect()
    }
}

/// Whether what is in a collection's place was made for another. Options of a time-series collection's buckets differ
/// from release to release.
fn differs(entry: &Entry, found: &Entry) -> bool {
    !entry.ns.coll.starts_with(catalog::BUCKETS)
        && (catalog::must_be_recreated(entry, found) || !catalog::option_changes(entry, found).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mongo::side::Side;
    use bson::{Timestamp, doc};
    use limosa_model::{Epoch, ErrorCode, MigrationId, Secret};
    use limosa_testkit::ReplicaSet;

    async fn load(cluster: &Cluster, store: &CheckpointStore) -> CollectionMap {
        CollectionMap::load(cluster, cluster, store, &NamespaceFilter::default()).await.expect("loads")
    }

    #[tokio::test]
    async fn no_change_of_a_noted_collection_is_passed_over_and_no_image_is_shared() {
        let set = ReplicaSet::start().await.expect("starts");
        let cluster = Cluster::connect(Side::Destination, &Secret::new(set.uri())).await.expect("connects");
        let store = CheckpointStore::new(&cluster, MigrationId::generate(), Epoch(1));
        store
            .begin(crate::destination::checkpoint::Stage::Begun, Timestamp { time: 1, increment: 1 }, doc! {})
            .await
            .expect("begins");
        let mut registry = load(&cluster, &store).await;
        let entry = |name: &str, uuid: u8| Entry {
            ns: Namespace::new("images", name),
            kind: Kind::Collection,
            uuid: Some([uuid; 16]),
            options: doc! {},
        };
        for (name, uuid) in [("a", 1), ("b", 2)] {
            registry.create(&entry(name, uuid), &Namespace::new("images", name)).await.expect("creates");
        }
        // What is known stays so, whatever it is said to be renamed to.
        let a = Namespace::new("images", "a");
        registry.rename(&a, &a);
        assert_eq!(registry.receiver([1; 16]).expect("is known").map(|target| target.ns.clone()), Some(a.clone()));
        assert_eq!(registry.receiver([9; 16]), Ok(None), "outside of the migration");
        // Forgotten by mistake.
        registry.by_uuid.remove(&[1; 16]);
        assert_eq!(registry.receiver([1; 16]).expect_err("is not passed over").code, ErrorCode::CollectionLost);
        // Another's image.
        let taken = registry.create(&entry("a", 3), &a).await.expect_err("is taken");
        assert_eq!(taken.code, ErrorCode::CollectionLost);
        let again = load(&cluster, &store).await;
        assert!(again.receiver([1; 16]).is_ok_and(|target| target.is_some()), "the map has it");
        assert_eq!(again.receiver([3; 16]), Ok(None));
    }
}
