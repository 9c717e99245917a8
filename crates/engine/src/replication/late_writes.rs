//! What an application still writes to the source: while a cutover runs, when it should have stopped, and before, for a
//! rehearsal.

use crate::{
    destination::collection_map::Target,
    mongo::{
        catalog::{self, Kind},
        cluster::Cluster,
        current_op::{self, Seen},
        index_spec,
        raw_bson::{self, as_i64},
        raw_value::{self, Value},
    },
};
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use limosa_model::{Failure, Namespace};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What an application still wrote to the source when it should have stopped.
#[derive(Debug, Default)]
pub(crate) struct LateWrites {
    after: Option<Timestamp>,
    /// How many, and the `_id`s of the first, by namespace.
    found: BTreeMap<String, (u64, Vec<String>)>,
    /// What expires in each namespace, by the source's definitions.
    expiring: HashMap<Namespace, Vec<Document>>,
    /// The reply whose deletions were held against that, and those of expired documents.
    judged: Option<u64>,
    expired: HashSet<(Namespace, Vec<u8>)>,
}

/// Late writes that are named in each namespace.
const LATE_NAMED: usize = 3;

/// A server's monitor looks by its own clock; its cluster time is that of the deletion.
const CLOCK_MILLIS: i64 = 1_000;

/// `_id`s in one read.
const IDS: usize = 1_000;

impl LateWrites {
    /// From now on changes later than `after` are late.
    pub fn watch_after(&mut self, after: Timestamp) {
        *self = Self { after: Some(after), ..Self::default() };
    }

    pub fn is_late(&self, time: Timestamp) -> bool {
        self.after.is_some_and(|after| time > after)
    }

    pub fn note(&mut self, time: Timestamp, what: impl FnOnce() -> String, id: Option<Value<'_>>) {
        if self.is_late(time) {
            let (count, first) = self.found.entry(what()).or_default();
            *count += 1;
            if first.len() < LATE_NAMED {
                first.extend(id.map(|id| id.shown().into_relaxed_extjson().to_string()));
            }
        }
    }

