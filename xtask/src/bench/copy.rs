//! The initial copy.

use super::{
    Arguments, anchor,
    data::load,
    program::{Migration, cpu_seconds},
    report::{Measured, Report, Target},
};
use limosa_testkit::Error;

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let oplog_mb = (arguments.gb * 3000.0) as u32 + 1000;
    let mut source = arguments.server(1, oplog_mb).await?;
    let loaded = load(&source.client().await, arguments.shape, arguments.seed, arguments.bytes()).await?;
    let (mut copied, mut inserted, mut synced) = (Vec::new(), Vec::new(), Vec::new());
    let (mut memory, mut share) = (Vec::new(), Vec::new());
    let mut spent: [Vec<f64>; 3] = Default::default();
    for _ in 0..arguments.runs {
        {
            let destination = arguments.server(1, oplog_mb).await?;
            let seconds =
                anchor::pure_insert(&destination.client().await, arguments.shape, arguments.seed, loaded, 2).await?;
            inserted.push(seconds);
        }
        {
            let destination = arguments.server(1, oplog_mb).await?;
            let servers = [source.pid(0), destination.pid(0)];
            let by_now = || servers.map(|process| process.map_or(0.0, cpu_seconds));
            let before = by_now();
            let mut migration = Migration::start(&source, &destination, &arguments.with())?;
            migration.until("readyForCutover").await?;
            let (own, after) = (migration.cpu_seconds(), by_now());
            let took = [after[0] - before[0], after[1] - before[1], own];
            spent.iter_mut().zip(took).for_each(|(all, seconds)| all.push(seconds));
            copied.push(migration.seconds_in("copying").ok_or("no copying phase was told")?);
            memory.push(migration.peak_megabytes());
            share.push(100.0 * own / (took[0] + took[1]));
        }
        synced.push(anchor::initial_sync(&mut source).await?);
    }
    let (copied, inserted, synced) = (Measured(copied), Measured(inserted), Measured(synced));
    report.figure("copy", "copy", "s", &copied, None);
    report.figure("copy", "pure insert, 2 writers", "s", &inserted, None);
    report.figure("copy", "initial sync", "s", &synced, None);
    let rate = |m: &Measured| Measured(m.0.iter().map(|s| loaded.bytes as f64 / 1e6 / s).collect());
    report.figure("copy", "copy", "MB/s", &rate(&copied), None);
    report.ratio("copy", "copy", &copied, ("pure insert", &inserted), Target::AtMost(1.10));
    report.ratio("copy", "copy", &copied, ("initial sync", &synced), Target::AtMost(1.4));
    report.figure("copy", "memory, peak", "MB", &Measured(memory), Some(Target::AtMost(256.0)));
    for (whose, seconds) in ["the source", "the destination", "limosa"].into_iter().zip(spent) {
        report.figure("copy", &format!("processor until ready, {whose}"), "s", &Measured(seconds), None);
    }
    report.figure("copy", "processor, of the servers'", "%", &Measured(share), Some(Target::AtMost(15.0)));
    Ok(())
}
