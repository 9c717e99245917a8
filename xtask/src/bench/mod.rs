//! `cargo x bench`: each figure beside an anchor that is measured in turn with it, in the same run. What counts is the
//! ratio of the two: absolute figures of shared machines drift by tens of percent.

mod agents;
mod anchor;
mod api;
mod catchup;
mod copy;
mod data;
mod link;
mod memory;
mod pause;
mod program;
mod report;
mod served;
mod verify;
mod whole;

use crate::{cargo, run};
use clap::{Args, ValueEnum};
use data::Shape;
use limosa_testkit::{Error, ReplicaSet, replica_set::Builder};
use report::Report;
use std::{path::PathBuf, time::Instant};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// The initial copy, beside pure inserts and the server's own initial sync.
    Copy,
    /// The copy to a destination 20 ms away over 200 Mbit/s, beside pure inserts.
    Link,
    /// Updates spread evenly, beside a secondary that catches up on the same ones.
    Catchup,
    /// The same, nine of ten updates on a hundredth of the documents.
    Hot,
    /// A whole migration under writes, beside mongodump | mongorestore.
    Migrate,
    /// `limosa verify`, beside reading both sides.
    Verify,
    /// How long an application can't write, at a size and at four times that.
    Pause,
    /// Resident memory over a migration of many collections.
    Memory,
    /// GET of one migration, 2,000 times a second, of 10,000 stored ones.
    Api,
    /// Migration hosts that tell of themselves and of their migrations each second, up to 1,000 of them.
    Agents,
    /// All of these, one after the other, for a table of everything.
    All,
}

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which; all of them without it.
    #[arg(value_enum)]
    names: Vec<Name>,
    /// How much data, in gigabytes.
    #[arg(long, default_value_t = 1.0)]
    gb: f64,
    /// What the documents look like.
    #[arg(long, value_enum, default_value = "ycsb")]
    shape: Shape,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Updates of `catchup` and `hot`.
    #[arg(long, default_value_t = 400_000)]
    updates: u64,
    /// Collections of `memory`.
    #[arg(long, default_value_t = 10_000)]
    collections: u64,
    /// Each server's cache, in gigabytes; with less than what is written it writes to the disk all the time.
    #[arg(long, default_value_t = 3.0)]
    cache_gb: f64,
    /// Further arguments of `limosa migrate`, separated by blanks: "--copy-workers 2".
    #[arg(long, allow_hyphen_values = true, default_value = "")]
    with: String,
    /// Where all randomness begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the JSON report goes; the table goes beside it, as Markdown.
    #[arg(long, default_value = "target/bench.json")]
    report: PathBuf,
}

impl Arguments {
    fn bytes(&self) -> u64 {
        (self.gb * 1e9) as u64
    }

    /// A replica set whose oplog holds the run.
    fn set(&self, members: usize, oplog_mb: u32) -> Builder {
        ReplicaSet::builder().members(members).cache_gb(self.cache_gb).oplog_mb(oplog_mb)
    }

    async fn server(&self, members: usize, oplog_mb: u32) -> Result<ReplicaSet, Error> {
        self.set(members, oplog_mb).start().await
    }

    fn with(&self) -> Vec<&str> {
        self.with.split_whitespace().collect()
    }
}

pub(crate) fn run_benches(arguments: &Arguments) -> Result<(), Error> {
    run(cargo(&["build", "--release", "--package", "limosa"]))?;
    tokio::runtime::Runtime::new()?.block_on(all(arguments))
}

/// One after the other. One that fails is told of in the table and doesn't keep the others from being measured.
async fn all(arguments: &Arguments) -> Result<(), Error> {
    let names = match arguments.names.as_slice() {
        names if names.is_empty() || names.contains(&Name::All) => Name::value_variants(),
        names => names,
    };
    let mut report = Report::new(arguments);
    let mut failed = Vec::new();
    for name in names.iter().filter(|name| **name != Name::All) {
        println!("{name:?}: {} runs", arguments.runs);
        let began = Instant::now();
        if let Err(error) = measure(*name, arguments, &mut report).await {
            report.missing(&format!("{name:?}").to_lowercase(), "failed", &error.to_string());
            failed.push(format!("{name:?}"));
        }
        println!("  measured in {:.0} s", began.elapsed().as_secs_f64());
        report.write(&arguments.report)?;
    }
    print!("{}", report.table());
    println!("report: {}", arguments.report.display());
    if failed.is_empty() { Ok(()) } else { Err(format!("{} failed", failed.join(", ")).into()) }
}

async fn measure(name: Name, arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    match name {
        Name::Copy => copy::measure(arguments, report).await,
        Name::Link => link::measure(arguments, report).await,
        Name::Catchup => catchup::measure(arguments, false, report).await,
        Name::Hot => catchup::measure(arguments, true, report).await,
        Name::Migrate => whole::measure(arguments, report).await,
        Name::Verify => verify::measure(arguments, report).await,
        Name::Pause => pause::measure(arguments, report).await,
        Name::Memory => memory::measure(arguments, report).await,
        Name::Api => api::measure(arguments, report).await,
        Name::Agents => agents::measure(report).await,
        Name::All => Ok(()),
    }
}