    /// What was found, in words; `None` if nothing was.
    pub fn summary(&self) -> Option<String> {
        let each = self.found.iter().map(|(ns, (count, first))| {
            let ids = if first.is_empty() { String::new() } else { format!(" (_id {})", first.join(", ")) };
            format!("{ns} {count} times{ids}")
        });
        (!self.found.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
    }

    /// Whether the late deletions of reply `seq` still have to be [judged](Self::judge).
    pub fn is_unjudged(&self, seq: u64) -> bool {
        self.judged != Some(seq)
    }

    /// Whether a deletion of the reply that was judged last is that of an expired document.
    pub fn is_expired(&self, target: &Target, id: Value<'_>) -> bool {
        !self.expired.is_empty()
            && self.expired.contains(&(target.ns.clone(), raw_bson::canonical_id(id, target.folds)))
    }

    /// Finds out which of the late `deletions` of reply `seq` are of documents that had expired: that is the source's own
    /// doing, not an application's. Everything before them is applied, so the destination's copy of a document is what
    /// the source had when it deleted it.
    pub async fn judge(
        &mut self,
        ends: (&Cluster, &Cluster),
        seq: u64,
        deletions: Vec<Deletions>,
    ) -> Result<(), Failure> {
        let (source, destination) = ends;
        self.judged = Some(seq);
        self.expired.clear();
        for Deletions { target, source_ns, ids, time } in deletions {
            if !self.expiring.contains_key(&target.ns) {
                let what = what_expires(source, &source_ns).await?;
                self.expiring.insert(target.ns.clone(), what);
            }
            let what = self.expiring.get(&target.ns).map(Vec::as_slice).unwrap_or_default();
            if what.is_empty() {
                continue;
            }
            for some in ids.chunks(IDS) {
                let expired = expired(destination, &target, some, what, time).await?;
                self.expired.extend(expired.into_iter().map(|id| (target.ns.clone(), id)));
            }
        }
        Ok(())
    }
}

/// Deletions in one collection.
pub(crate) struct Deletions {
    pub target: Arc<Target>,
    pub source_ns: Namespace,
    pub ids: Vec<Bson>,
    /// That of the last one.
    pub time: Timestamp,
}

/// What the source deletes automatically in `ns`: for each rule `{field, seconds, filter}`.
async fn what_expires(source: &Cluster, ns: &Namespace) -> Result<Vec<Document>, Failure> {
    let rule =
        |field: &str, seconds: i64, filter: Document| doc! {"field": field, "seconds": seconds, "filter": filter};
    let seconds = |options: &Document| {
        let value = options.get("expireAfterSeconds");
        as_i64(value).filter(|_| !value.and_then(Bson::as_f64).is_some_and(f64::is_nan))
    };
    if let Some(series) = ns.coll.strip_prefix(catalog::BUCKETS) {
        let entry = catalog::find(source, &Namespace::new(&ns.db, series)).await?;
        let options = entry.filter(|entry| entry.kind == Kind::TimeSeries).map(|entry| entry.options);
        let found = options.as_ref().and_then(|options| {
            let field = options.get_document("timeseries").ok()?.get_str("timeField").ok()?;
            Some(rule(&format!("control.max.{field}"), seconds(options)?, doc! {}))
        });
        return Ok(found.into_iter().collect());
    }
    let mut rules = Vec::new();
    if let Some(entry) = catalog::find(source, ns).await?.filter(|entry| entry.options.contains_key("clusteredIndex")) {
        rules.extend(seconds(&entry.options).map(|seconds| rule("_id", seconds, doc! {})));
    }
    for index in index_spec::list(source, ns).await? {
        let field = index.get_document("key").ok().and_then(|key| key.keys().next().cloned());
        let filter = index.get_document("partialFilterExpression").cloned().unwrap_or_default();
        rules.extend(field.zip(seconds(&index)).map(|(field, seconds)| rule(&field, seconds, filter)));
    }
    Ok(rules)
}

/// Which of `ids` the destination has as documents that had expired at `time`, or hasn't: where it expires documents by
/// itself too, it was the first.
async fn expired(
    destination: &Cluster,
    target: &Target,
    ids: &[Bson],
    rules: &[Document],
    time: Timestamp,
) -> Result<Vec<Vec<u8>>, Failure> {
    let at = i64::from(time.time) * 1_000 + CLOCK_MILLIS;
    let any = rules.iter().filter_map(|rule| {
        let until = bson::DateTime::from_millis(at - rule.get_i64("seconds").ok()?.saturating_mul(1_000));
        let old = doc! {rule.get_str("field").ok()?: {"$lte": until}};
        Some(doc! {"$and": [old, rule.get_document("filter").ok()?.clone()]})
    });
    let any: Vec<Document> = any.collect();
    let find = async |wanted: Document| -> Result<HashSet<Vec<u8>>, Failure> {
        let command = doc! {"find": &target.ns.coll, "filter": wanted, "projection": {"_id": 1}};
        let read = async {
            let cursor = destination.db(&target.ns.db).run_cursor_command(command).await?;
            cursor.try_collect::<Vec<Document>>().await
        };
        let found = read.await.map_err(|e| destination.failure(&e))?;
        Ok(found.iter().filter_map(|document| canonical(document.get("_id")?, target)).collect())
    };
    let these = doc! {"_id": {"$in": ids}};
    let present = find(these.clone()).await?;
    let old = find(doc! {"$and": [these, {"$or": any}]}).await?;
    let all = ids.iter().filter_map(|id| canonical(id, target));
    Ok(all.filter(|id| old.contains(id) || !present.contains(id)).collect())
}

fn canonical(id: &Bson, target: &Target) -> Option<Vec<u8>> {
    let document = RawDocumentBuf::try_from(&doc! {"_id": id.clone()}).ok()?;
    Some(raw_bson::canonical_id(raw_value::id_of(&document)?, target.folds))
}

/// For how long back it is known what was written.
const WINDOW: Duration = Duration::from_secs(5);

/// What was lately written to the source, as it was applied. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<VecDeque<(Instant, Namespace, Written)>>>);

/// How often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub changes: u64,
    /// Deletions, which may be those of what expires.
    pub deletions: u64,
}

impl Recent {
    pub fn add(&self, ns: &Namespace, written: Written) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while held.front().is_some_and(|(at, ..)| now.duration_since(*at) > WINDOW) {
            held.pop_front();
        }
        match held.iter_mut().rev().take(64).find(|(at, own, _)| own == ns && now.duration_since(*at) < WINDOW / 20) {
            Some((_, _, known)) => {
                known.changes += written.changes;
                known.deletions += written.deletions;
            }
            None => held.push_back((now, ns.clone(), written)),
        }
    }

    /// Within the last [`WINDOW`] and since `since`, by namespace.
    pub fn lately(&self, since: Option<Instant>) -> BTreeMap<Namespace, Written> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeMap<Namespace, Written> = BTreeMap::new();
        let counts = |at: Instant| at.elapsed() <= WINDOW && since.is_none_or(|since| at >= since);
        for (_, ns, written) in held.iter().filter(|(at, ..)| counts(*at)) {
            let own = all.entry(ns.clone()).or_default();
            own.changes += written.changes;
            own.deletions += written.deletions;
        }
        all
    }
}

