//! The verifier on its own: compares two clusters after, or beside, whatever tool moved the data. Writes nothing.

use crate::{
    copy::plan,
    mongo::{
        catalog::{self, Entry, Uuid},
        cluster::Cluster,
        definition_diff,
        index_spec::IndexPhase,
        side::Side,
    },
    retry::Backoff,
    verify::{
        capped_order,
        collection_pair::{ClusterPair, CollectionPair, Interval, ScanTotals, intervals},
        dirty_set::{self, DirtySet},
        id_lookup::{self, explain, look_up},
    },
};
use bson::{RawDocumentBuf, doc};
use futures::FutureExt;
use limosa_model::{
    ErrorCode, Failure, Namespace, NamespaceFilter, Secret, Timestamp,
    verification::{DifferenceKind, NamespaceVerification, VerificationReport},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

/// Differing documents of one namespace that are named.
const NAMED: usize = 20;

/// How often a document that continues changing is looked at again before it counts as different.
const MOST_ROUNDS: u32 = 10;

/// Documents in hand at once.
const IN_HAND: usize = 50_000;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// One side.
    pub source_uri: Secret,
    /// The other.
    pub destination_uri: Secret,
    /// Which namespaces.
    pub filter: NamespaceFilter,
    /// Compare about this share of the documents, chosen at random, instead of all: more than 0, at most 100.
    pub sample_percent: Option<f64>,
    /// Only what still differs after so many seconds counts.
    pub settle_seconds: u64,
    /// Where what has to be looked at again is kept meanwhile.
    pub work_dir: PathBuf,
    /// Ranges that are compared side by side.
    pub workers: usize,
}

/// How far a comparison is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyProgress {
    /// Documents to compare, as the source estimates.
    pub documents_total: u64,
    /// Documents compared.
    pub documents_compared: u64,
    /// Documents that seem to differ and will be looked at again.
    pub suspects: u64,
    /// What is compared just now.
    pub namespace: String,
}

/// See [`crate::verify`].
pub(crate) async fn run(
    options: &VerifyOptions,
    progress: &watch::Sender<VerifyProgress>,
) -> Result<VerificationReport, Failure> {
    let began = Timestamp::now();
    let (source, destination) = tokio::join!(
        Cluster::connect(Side::Source, &options.source_uri),
        Cluster::connect(Side::Destination, &options.destination_uri)
    );
    let (source, destination) = (source?, destination?);
    if let Some(failure) = crate::mongo::cluster::same_cluster(&source, &destination) {
        return Err(failure);
    }
    let ends = ClusterPair::new(source, destination);
    let mut verified: BTreeMap<Namespace, NamespaceVerification> = BTreeMap::new();

    // What both sides define.
    let pairs = pairs(&ends, &options.filter).await?;
    for pair in &pairs {
        verified.entry(pair.source.clone()).or_default();
    }

    // What they hold, range by range.
    let dirty = DirtySet::open(&options.work_dir)?;
    let scanned = scan(&ends, options, &pairs, &dirty, progress).await?;
    for (ns, counted) in scanned {
        let of = verified.entry(ns).or_default();
        (of.documents_compared, of.bytes_compared) = (counted.compared, counted.bytes);
        of.digest = Some(format!("{:032x}", counted.digest));
    }

    // What seemed to differ, until it is equal or stays different.
    settle(&ends, options, &pairs, &dirty, &mut verified).await?;
    order(&ends, options, &pairs, &mut verified).await?;
    for (ns, departures) in definitions(&ends, options).await? {
        let of = verified.entry(ns).or_default();
        (of.options, of.indexes) = (departures.options, departures.indexes);
    }

    let version = |v: (u32, u32, u32)| format!("{}.{}.{}", v.0, v.1, v.2);
    let namespaces: Vec<NamespaceVerification> = verified
        .into_iter()
        .map(|(ns, found)| NamespaceVerification {
            namespace: ns.to_string(),
            // What was found different isn't in it, nor is all of a sample's collection.
            digest: found.digest.clone().filter(|_| found.is_equal() && options.sample_percent.is_none()),
            ..found
        })
        .collect();
    Ok(VerificationReport {
        equal: namespaces.iter().all(NamespaceVerification::is_equal),
        began_at: began.rfc3339(),
        ended_at: Timestamp::now().rfc3339(),
        source_version: version(ends.source.version),
        destination_version: version(ends.destination.version),
        sample_percent: options.sample_percent,
        settle_seconds: options.settle_seconds,
        namespaces,
    })
}

