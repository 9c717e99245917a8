//! Random workloads while answers are lost, primaries step down and engines die. A seed ends equal, or in a cutover that
//! was refused with a code; never complete and different.
//!
//! `LIMOSA_SEED=n` runs one seed, `LIMOSA_OPERATIONS=n` says how many operations a seed has, `LIMOSA_SOURCE` and
//! `LIMOSA_DESTINATION` which versions; `LIMOSA_FULL=1` runs a hundred seeds over all pairs of versions. What a seed does
//! is the same each time; when exactly an engine dies in it isn't.

use crate::{
    randomized::{HELD, first_db, number},
    support::{Pair, Run, hold_reads, settings},
};
use bson::{Document, doc};
use futures::{FutureExt, TryStreamExt};
use limosa_engine::{Outcome, Settings};
use limosa_model::{Failure, PhaseKind, protocol::Directive};
use limosa_testkit::{
    Error, ReplicaSet, compare,
    random::{
        self, Operation, When,
        faults::{self, Fault, Side},
    },
    tool,
};
use std::{collections::BTreeSet, env, panic::AssertUnwindSafe, time::Duration};

/// Operations of one seed.
const OPERATIONS: usize = 240;

/// How often a refused cutover is asked for again.
const CUTOVERS: usize = 6;

/// The versions of which every pair is tried in full, a source never newer than its destination.
const VERSIONS: [&str; 4] = ["4.4.2", "5.0.4", "6.0.5", "6.0.27"];

/// One migration whose engines die.
struct Hostile<'a> {
    pair: &'a Pair,
    settings: Settings,
    run: Option<Run>,
}

impl Hostile<'_> {
    fn run(&mut self) -> &mut Run {
        let settings = &self.settings;
        self.run.get_or_insert_with(|| Run::start(settings))
    }

    async fn happens(&mut self, fault: &Fault) -> Result<(), Error> {
        eprintln!("  {fault}");
        match fault {
            Fault::Kill => {
                if let Some(run) = self.run.take() {
                    run.kill().await;
                    self.settings.epoch = self.settings.epoch.next();
                }
                self.run();
            }
            Fault::Election(side) => faults::elect(self.client(*side)).await?,
            Fault::Command { side, name, how, times } => faults::fail(self.client(*side), name, *how, *times).await?,
        }
        Ok(())
    }

    fn client(&self, side: Side) -> &mongodb::Client {
        match side {
            Side::Source => &self.pair.from,
            Side::Destination => &self.pair.to,
        }
    }

    /// Drops an index that the destination's release doesn't take any more: 5.0 makes one with an expiry on a capped
    /// collection, from which it can't delete, and 6.0 doesn't.
    async fn do_what_is_told(&self, failure: &Failure) -> Result<(), Error> {
        let told = failure.message.strip_prefix("the destination can't build index ttl of ");
        let told = told.filter(|told| told.contains("Cannot create TTL index on a capped collection"));
        if let Some((db, coll)) = told.and_then(|told| told.split_once(": ")?.0.split_once('.')) {
            self.pair.from.database(db).run_command(doc! {"dropIndexes": coll, "index": "ttl"}).await?;
        }
        Ok(())
    }

    /// Does what is to happen `when`, and returns how much of it the source accepted.
    async fn meanwhile(&mut self, operations: &[Operation], when: When) -> Result<usize, Error> {
        let from = self.pair.from.clone();
        let chosen = operations.iter().filter(|operation| operation.when == when);
        Ok(random::run_with(&from, chosen, async |fault| self.happens(fault).await).await?.accepted)
    }

    /// Cuts over, as often as it takes; returns the codes of those that were refused.
    async fn cut_over(&mut self, operations: &[Operation]) -> Result<BTreeSet<&'static str>, Error> {
        let mut refused = BTreeSet::new();
        for _ in 0..CUTOVERS {
            self.run().order(Directive::Run);
            self.run().reach_quietly(PhaseKind::Synced).await;
            self.run().order(Directive::CutOver);
            if refused.is_empty() {
                self.meanwhile(operations, When::Cutover).await?;
                // An engine that was killed meanwhile is given the order again.
                if !matches!(self.run().report().phase, PhaseKind::Complete) {
                    self.run().order(Directive::CutOver);
                }
            }
            let report = self.run().end_or(|report| report.failure.is_some()).await;
            match report {
                Ok(Outcome::Complete) => {
                    self.run = None;
                    return Ok(refused);
                }
                Ok(other) => return Err(format!("ended with {other:?}").into()),
                Err(report) => {
                    let failure = report.failure.ok_or("no failure")?;
                    eprintln!("  refused: {failure}");
                    refused.insert(failure.code.name());
                    self.do_what_is_told(&failure).await?;
                }
            }
        }
        Err(format!("refused {CUTOVERS} times: {refused:?}").into())
    }
}

impl Drop for Hostile<'_> {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            run.abort();
        }
    }
}

/// One migration under these operations; an error is what came out wrong.
async fn migrate(pair: &Pair, dbs: &[String; 2], operations: &[Operation]) -> Result<String, Error> {
    let Pair { source, destination, from, to } = pair;
    let dir = tempfile::tempdir()?;
    let mut settings = settings(source, destination, dir.path());
    settings.filter.include = [&first_db(dbs), &dbs[0], &dbs[1]]
        .iter()
        .map(|db| format!("{db}.*").parse().map_err(|e| format!("{e:?}")))
        .collect::<Result<_, _>>()?;
    settings.tuning.copy_workers = 1;
    let mut hostile = Hostile { pair, settings, run: None };
    let mut accepted = hostile.meanwhile(operations, When::Before).await?;
    from.database(&first_db(dbs)).collection(HELD).insert_one(doc! {"_id": 1}).await?;
    let held = format!("{}.{HELD}", first_db(dbs));
    hold_reads(from, &held, true).await;
    hostile.run().reach(PhaseKind::Copying).await;
    accepted += hostile.meanwhile(operations, When::Held).await?;
    hold_reads(from, &held, false).await;
    accepted += hostile.meanwhile(operations, When::Meanwhile).await?;
    hostile.run().reach(PhaseKind::Synced).await;
    accepted += hostile.meanwhile(operations, When::After).await?;
    let refused = hostile.cut_over(operations).await?;
    compare(from, to, &[&dbs[0], &dbs[1]]).await?;
    Ok(format!("{accepted} operations, {} engines, refused first: {refused:?}", hostile.settings.epoch.0))
}

