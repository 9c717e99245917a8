//! Catching up on updates that were made while nothing was read, beside a secondary that was down meanwhile. Both are
//! timed from the moment at which a document written before the updates is there to that at which one written after
//! them is.

use super::{
    Arguments, anchor,
    data::{COLL, DB, load},
    program::Migration,
    report::{Measured, Report, Target},
};
use bson::{Document, doc};
use limosa_testkit::Error;
use mongodb::Client;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;

/// Updates a command.
const BATCH: u64 = 1000;

pub(crate) async fn measure(arguments: &Arguments, hot: bool, report: &mut Report) -> Result<(), Error> {
    let name = if hot { "hot" } else { "catchup" };
    let (mut ours, mut native) = (Vec::new(), Vec::new());
    let mut memory = Vec::new();
    let oplog_mb = (arguments.gb * 3000.0) as u32 + 4000;
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
        anchor::mark(&client, &format!("before{run}")).await?;
        let seed = arguments.seed + run as u64;
        update(&client, loaded.documents, arguments.updates, hot, seed).await?;
        anchor::mark(&client, &format!("after{run}")).await?;
        {
            source.restart(secondary).await?;
            let direct = source.direct_client(secondary).await?;
            let began = anchor::mark_seen(&direct, &format!("before{run}")).await?;
            let ended = anchor::mark_seen(&direct, &format!("after{run}")).await?;
            native.push(arguments.updates as f64 / (ended - began).as_secs_f64());
        }
        migration.verb(&["resume"])?;
        let began = anchor::mark_seen(&to, &format!("before{run}")).await?;
        let ended = anchor::mark_seen(&to, &format!("after{run}")).await?;
        ours.push(arguments.updates as f64 / (ended - began).as_secs_f64());
        memory.push(migration.peak_megabytes());
    }
    let (ours, native) = (Measured(ours), Measured(native));
    report.figure(name, "change replication", "updates/s", &ours, None);
    report.figure(name, "a secondary", "updates/s", &native, None);
    let target = if hot { Target::AtLeast(4.0) } else { Target::AtLeast(1.4) };
    report.ratio(name, "change replication", &ours, ("a secondary", &native), target);
    report.figure(name, "memory, peak", "MB", &Measured(memory), Some(Target::AtMost(256.0)));
    Ok(())
}

/// Small deltas on documents chosen evenly, or nine of ten on a hundredth of them.
pub(crate) async fn update(client: &Client, documents: u64, updates: u64, hot: bool, seed: u64) -> Result<(), Error> {
    let mut writers = JoinSet::new();
    const WRITERS: u64 = 4;
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed ^ (writer << 40));
            let mut left = updates / WRITERS;
            while left > 0 {
                let statements: Vec<Document> = (0..left.min(BATCH))
                    .map(|_| {
                        let among =
                            if hot && random.random_range(0..10) < 9 { (documents / 100).max(1) } else { documents };
                        let id = random.random_range(0..among) as i64;
                        let value = random.random_range(0..i64::MAX);
                        doc! {"q": {"_id": id}, "u": {"$inc": {"n": 1_i64}, "$set": {"touched": value}}}
                    })
                    .collect();
                left -= statements.len() as u64;
                let command = doc! {"update": COLL, "updates": statements, "ordered": false, "writeConcern": {"w": 1}};
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
