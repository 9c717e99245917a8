//! Catching up on updates that were made while nothing was read, beside a secondary that was down meanwhile. Both are
//! timed from the moment at which a document written before the updates is there to that at which one written after
//! them is. What reading the changes and nothing else takes, and writing them, is measured too.

use super::{
    Arguments, anchor,
    data::{COLL, DB, load},
    program::{Migration, cpu_seconds},
    report::{Measured, Report, Target},
};
use bson::{Document, doc};
use limosa_testkit::{Error, ReplicaSet};
use mongodb::{Client, options::WriteConcern};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::time::Instant;
use tokio::task::JoinSet;

/// Updates a command.
const BATCH: usize = 1000;

pub(crate) async fn measure(arguments: &Arguments, hot: bool, report: &mut Report) -> Result<(), Error> {
    let name = if hot { "hot" } else { "catchup" };
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    let mut processor: [Vec<f64>; 4] = Default::default();
    let micros = |seconds: f64| seconds * 1e6 / arguments.updates as f64;
    let (mut reading, mut writing) = (Vec::new(), Vec::new());
    let mut memory = Vec::new();
    // It has to hold the updates, and nothing of what was there before.
    let oplog_mb = 4000;
    for run in 0..arguments.runs {
        let mut source = arguments.server(3, oplog_mb).await?;
        let primary = source.primary_index().await?;
        let secondary = (0..3).find(|index| *index != primary).ok_or("no secondary")?;
        let client = source.client().await;
        let loaded = load(&client, arguments.shape, arguments.seed, arguments.bytes()).await?;
        let destination = arguments.server(1, oplog_mb).await?;
        let to = destination.client().await;
        let mut migration = Migration::start(&source, &destination, &arguments.with())?;
        migration.until("readyForCutover").await?;
        migration.verb(&["pause"])?;
        migration.until("paused").await?;
        source.kill(secondary);
        let since = anchor::time(&client).await?;
        anchor::mark(&client, &format!("before{run}")).await?;
        let seed = arguments.seed + run as u64;
        update(&client, loaded.documents, arguments.updates, hot, seed).await?;
        anchor::mark(&client, &format!("after{run}")).await?;
        {
            source.restart(secondary).await?;
            let direct = source.direct_client(secondary).await?;
            let began = anchor::mark_seen(&direct, &format!("before{run}")).await?;
            let before = spent(&source, 3);
            let ended = anchor::mark_seen(&direct, &format!("after{run}")).await?;
            processor[0].push(micros(spent(&source, 3) - before));
            native.push(arguments.updates as f64 / (ended - began).as_secs_f64());
        }
        migration.verb(&["resume"])?;
        let began = anchor::mark_seen(&to, &format!("before{run}")).await?;
        let by_now = || [spent(&source, 3), spent(&destination, 1), migration.cpu_seconds()];
        let before = by_now();
        let ended = anchor::mark_seen(&to, &format!("after{run}")).await?;
        for (taken, (after, before)) in processor[1..].iter_mut().zip(by_now().into_iter().zip(before)) {
            taken.push(micros(after - before));
        }
        ours.push(arguments.updates as f64 / (ended - began).as_secs_f64());
        memory.push(migration.peak_megabytes());
        // Nothing of it is left open on the destination then.
        migration.until("readyForCutover").await?;
        drop(migration);
        reading.push(arguments.updates as f64 / anchor::pure_read(&client, since, arguments.updates + 2).await?);
        let wrote = pure_update(&to, loaded.documents, arguments.updates, hot, seed).await?;
        writing.push(arguments.updates as f64 / wrote);
    }
    let (ours, native) = (Measured(ours), Measured(native));
    report.figure(name, "change replication", "updates/s", &ours, None);
    report.figure(name, "a secondary", "updates/s", &native, None);
    report.figure(name, "reading the change stream", "updates/s", &Measured(reading), None);
    report.figure(name, "writing them in transactions", "updates/s", &Measured(writing), None);
    let whose = ["a secondary and its source", "source", "destination", "Limosa"];
    for (whose, taken) in whose.into_iter().zip(processor) {
        report.figure(name, &format!("processor for each update, {whose}"), "µs", &Measured(taken), None);
    }
    let target = if hot { Target::AtLeast(4.0) } else { Target::AtLeast(1.4) };
    report.ratio(name, "change replication", &ours, ("a secondary", &native), target);
    report.figure(name, "memory, peak", "MB", &Measured(memory), Some(Target::AtMost(256.0)));
    Ok(())
}

/// Processor seconds that the members have taken by now.
fn spent(set: &ReplicaSet, members: usize) -> f64 {
    (0..members).filter_map(|index| set.pid(index)).map(cpu_seconds).sum()
}

/// Writers of [`update`].
const WRITERS: u64 = 4;

/// What one of them writes.
fn statements(documents: u64, updates: u64, hot: bool, seed: u64, writer: u64) -> impl Iterator<Item = Document> {
    let mut random = SmallRng::seed_from_u64(seed ^ (writer << 40));
    (writer..updates).step_by(WRITERS as usize).map(move |_| {
        let among = if hot && random.random_range(0..10) < 9 { (documents / 100).max(1) } else { documents };
        let id = random.random_range(0..among) as i64;
        let value = random.random_range(0..i64::MAX);
        doc! {"q": {"_id": id}, "u": {"$inc": {"n": 1_i64}, "$set": {"touched": value}}}
    })
}

/// Small deltas on documents chosen evenly, or nine of ten on a hundredth of them.
async fn update(client: &Client, documents: u64, updates: u64, hot: bool, seed: u64) -> Result<(), Error> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            let mut left = statements(documents, updates, hot, seed, writer).peekable();
            while left.peek().is_some() {
                let updates: Vec<Document> = left.by_ref().take(BATCH).collect();
                let command = doc! {"update": COLL, "updates": updates, "ordered": false, "writeConcern": {"w": 1}};
                client.database(DB).run_command(command).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

/// Seconds to write the same from memory with as many sessions and as large transactions as change replication has, each
/// of other documents: what nothing that writes each of them over the wire can beat.
async fn pure_update(client: &Client, documents: u64, updates: u64, hot: bool, seed: u64) -> Result<f64, Error> {
    const SESSIONS: usize = 8;
    const TRANSACTION: usize = 2000;
    let mut shares = vec![Vec::new(); SESSIONS];
    for statement in (0..WRITERS).flat_map(|writer| statements(documents, updates, hot, seed, writer)) {
        let id = statement.get_document("q")?.get_i64("_id")?;
        shares[id as usize % SESSIONS].push(statement);
    }
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for share in shares {
        let client = client.clone();
        writers.spawn(async move {
            let mut session = client.start_session().await?;
            for updates in share.chunks(TRANSACTION) {
                session.start_transaction().write_concern(WriteConcern::majority()).await?;
                let command = doc! {"update": COLL, "updates": updates};
                client.database(DB).run_command(command).session(&mut session).await?;
                session.commit_transaction().await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(began.elapsed().as_secs_f64())
}
