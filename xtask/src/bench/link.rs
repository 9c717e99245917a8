//! The initial copy to a destination that is far away, beside pure inserts over the same way, which aren't compressed.

use super::{
    Arguments, anchor,
    data::load,
    program::Migration,
    report::{Measured, Report, Target},
};
use limosa_testkit::{Error, Network, ReplicaSet};
use std::time::Duration;

/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// 200 Mbit/s.
const BYTES_PER_SECOND: u32 = 25_000_000;

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let oplog_mb = (arguments.gb * 3000.0) as u32 + 1000;
    let source = arguments.server(1, oplog_mb).await?;
    let loaded = load(&source.client().await, arguments.shape, arguments.seed, arguments.bytes()).await?;
    let (mut copied, mut inserted, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        {
            let destination = far(arguments, oplog_mb).await?;
            let client = destination.client().await;
            inserted.push(anchor::pure_insert(&client, arguments.shape, arguments.seed, loaded, 2).await?);
        }
        let destination = far(arguments, oplog_mb).await?;
        let mut migration = Migration::start(&source, &destination, &arguments.with())?;
        let at = migration.until("readyForCutover").await?;
        copied.push(migration.seconds_in("copying").ok_or("no copying phase was told")?);
        ready.push((at - migration.started).as_secs_f64());
    }
    let (copied, inserted) = (Measured(copied), Measured(inserted));
    report.figure("link", "copy", "s", &copied, None);
    report.figure("link", "ready for the cutover", "s", &Measured(ready), None);
    report.figure("link", "pure insert, 2 writers", "s", &inserted, None);
    report.ratio("link", "copy", &copied, ("pure insert", &inserted), Target::AtMost(1.0));
    Ok(())
}

async fn far(arguments: &Arguments, oplog_mb: u32) -> Result<ReplicaSet, Error> {
    let set = arguments.set(1, oplog_mb).proxied().start().await?;
    set.proxy(0).set(Network::Narrow(DELAY, BYTES_PER_SECOND));
    Ok(set)
}