/// Every collection of either side that has documents.
async fn pairs(ends: &ClusterPair, filter: &NamespaceFilter) -> Result<Vec<CollectionPair>, Failure> {
    let (want, have) = (catalog::list(&ends.source, filter).await?, catalog::list(&ends.destination, filter).await?);
    let holding = |entries: &[Entry]| -> BTreeMap<Namespace, Entry> {
        entries.iter().filter(|e| e.has_documents()).map(|e| (e.ns.clone(), e.clone())).collect()
    };
    let mut all = holding(&have);
    for (ns, entry) in &mut all {
        // Only on the destination: there is no collection on the source to hold to.
        entry.uuid = None;
        debug_assert_eq!(ns, &entry.ns);
    }
    all.extend(holding(&want));
    Ok(all.values().map(|entry| CollectionPair::of(entry, &entry.ns)).collect())
}

async fn definitions(
    ends: &ClusterPair,
    options: &VerifyOptions,
) -> Result<BTreeMap<Namespace, definition_diff::Departures>, Failure> {
    let compare = || definition_diff::compare(&ends.source, &ends.destination, &options.filter, IndexPhase::Final);
    let found = compare().await?;
    if found.is_empty() || options.settle_seconds == 0 {
        return Ok(found);
    }
    tokio::time::sleep(Duration::from_secs(options.settle_seconds)).await;
    compare().await
}

/// One thing to compare.
#[derive(Clone)]
struct Share {
    pair: Arc<CollectionPair>,
    interval: Interval,
}

async fn scan(
    ends: &ClusterPair,
    options: &VerifyOptions,
    pairs: &[CollectionPair],
    dirty: &DirtySet,
    progress: &watch::Sender<VerifyProgress>,
) -> Result<HashMap<Namespace, ScanTotals>, Failure> {
    let mut shares = VecDeque::new();
    for pair in pairs {
        let size = plan::size(&ends.source, &pair.source).await?;
        progress.send_modify(|p| p.documents_total += size.documents as u64);
        let intervals = match options.sample_percent {
            Some(_) => vec![Interval::default()],
            None => intervals(&ends.source, pair, size).await?,
        };
        let pair = Arc::new(pair.clone());
        shares.extend(intervals.into_iter().map(|interval| Share { pair: Arc::clone(&pair), interval }));
    }
    let shares = Arc::new(Mutex::new(shares));
    let mut tasks: JoinSet<Result<Vec<(Namespace, ScanTotals)>, Failure>> = JoinSet::new();
    for _ in 0..options.workers.max(1) {
        let (ends, shares, dirty, progress) = (ends.clone(), Arc::clone(&shares), dirty.clone(), progress.clone());
        let sample = options.sample_percent;
        tasks.spawn(async move {
            let mut all = Vec::new();
            loop {
                let next = shares.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(share) = next else { return Ok(all) };
                progress.send_modify(|p| p.namespace = share.pair.source.to_string());
                let counted = one(&ends, &share, sample, &dirty).await?;
                progress.send_modify(|p| {
                    p.documents_compared += counted.compared;
                    p.suspects = dirty.len();
                });
                all.push((share.pair.source.clone(), counted));
            }
        });
    }
    let mut sums: HashMap<Namespace, ScanTotals> = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(|e| Failure::new(ErrorCode::Internal, format!("a comparison ended: {e}")))??;
        done.into_iter().for_each(|(ns, counted)| sums.entry(ns).or_default().add(counted));
    }
    Ok(sums)
}

/// Compares one share, from its beginning again where a connection breaks.
async fn one(ends: &ClusterPair, share: &Share, sample: Option<f64>, dirty: &DirtySet) -> Result<ScanTotals, Failure> {
    let uuid = pseudo_uuid(&share.pair);
    let mut suspect = |id: RawDocumentBuf| {
        let second = (Timestamp::now().0 / 1000) as u32;
        dirty.suspect(dirty_set::key(uuid, &id_lookup::key(&id)), &id, second)
    };
    let mut backoff = Backoff::default();
    loop {
        let go_on = || futures::future::ready(()).boxed();
        let counted = match sample {
            Some(percent) => {
                id_lookup::both_ways(ends, &share.pair, Some(&self::share(percent)), &mut suspect, &go_on).await
            }
            None => ends.scan(&share.pair, &share.interval, &mut suspect, &go_on).await,
        };
        match counted {
            Ok(counted) => return Ok(counted),
            Err(broken) if ends.again(&broken, &mut backoff).await? => {}
            // The comparison of definitions tells.
            Err(_) => return Ok(ScanTotals::default()),
        }
    }
}

