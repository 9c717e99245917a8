//! Random workloads, before, during and after the copy.
//!
//! `LIMOSA_SEED=n` runs one seed, `LIMOSA_OPERATIONS=n` says how many operations a seed has. A seed that fails is run
//! again and again with fewer operations, and the shortest list that still fails is told.

use crate::support::{Pair, Run, hold_reads, settings};
use bson::doc;
use limosa_model::PhaseKind;
use limosa_testkit::{
    compare,
    random::{self, Operation, Tally, When},
    tool,
};
use std::{env, sync::Arc};

/// Operations of one seed.
const OPERATIONS: usize = 800;

/// The only collection of a database that the copy reads first; no operation names it.
pub const HELD: &str = "held";

/// That database, beside these.
pub fn first_db(dbs: &[String; 2]) -> String {
    format!("0{}", dbs[0])
}

/// How often a seed that failed is run again.
const TRIES: usize = 40;

pub fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

/// One migration under these operations; an error is what came out wrong.
async fn migrate(pair: &Pair, dbs: &[String; 2], operations: &[Operation]) -> Result<Tally, limosa_testkit::Error> {
    let Pair { source, destination, from, to } = pair;
    let happen = async |when: When| random::run(from, operations.iter().filter(|o| o.when == when)).await;
    let mut tally = happen(When::Before).await?;
    let mut count = |one: Tally| {
        tally = Tally { accepted: tally.accepted + one.accepted, refused: tally.refused + one.refused };
    };
    // The copy goes by name, and this collection holds its only worker.
    from.database(&first_db(dbs)).collection(HELD).insert_one(doc! {"_id": 1}).await?;
    let held = format!("{}.{HELD}", first_db(dbs));
    hold_reads(from, &held, true).await;
    let dir = tempfile::tempdir()?;
    let mut settings = settings(source, destination, dir.path());
    settings.filter.include =
        [&first_db(dbs), &dbs[0], &dbs[1]].iter().map(|db| format!("{db}.*").parse()).collect::<Result<_, _>>()?;
    settings.tuning.copy_workers = 1;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Copying).await;
    count(happen(When::Held).await?);
    hold_reads(from, &held, false).await;
    count(happen(When::Meanwhile).await?);
    run.reach(PhaseKind::Synced).await;
    count(happen(When::After).await?);
    run.cut_over().await;
    compare(from, to, &[&dbs[0], &dbs[1]]).await?;
    Ok(tally)
}

/// The same in databases of its own, whatever the engine does: what came out wrong, if anything did.
async fn attempt(
    pair: &Arc<Pair>,
    seed: u64,
    count: usize,
    kept: Option<&[usize]>,
    attempt: usize,
) -> Result<Tally, String> {
    let dbs = [format!("random{seed}_{attempt}_a"), format!("random{seed}_{attempt}_b")];
    let mut operations = random::generate(seed, count, &dbs);
    if let Some(kept) = kept {
        operations = kept.iter().map(|n| operations[*n].clone()).collect();
    }
    let own = Arc::clone(pair);
    let own_dbs = dbs.clone();
    let migrated = tokio::spawn(async move { migrate(&own, &own_dbs, &operations).await.map_err(|e| e.to_string()) });
    let outcome = migrated.await.unwrap_or_else(|panic| Err(panic.to_string()));
    hold_reads(&pair.from, &format!("{}.{HELD}", first_db(&dbs)), false).await;
    if outcome.is_ok() {
        for db in [&first_db(&dbs), &dbs[0], &dbs[1]] {
            pair.from.database(db).drop().await.expect("drops");
            pair.to.database(db).drop().await.expect("drops");
        }
    }
    outcome
}

async fn run_seed(pair: &Arc<Pair>, seed: u64) {
    let count = number("LIMOSA_OPERATIONS").unwrap_or(OPERATIONS);
    let began = std::time::Instant::now();
    let wrong = match attempt(pair, seed, count, None, 0).await {
        Ok(tally) => {
            eprintln!("seed {seed}: {tally:?} in {:?}", began.elapsed());
            assert!(tally.accepted > tally.refused, "the workload was mostly refused: {tally:?}");
            return;
        }
        Err(wrong) => wrong,
    };
    eprintln!("seed {seed} failed, looking for fewer operations that do: {wrong}");
    let mut tries = 0;
    let tries_allowed = number("LIMOSA_TRIES").unwrap_or(TRIES);
    let kept = random::shrink(count, tries_allowed, async |kept| {
        tries += 1;
        attempt(pair, seed, count, Some(kept), tries).await.is_err()
    })
    .await;
    let all = random::generate(seed, count, &["a".to_owned(), "b".to_owned()]);
    let told: Vec<String> = kept.iter().map(|n| all[*n].to_string()).collect();
    panic!("LIMOSA_SEED={seed}: {wrong}\n{} operations are enough:\n{}", kept.len(), told.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_arrives_whatever_it_does() {
    let seeds = match number("LIMOSA_SEED") {
        Some(seed) => seed..seed + 1,
        None if tool::in_full() => 1..21,
        None => 1..4,
    };
    let pair = Arc::new(Pair::start().await);
    for seed in seeds {
        eprintln!("random workload, seed {seed}");
        run_seed(&pair, seed).await;
    }
}
