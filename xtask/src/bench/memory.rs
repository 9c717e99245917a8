//! Resident memory over a migration of many collections beside one large one.

use super::{
    Arguments,
    data::load,
    program::Migration,
    report::{Measured, Report, Target},
};
use bson::doc;
use limosa_testkit::Error;
use std::time::Instant;

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let oplog_mb = (arguments.gb * 3000.0) as u32 + 1000;
    let server = || arguments.set(1, oplog_mb).many_files().start();
    let (source, destination) = (server().await?, server().await?);
    let client = source.client().await;
    load(&client, arguments.shape, arguments.seed, arguments.bytes()).await?;
    let began = Instant::now();
    for n in 0..arguments.collections {
        client.database("many").collection(&format!("c{n}")).insert_one(doc! {"_id": n as i64, "n": n as i64}).await?;
    }
    println!("  {} collections made in {:.0} s", arguments.collections, began.elapsed().as_secs_f64());
    let with = [arguments.with(), vec!["--cutover", "when-ready"]].concat();
    let mut migration = Migration::start(&source, &destination, &with)?;
    let ended = migration.until("complete").await?;
    report.figure("memory", "migration", "s", &Measured(vec![(ended - migration.started).as_secs_f64()]), None);
    let peak = Measured(vec![migration.peak_megabytes()]);
    report.figure("memory", "resident, peak", "MB", &peak, Some(Target::AtMost(256.0)));
    let samples = migration.memory();
    let step = (samples.len() / 20).max(1);
    for (seconds, megabytes) in samples.iter().step_by(step) {
        println!("  {seconds:6.1} s  {megabytes:6.1} MB");
    }
    Ok(())
}