/// Sees whether capped collections' documents stand in the same order.
async fn order(
    ends: &ClusterPair,
    options: &VerifyOptions,
    pairs: &[CollectionPair],
    verified: &mut BTreeMap<Namespace, NamespaceVerification>,
) -> Result<(), Failure> {
    let filter = options.sample_percent.map(share);
    let look = async |pair: &CollectionPair| {
        let mut backoff = Backoff::default();
        loop {
            match capped_order::first_swapped(ends, pair, filter.as_ref(), &|| futures::future::ready(()).boxed()).await
            {
                Ok(swapped) => return Ok(swapped),
                Err(broken) if ends.again(&broken, &mut backoff).await? => {}
                Err(_) => return Ok(None),
            }
        }
    };
    for pair in pairs.iter().filter(|pair| pair.is_capped) {
        let mut swapped = look(pair).await?;
        if swapped.is_some() && options.settle_seconds > 0 {
            tokio::time::sleep(Duration::from_secs(options.settle_seconds)).await;
            swapped = look(pair).await?;
        }
        if let Some(swapped) = swapped {
            verified.entry(pair.source.clone()).or_default().out_of_order =
                swapped.ids().map(bson::Bson::into_relaxed_extjson).to_vec();
        }
    }
    Ok(())
}

/// Picks about so many of a hundred documents.
fn share(percent: f64) -> bson::Document {
    doc! {"$sampleRate": percent / 100.0}
}

/// What stands for the collection in the set: its name, since either side may lack it.
fn pseudo_uuid(pair: &CollectionPair) -> Uuid {
    xxhash_rust::xxh3::xxh3_128(pair.source.to_string().as_bytes()).to_be_bytes()
}

/// Looks at the suspects until each is equal, or differs and has stopped changing.
async fn settle(
    ends: &ClusterPair,
    options: &VerifyOptions,
    pairs: &[CollectionPair],
    dirty: &DirtySet,
    verified: &mut BTreeMap<Namespace, NamespaceVerification>,
) -> Result<(), Failure> {
    let by_uuid: HashMap<Uuid, &CollectionPair> = pairs.iter().map(|pair| (pseudo_uuid(pair), pair)).collect();
    let broken = |broken| ends.failure(&broken);
    loop {
        let taken = dirty.take(IN_HAND, u32::MAX)?;
        if taken.is_empty() {
            return Ok(());
        }
        let mut groups: HashMap<Uuid, Vec<dirty_set::Entry>> = HashMap::new();
        taken.iter().for_each(|entry| groups.entry(entry.uuid()).or_default().push(entry.clone()));
        for (uuid, mut entries) in groups {
            let Some(pair) = by_uuid.get(&uuid) else { continue };
            let look = async |entries: &[dirty_set::Entry]| {
                let ids: Vec<RawDocumentBuf> = entries.iter().map(|e| e.id.clone()).collect();
                look_up(ends, pair, &ids).await.map_err(broken)
            };
            let mut seen = look(&entries).await?;
            for _ in 0..MOST_ROUNDS {
                let unequal: Vec<bool> = seen.iter().map(|s| !s.is_equal()).collect();
                let mut keep = unequal.iter();
                entries.retain(|_| *keep.next().unwrap_or(&false));
                seen.retain(|s| !s.is_equal());
                if entries.is_empty() || options.settle_seconds == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(options.settle_seconds)).await;
                let again = look(&entries).await?;
                let moving = again.iter().zip(&seen).any(|(now, before)| now != before && !now.is_equal());
                seen = again;
                if !moving {
                    let mut keep = seen.clone().into_iter();
                    entries.retain(|_| keep.next().is_some_and(|s| !s.is_equal()));
                    seen.retain(|s| !s.is_equal());
                    break;
                }
            }
            let of = verified.entry(pair.source.clone()).or_default();
            for (entry, seen) in entries.iter().zip(&seen) {
                match seen.departure() {
                    Some(DifferenceKind::Missing) => of.missing += 1,
                    Some(DifferenceKind::Extra) => of.extra += 1,
                    Some(_) => of.different += 1,
                    None => {}
                }
                if of.differences.len() < NAMED {
                    of.differences.extend(explain(ends, pair, &entry.id).await.map_err(broken)?);
                }
            }
        }
        for entry in &taken {
            dirty.conclude(entry, true)?;
        }
    }
}
