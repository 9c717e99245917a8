//! `limosa verify` of two equal sides, beside one cursor a side that reads everything and looks at nothing.

use super::{
    Arguments,
    data::{COLL, DB, load},
    program::{Memory, limosa},
    report::{Measured, Report, Target},
};
use bson::doc;
use futures::StreamExt;
use limosa_testkit::Error;
use mongodb::Client;
use std::{process::Stdio, sync::atomic::Ordering, time::Instant};

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let oplog_mb = (arguments.gb * 2000.0) as u32 + 1000;
    let (left, right) = (arguments.server(1, oplog_mb).await?, arguments.server(1, oplog_mb).await?);
    let (from, to) = (left.client().await, right.client().await);
    let loaded = load(&from, arguments.shape, arguments.seed, arguments.bytes()).await?;
    load(&to, arguments.shape, arguments.seed, arguments.bytes()).await?;
    let (mut ours, mut reading, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let began = Instant::now();
        let (a, b) = tokio::join!(read_all(&from), read_all(&to));
        a.and(b)?;
        reading.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        let mut child = limosa()
            .arg("verify")
            .env("LIMOSA_SOURCE_URI", left.uri())
            .env("LIMOSA_DESTINATION_URI", right.uri())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let watched = Memory::watch(child.id());
        let status = tokio::task::spawn_blocking(move || child.wait()).await??;
        if !status.success() {
            return Err(format!("limosa verify ended with {status}").into());
        }
        ours.push(began.elapsed().as_secs_f64());
        memory.push(watched.peak.load(Ordering::Relaxed) as f64 / 1e6);
    }
    let (ours, reading) = (Measured(ours), Measured(reading));
    report.figure("verify", "limosa verify", "s", &ours, None);
    report.figure("verify", "reading both sides", "s", &reading, None);
    let rate = Measured(ours.0.iter().map(|s| loaded.documents as f64 / s).collect());
    report.figure("verify", "limosa verify", "documents/s", &rate, None);
    report.figure("verify", "memory, peak", "MB", &Measured(memory), Some(Target::AtMost(256.0)));
    Ok(())
}

async fn read_all(client: &Client) -> Result<(), Error> {
    let mut cursor = client.database(DB).run_cursor_command(doc! {"find": COLL}).batch().await?;
    while let Some(batch) = cursor.next().await {
        batch?;
    }
    Ok(())
}