/// For how long writes are counted.
const COUNTED: Duration = Duration::from_secs(1);

/// What is written to the source now, and by whom, in words; `None` if nothing is: if nothing was for a whole [`WINDOW`].
/// Deletions where documents expire are left out: most likely they are the source's own. Everything that was written
/// before must be applied.
pub(crate) async fn written_now(source: &Cluster, recent: &Recent) -> Result<Option<String>, Failure> {
    let began = Instant::now();
    let (busy, within) = loop {
        if busy(source, recent.lately(None)).await?.is_empty() {
            return Ok(None);
        }
        let within = began.elapsed();
        let busy = if within >= COUNTED { busy(source, recent.lately(Some(began))).await? } else { Vec::new() };
        if !busy.is_empty() {
            break (busy, within);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let rate = |(count, ns): &(u64, Namespace)| match (*count as f64 / within.as_secs_f64()) as u64 {
        0 => format!("{ns} {count} writes in {} seconds", within.as_secs()),
        a_second => format!("{ns} {a_second} writes a second"),
    };
    let mut named: Vec<String> = busy.iter().take(10).map(rate).collect();
    if busy.len() > 10 {
        named.push(format!("and {} more namespaces", busy.len() - 10));
    }
    let who = match writers(source).await? {
        Ok(who) => who,
        Err(why) => format!("which clients write is not known: {why}"),
    };
    Ok(Some(format!("{}; {who}", named.join(", "))))
}

/// What an application wrote of this, the most first.
async fn busy(source: &Cluster, lately: BTreeMap<Namespace, Written>) -> Result<Vec<(u64, Namespace)>, Failure> {
    let mut busy: Vec<(u64, Namespace)> = Vec::new();
    for (ns, written) in lately {
        let expires = written.changes == 0 && !what_expires(source, &ns).await?.is_empty();
        let count = written.changes + if expires { 0 } else { written.deletions };
        if count > 0 {
            busy.push((count, ns));
        }
    }
    busy.sort_by(|a, b| b.cmp(a));
    Ok(busy)
}

/// Looks at what is under way, and how often.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which clients write, in words: those that were seen doing so; if none was, all that are connected.
async fn writers(source: &Cluster) -> Result<Seen<String>, Failure> {
    let names = ["insert", "update", "delete", "findAndModify", "findandmodify", "bulkWrite", "commitTransaction"];
    let mut any: Vec<Document> = names.iter().map(|name| doc! {format!("command.{name}"): {"$exists": true}}).collect();
    any.push(doc! {"op": {"$in": ["insert", "update", "remove"]}});
    let ours = doc! {"ns": {"$not": {"$regex": r"^(local|config|admin)\."}}, "client": {"$exists": true}, "$or": any};
    let mut seen = BTreeSet::new();
    for look in 0..LOOKS {
        match current_op::operations(source, ours.clone(), false).await? {
            Ok(found) => seen.extend(found.iter().map(current_op::client_of)),
            Err(why) => return Ok(Err(why)),
        }
        if look + 1 < LOOKS {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    if !seen.is_empty() {
        return Ok(Ok(format!("clients seen writing: {}", current_op::listed(&seen))));
    }
    let connected = doc! {"client": {"$exists": true}, "appName": {"$exists": true, "$nin": [
        "OplogFetcher", "NetworkInterfaceTL-ReplNetwork", "MongoDB Internal Client", "",
    ]}};
    let found = current_op::operations(source, connected, true).await?;
    Ok(found.map(|found| {
        let all: BTreeSet<String> = found.iter().map(current_op::client_of).collect();
        match all.is_empty() {
            true => "no client was seen writing".to_owned(),
            false => format!("none was seen writing just then; connected are {}", current_op::listed(&all)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_lately_is_counted_by_namespace() {
        let (recent, ns) = (Recent::default(), Namespace::new("app", "c"));
        recent.add(&ns, Written { changes: 3, deletions: 1 });
        recent.add(&Namespace::new("app", "d"), Written { changes: 0, deletions: 2 });
        recent.add(&ns, Written { changes: 4, deletions: 0 });
        let lately = recent.lately(None);
        assert_eq!(lately.get(&ns), Some(&Written { changes: 7, deletions: 1 }));
        assert_eq!(lately.len(), 2);
    }
}
