//! A whole migration under writes, beside a dump that is piped into a restore, which does neither replication nor
//! verification nor a cutover.

use super::{
    Arguments,
    data::{COLL, DB, load},
    program::Migration,
    report::{Measured, Report, Target},
};
use bson::doc;
use limosa_testkit::{Error, ReplicaSet, workload::Workload};
use std::{
    process::{Command, Stdio},
    time::Instant,
};

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let oplog_mb = (arguments.gb * 3000.0) as u32 + 1000;
    let source = arguments.server(1, oplog_mb).await?;
    let client = source.client().await;
    load(&client, arguments.shape, arguments.seed, arguments.bytes()).await?;
    client
        .database(DB)
        .run_command(doc! {"createIndexes": COLL, "indexes": [{"key": {"n": 1}, "name": "n_1"}]})
        .await?;
    let tools = ["mongodump", "mongorestore"].iter().all(|tool| on_path(tool));
    let (mut ours, mut piped) = (Vec::new(), Vec::new());
    for run in 0..arguments.runs {
        let db = format!("load{run}");
        let writers = Workload::start(&client, &db, arguments.seed + run as u64, 2);
        if tools {
            let destination = arguments.server(1, oplog_mb).await?;
            piped.push(dump_and_restore(&source, &destination)?);
        }
        let destination = arguments.server(1, oplog_mb).await?;
        let mut migration = Migration::start(&source, &destination, &arguments.with())?;
        migration.until("readyForCutover").await?;
        writers.stop(&db).await?;
        migration.verb(&["cutover"])?;
        let ended = migration.until("complete").await?;
        ours.push((ended - migration.started).as_secs_f64());
    }
    let ours = Measured(ours);
    report.figure("migrate", "copy, indexes, catch-up, verification, cutover", "s", &ours, None);
    if tools {
        let piped = Measured(piped);
        report.figure("migrate", "mongodump | mongorestore", "s", &piped, None);
        report.ratio("migrate", "migration", &ours, ("mongodump | mongorestore", &piped), Target::AtMost(1.0));
    } else {
        report.missing("migrate", "mongodump | mongorestore", "not on PATH");
    }
    Ok(())
}

fn on_path(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn dump_and_restore(source: &ReplicaSet, destination: &ReplicaSet) -> Result<f64, Error> {
    let began = Instant::now();
    let mut dump = Command::new("mongodump")
        .args(["--quiet", "--archive", "--uri"])
        .arg(source.uri())
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = dump.stdout.take().ok_or("mongodump has no output")?;
    let restored = Command::new("mongorestore")
        .args(["--quiet", "--archive", "--uri"])
        .arg(destination.uri())
        .stdin(archive)
        .status()?;
    if !(dump.wait()?.success() && restored.success()) {
        return Err("mongodump | mongorestore failed".into());
    }
    Ok(began.elapsed().as_secs_f64())
}
