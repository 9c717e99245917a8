//! The main job, from end to end: two replica sets, writers, `limosa migrate`, a cutover, a comparison.

use crate::{cargo, run};
use bson::{Document, doc};
use limosa_testkit::{Error, ReplicaSet, compare, workload::Workload};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

const COLLECTIONS: i32 = 4;
const DOCUMENTS: i32 = 200_000;

pub(crate) fn run_demo() -> Result<(), Error> {
    run(cargo(&["build", "--release", "--package", "limosa"]))?;
    tokio::runtime::Runtime::new()?.block_on(demo())
}

/// A started `limosa migrate`; killed if the demo ends early.
struct Migrate(Child);

impl Drop for Migrate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn demo() -> Result<(), Error> {
    println!("starting two replica sets");
    let (source, destination) = (ReplicaSet::start().await?, ReplicaSet::start().await?);
    let (from, to) = (source.client().await, destination.client().await);
    println!("loading {DOCUMENTS} documents");
    load(&from).await?;
    let writers = Workload::start(&from, "demo", rand::random(), 4);
    let state = tempfile::tempdir()?;
    let limosa = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/limosa");
    let began = Instant::now();
    let child = Command::new(&limosa)
        .args(["migrate", "--output", "json", "--state-dir"])
        .arg(state.path().join("state"))
        .env("LIMOSA_SOURCE_URI", source.uri())
        .env("LIMOSA_DESTINATION_URI", destination.uri())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut migrate = Migrate(child);
    let output = migrate.0.stdout.take().ok_or("limosa has no output")?;
    let mut writers = Some(writers);
    let (mut last, mut lag, mut acknowledged) = (serde_json::Value::Null, None, None);
    for line in BufReader::new(output).lines() {
        let event: serde_json::Value = serde_json::from_str(&line?)?;
        match event["event"].as_str() {
            Some("progress" | "complete") => {
                lag = event["lagTimeSeconds"].as_i64().or(lag);
                last = event;
            }
            Some("readyForCutover") => {
                if let Some(writers) = writers.take() {
                    acknowledged = Some(writers.stop("demo").await?);
                    println!("writers stopped; cutting over");
                    let mut cutover = Command::new(&limosa);
                    cutover.args(["migrations", "cutover", "--profile"]).arg(state.path().join("state/profile.toml"));
                    run(cutover)?;
                }
            }
            _ => {}
        }
    }
    if !migrate.0.wait()?.success() {
        return Err("limosa migrate failed".into());
    }
    let took = began.elapsed();
    let acknowledged = acknowledged.ok_or("it never became ready for the cutover")?;
    acknowledged.check(&to).await?;
    let same = compare(&from, &to, &["demo"]).await?;
    println!("documents    {}", same.documents);
    println!("bytes        {}", same.bytes);
    println!("collections  {}", same.collections);
    println!("writes       {} acknowledged meanwhile, {} events applied", acknowledged.writes, last["eventsApplied"]);
    println!("duration     {:.1} s", took.as_secs_f64());
    println!("lag          {} s at the last report before the cutover", lag.unwrap_or_default());
    println!("write pause  {} ms", last["writePauseMillis"]);
    println!("identical");
    Ok(())
}

async fn load(client: &mongodb::Client) -> Result<(), Error> {
    let payload = "limosa ".repeat(40);
    for part in 0..COLLECTIONS {
        let collection = client.database("demo").collection::<Document>(&format!("part{part}"));
        let share = DOCUMENTS / COLLECTIONS;
        for first in (0..share).step_by(10_000) {
            let documents: Vec<Document> =
                (first..first + 10_000).map(|n| doc! {"_id": n, "group": n % 100, "payload": &payload}).collect();
            collection.insert_many(documents).await?;
        }
        let index = doc! {"createIndexes": collection.name(), "indexes": [{"key": {"group": 1}, "name": "group_1"}]};
        client.database("demo").run_command(index).await?;
    }
    Ok(())
}
