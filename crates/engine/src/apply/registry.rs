//! Which of the destination's collections an event of the source belongs to.
//!
//! From 6.0 on events carry the collection's UUID, which stays the same through renames; what it is called on the
//! destination is looked up here. Before, the name has to do.

use crate::{
    catalog::{self, Entry, Kind, Uuid},
    checkpoint::Store,
    cluster::Cluster,
    cutover, failpoint,
    verify::metadata::SIDE_BY_SIDE,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{Failure, Namespace, NamespaceFilter};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Collections that are made before it is written down which they are; each write waits for the majority.
const NOTED_AT_ONCE: usize = 256;

/// A collection on the destination that receives changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub ns: Namespace,
    pub uuid: Option<Uuid>,
    /// Capped: changes stay in order, outside of transactions.
    pub keeps_order: bool,
    /// Has a collation, under which different strings may be equal as `_id`s.
    pub folds: bool,
}

impl Target {
    pub fn of(entry: &Entry) -> Self {
        Self { ns: entry.ns.clone(), uuid: entry.uuid, keeps_order: entry.is_capped(), folds: entry.is_collated() }
    }

    #[cfg(any(test, feature = "bench"))]
    pub fn plain(ns: Namespace) -> Self {
        Self { ns, uuid: None, keeps_order: false, folds: false }
    }
}

/// All targets.
pub(crate) struct Registry {
    source: Cluster,
    destination: Cluster,
    store: Store,
    filter: NamespaceFilter,
    by_uuid: HashMap<Uuid, Arc<Target>>,
    by_name: HashMap<Namespace, Arc<Target>>,
    /// UUIDs that need nothing any more.
    gone: HashSet<Uuid>,
    /// What came, went or changed its name since [`Self::take_touched`].
    touched: HashSet<Uuid>,
}

impl Registry {
    /// Knows what the checkpoint has mapped, under the names that the destination has now.
    pub async fn load(
        source: &Cluster,
        destination: &Cluster,
        store: &Store,
        filter: &NamespaceFilter,
    ) -> Result<Self, Failure> {
        let mut registry = Self {
            source: source.clone(),
            destination: destination.clone(),
            store: store.clone(),
            filter: filter.clone(),
            by_uuid: HashMap::new(),
            by_name: HashMap::new(),
            gone: HashSet::new(),
            touched: HashSet::new(),
        };
        let mut present: HashMap<Uuid, Entry> = HashMap::new();
        for entry in catalog::list(destination, &NamespaceFilter::default()).await? {
            present.extend(entry.uuid.map(|uuid| (uuid, entry)));
        }
        for (source_uuid, destination_uuid) in store.mapped().await? {
            match present.get(&destination_uuid) {
                Some(entry) => registry.insert(Target { uuid: Some(source_uuid), ..Target::of(entry) }),
                None => drop(registry.gone.insert(source_uuid)),
            }
        }
        Ok(registry)
    }

    fn insert(&mut self, target: Target) {
        let target = Arc::new(target);
        self.touched.extend(target.uuid);
        self.by_uuid.extend(target.uuid.map(|uuid| (uuid, Arc::clone(&target))));
        let former = self.by_name.insert(target.ns.clone(), target);
        self.touched.extend(former.and_then(|former| former.uuid));
    }

    /// Creates `entry` of the source on the destination under `ns` and knows it from now on.
    pub async fn create(&mut self, entry: &Entry, ns: &Namespace) -> Result<(), Failure> {
        let made = self.make(entry, ns).await?;
        self.note(vec![made]).await
    }

    /// The same for many, under their own names, several at a time: there may be thousands.
    pub async fn create_all(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        for some in entries.chunks(NOTED_AT_ONCE) {
            let all: Vec<_> = some.iter().map(|entry| self.make(entry, &entry.ns)).collect();
            let made = futures::stream::iter(all).buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
            self.note(made).await?;
        }
        Ok(())
    }

    /// Creates `entry` under `ns`; returns it and the destination's UUID, or nothing where that isn't there any more.
    async fn make(&self, entry: &Entry, ns: &Namespace) -> Result<Option<(Target, Option<Uuid>)>, Failure> {
        catalog::create(&self.destination, ns, &entry.options).await?;
        let mut created = catalog::find(&self.destination, ns).await?;
        if created.as_ref().is_some_and(|found| found.kind == Kind::View) {
            // Left by a cutover that was taken back; what the source has in its place comes first.
            cutover::drop_namespace(&self.destination, ns).await?;
            catalog::create(&self.destination, ns, &entry.options).await?;
            created = catalog::find(&self.destination, ns).await?;
        }
        failpoint::reach(failpoint::COLLECTION_MADE, &self.store.id()).await;
        Ok(created.map(|created| (Target { ns: ns.clone(), ..Target::of(entry) }, created.uuid)))
    }

    /// Writes down what became of which, and knows it.
    async fn note(&mut self, made: Vec<Option<(Target, Option<Uuid>)>>) -> Result<(), Failure> {
        let made: Vec<_> = made.into_iter().flatten().collect();
        let pairs: Vec<(Uuid, Uuid)> =
            made.iter().filter_map(|(target, destination)| target.uuid.zip(*destination)).collect();
        self.store.map(&pairs).await?;
        made.into_iter().for_each(|(target, _)| self.insert(target));
        Ok(())
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Option<Arc<Target>> {
        self.by_uuid.get(&uuid).cloned()
    }

    pub fn by_name(&self, ns: &Namespace) -> Option<Arc<Target>> {
        self.by_name.get(ns).cloned()
    }

    pub fn is_gone(&self, uuid: Uuid) -> bool {
        self.gone.contains(&uuid)
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

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// `ns` on the destination no longer exists.
    pub fn remove(&mut self, ns: &Namespace) {
        if let Some(target) = self.by_name.remove(ns)
            && let Some(uuid) = target.uuid
        {
            self.by_uuid.remove(&uuid);
            self.gone.insert(uuid);
            self.touched.insert(uuid);
        }
    }

    /// Events of this UUID need nothing: the collection is gone on the source.
    pub fn forget(&mut self, uuid: Uuid) {
        self.gone.insert(uuid);
    }

    /// `from` on the destination is called `to` now.
    pub fn rename(&mut self, from: &Namespace, to: &Namespace) {
        self.remove_name_only(to);
        if let Some(target) = self.by_name.remove(from) {
            self.insert(Target { ns: to.clone(), ..(*target).clone() });
        }
    }

    fn remove_name_only(&mut self, ns: &Namespace) {
        self.remove(ns);
    }

    /// Changes of this collection go one after the other from now on.
    pub fn keep_order(&mut self, ns: &Namespace) {
        if let Some(target) = self.by_name.get(ns) {
            self.insert(Target { keeps_order: true, ..(**target).clone() });
        }
    }

    /// The source's UUIDs of what came, went or changed its name since this was asked last.
    pub fn take_touched(&mut self) -> HashSet<Uuid> {
        std::mem::take(&mut self.touched)
    }

    /// Makes everything count as changed.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.by_uuid.keys());
    }

    /// All collections of `db` that are known.
    pub fn of_database(&self, db: &str) -> Vec<Namespace> {
        self.by_name.keys().filter(|ns| ns.db == db).cloned().collect()
    }
}
