//! How long an application can't write: from its last acknowledged write on the source to the first one on the
//! destination, at a size and at four times that. The two must not differ by more than noise.

use super::{
    Arguments,
    anchor::POLL,
    data::{COLL, DB, load},
    program::Migration,
    report::{Measured, Report, Target},
};
use bson::doc;
use limosa_testkit::{Error, workload::Workload};
use std::{collections::BTreeMap, time::Instant};

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let mut medians = Vec::new();
    for times in [1, 4] {
        let gb = arguments.gb * f64::from(times);
        let oplog_mb = (gb * 3000.0) as u32 + 1000;
        let source = arguments.server(1, oplog_mb).await?;
        let client = source.client().await;
        load(&client, arguments.shape, arguments.seed, arguments.bytes() * times as u64).await?;
        let index = doc! {"createIndexes": COLL, "indexes": [{"key": {"_id": 1, "n": 1}, "name": "u", "unique": true}]};
        client.database(DB).run_command(index).await?;
        let mut pauses = Vec::new();
        let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for run in 0..arguments.runs {
            let destination = arguments.server(1, oplog_mb).await?;
            let db = format!("load{run}");
            let writers = Workload::start(&client, &db, arguments.seed + run as u64, 2);
            let mut migration = Migration::start(&source, &destination, &arguments.with())?;
            migration.until("readyForCutover").await?;
            let acknowledged = writers.stop(&db).await?;
            let stopped = Instant::now();
            migration.verb(&["cutover"])?;
            migration.until("complete").await?;
            let to = destination.client().await;
            while to.database(DB).collection("after").insert_one(doc! {"run": run as i64}).await.is_err() {
                tokio::time::sleep(POLL).await;
            }
            pauses.push(stopped.elapsed().as_secs_f64());
            acknowledged.check(&to).await?;
            migration.end()?;
            for (step, seconds) in migration.cutover_steps()? {
                steps.entry(step).or_default().push(seconds);
            }
        }
        let pauses = Measured(pauses);
        report.figure("pause", &format!("write pause at {gb} GB"), "s", &pauses, Some(Target::AtMost(5.0)));
        for (step, seconds) in steps {
            report.figure("pause", &format!("of that at {gb} GB: {step}"), "s", &Measured(seconds), None);
        }
        medians.push(pauses.median());
    }
    let apart = Measured(vec![(medians[1] - medians[0]).abs()]);
    report.figure("pause", "difference of the two", "s", &apart, Some(Target::AtMost(1.0)));
    Ok(())
}