/// The same in databases of its own, with the servers as they were afterwards, whatever the engine does.
async fn attempt(pair: &Pair, seed: u64, operations: Vec<Operation>, dbs: &[String; 2]) -> Result<String, String> {
    let bound = Duration::from_secs(if tool::in_full() { 600 } else { 240 });
    let migrating = tokio::time::timeout(bound, migrate(pair, dbs, &operations));
    let outcome = match AssertUnwindSafe(migrating).catch_unwind().await {
        Ok(Ok(migrated)) => migrated.map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("it never ended".to_owned()),
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned())),
    };
    for client in [&pair.from, &pair.to] {
        faults::fail_no_more(client).await.expect("is set");
    }
    hold_reads(&pair.from, &format!("{}.{HELD}", first_db(dbs)), false).await;
    if outcome.is_err() {
        tell(pair, seed, dbs).await;
    }
    for db in [&first_db(dbs), &dbs[0], &dbs[1]] {
        pair.from.database(db).drop().await.expect("drops");
        pair.to.database(db).drop().await.expect("drops");
    }
    outcome
}

/// What is needed to see what went wrong: the source's definitions, both catalogs, and which collection is whose.
async fn tell(pair: &Pair, seed: u64, dbs: &[String; 2]) {
    eprintln!("seed {seed}, what there is:");
    for (side, client) in [("source", &pair.from), ("destination", &pair.to)] {
        for db in dbs {
            let listed = client.database(db).run_cursor_command(doc! {"listCollections": 1, "cursor": {}}).await;
            let listed: Vec<Document> = match listed {
                Ok(cursor) => cursor.try_collect().await.unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            for entry in listed {
                let (name, kind) =
                    (entry.get_str("name").unwrap_or_default(), entry.get_str("type").unwrap_or_default());
                let uuid = entry.get_document("info").ok().and_then(|info| info.get("uuid"));
                eprintln!("{side} {db}.{name} {kind} {uuid:?} {:?}", entry.get("options"));
            }
        }
    }
    let map = pair.to.database("__limosa").collection::<Document>("collections").find(doc! {}).await;
    if let Ok(map) = map {
        for pair in map.try_collect::<Vec<Document>>().await.unwrap_or_default() {
            eprintln!("pair {pair}");
        }
    }
    let of = doc! {"op": "c", "ns": {"$in": dbs.iter().map(|db| format!("{db}.$cmd")).collect::<Vec<_>>()}};
    let oplog = pair.from.database("local").collection::<Document>("oplog.rs").find(of).await;
    if let Ok(oplog) = oplog {
        for entry in oplog.try_collect::<Vec<Document>>().await.unwrap_or_default() {
            let text = format!("{:?} {:?} {:?}", entry.get("ts"), entry.get("ui"), entry.get("o"));
            eprintln!("oplog {}", text.chars().take(400).collect::<String>());
        }
    }
}

async fn run_seeds(versions: (&str, &str), seeds: impl Iterator<Item = u64>) {
    let count = number("LIMOSA_OPERATIONS").unwrap_or(OPERATIONS);
    let start = |version| ReplicaSet::builder().version(version).start();
    let (source, destination) = tokio::join!(start(versions.0), start(versions.1));
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let pair = Pair { source, destination, from, to };
    for seed in seeds {
        eprintln!("random workload with faults, {} to {}, seed {seed}", versions.0, versions.1);
        let dbs = [format!("faults{seed}_a"), format!("faults{seed}_b")];
        let operations = random::generate_with_faults(seed, count, &dbs);
        let began = std::time::Instant::now();
        match attempt(&pair, seed, operations.clone(), &dbs).await {
            Ok(told) => eprintln!("seed {seed}: {told}, in {:?}", began.elapsed()),
            Err(wrong) => {
                operations.iter().for_each(|operation| eprintln!("{operation}"));
                panic!(
                    "LIMOSA_SEED={seed} LIMOSA_OPERATIONS={count} LIMOSA_SOURCE={} LIMOSA_DESTINATION={}: {wrong}",
                    versions.0, versions.1
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_arrives_whatever_fails() {
    let named = |variable: &str| env::var(variable).unwrap_or_else(|_| "6.0.5".to_owned());
    let versions = (named("LIMOSA_SOURCE"), named("LIMOSA_DESTINATION"));
    if let Some(seed) = number::<u64>("LIMOSA_SEED") {
        let seeds = seed..seed + number::<u64>("LIMOSA_SEEDS").unwrap_or(1);
        return run_seeds((&versions.0, &versions.1), seeds).await;
    }
    if !tool::in_full() {
        run_seeds(("6.0.5", "6.0.5"), 1..5).await;
        return run_seeds(("5.0.4", "6.0.5"), 5..6).await;
    }
    let pairs = VERSIONS.iter().enumerate().flat_map(|(n, source)| VERSIONS[n..].iter().map(move |to| (*source, *to)));
    for (versions, first) in pairs.zip((1..).step_by(10)) {
        run_seeds(versions, first..first + 10).await;
    }
}
