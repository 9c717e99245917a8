//! Migrations under writers while everything around them breaks, for as long as one likes. Each round is a whole
//! migration by the real program: killed, stopped, its destination cut off, stepped down and killed, its source stepped
//! down; at its end both sides are compared, and the writers' own log of what was acknowledged is held against them.

use crate::{cargo, run};
use bson::{Document, doc};
use limosa_testkit::{
    Error, Network, ReplicaSet, compare,
    workload::{Acknowledged, Workload},
};
use mongodb::Client;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long faults continue in a round.
const FAULTS: Duration = Duration::from_secs(75);

/// How long a round may take to its end once nothing breaks any more.
const QUIET: Duration = Duration::from_secs(240);

const DOCUMENTS: i32 = 60_000;

pub(crate) fn soak(minutes: u64, seed: Option<u64>) -> Result<(), Error> {
    run(cargo(&["build", "--package", "limosa"]))?;
    tokio::runtime::Runtime::new()?.block_on(rounds(minutes, seed.unwrap_or_else(rand::random)))
}

/// What came of it.
#[derive(Default)]
struct Tally {
    rounds: u64,
    faults: BTreeMap<&'static str, u64>,
    writes: u64,
    documents: u64,
    events: u64,
    repaired: u64,
}

async fn rounds(minutes: u64, seed: u64) -> Result<(), Error> {
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let source = ReplicaSet::builder().members(3).start().await?;
    let mut destination = ReplicaSet::builder().members(3).proxied().start().await?;
    // A copy, so that a build meanwhile changes nothing.
    let dir = tempfile::tempdir()?;
    let binary = dir.path().join("limosa");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/limosa"), &binary)?;
    let began = Instant::now();
    let mut tally = Tally::default();
    while began.elapsed() < Duration::from_secs(minutes * 60) {
        let round = tally.rounds + 1;
        let db = format!("soak{round}");
        let began = Instant::now();
        let ended = one(&db, &binary, &source, &mut destination, &mut rng, &mut tally).await;
        ended.map_err(|e| format!("round {round} of seed {seed}: {e}"))?;
        tally.rounds = round;
        println!("round {round}: identical after {:.0} s", began.elapsed().as_secs_f64());
    }
    println!("\nminutes            {:.1}", began.elapsed().as_secs_f64() / 60.0);
    println!("migrations         {}", tally.rounds);
    println!("acknowledged       {} writes, all there", tally.writes);
    println!("compared           {} documents, identical", tally.documents);
    println!("changes applied    {}", tally.events);
    println!("repaired           {} documents by the verifier", tally.repaired);
    for (fault, times) in &tally.faults {
        println!("{fault:18} {times}");
    }
    Ok(())
}

async fn one(
    db: &str,
    binary: &Path,
    source: &ReplicaSet,
    destination: &mut ReplicaSet,
    rng: &mut SmallRng,
    tally: &mut Tally,
) -> Result<(), Error> {
    let (from, to) = (source.client().await, destination.client().await);
    load(&from, db).await?;
    let writers = Workload::start(&from, db, rng.random(), 2);
    let state = tempfile::tempdir()?;
    let mut limosa = Limosa::start(binary, source, destination, state.path().join("state"), db)?;
    let began = Instant::now();
    while began.elapsed() < FAULTS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..6_000))).await;
        limosa.look()?;
        let fault = fault(rng, source, destination, &mut limosa).await?;
        *tally.faults.entry(fault).or_default() += 1;
    }
    let quiet = Instant::now();
    let late = || -> Error { "it did not come to its end in time".into() };
    limosa.forget_ready();
    while !limosa.look()? {
        if quiet.elapsed() > QUIET {
            return Err(late());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let acknowledged = writers.stop(db).await?;
    let complete = loop {
        limosa.cut_over()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        limosa.look()?;
        if let Some(complete) = limosa.complete.take() {
            break complete;
        }
        if quiet.elapsed() > QUIET * 2 {
            return Err(late());
        }
    };
    tally.events += complete["eventsApplied"].as_u64().unwrap_or(0);
    tally.repaired += complete["documentsRepaired"].as_u64().unwrap_or(0);
    check(db, &from, &to, &acknowledged, tally).await?;
    for client in [&from, &to] {
        client.database(db).drop().await?;
    }
    Ok(())
}

async fn check(db: &str, from: &Client, to: &Client, log: &Acknowledged, tally: &mut Tally) -> Result<(), Error> {
    log.check(from).await?;
    log.check(to).await?;
    tally.documents += compare(from, to, &[db]).await?.documents;
    tally.writes += log.writes;
    Ok(())
}

async fn load(client: &Client, db: &str) -> Result<(), Error> {
    let payload = "limosa ".repeat(60);
    for name in ["seed0", "seed1", "seed2"] {
        let collection = client.database(db).collection::<Document>(name);
        for first in (0..DOCUMENTS / 3).step_by(10_000) {
            let all: Vec<Document> =
                (first..first + 10_000).map(|n| doc! {"_id": n, "u": n, "payload": &payload}).collect();
            collection.insert_many(all).await?;
        }
        let index = doc! {"createIndexes": name, "indexes": [{"key": {"u": 1}, "name": "u_1", "unique": true}]};
        client.database(db).run_command(index).await?;
    }
    Ok(())
}

/// Breaks something, and fixes it again.
async fn fault(
    rng: &mut SmallRng,
    source: &ReplicaSet,
    destination: &mut ReplicaSet,
    limosa: &mut Limosa,
) -> Result<&'static str, Error> {
    let pause = Duration::from_millis(rng.random_range(300..5_000));
    let member = rng.random_range(0..3);
    Ok(match rng.random_range(0..9) {
        0 | 1 => {
            limosa.kill()?;
            limosa.restart()?;
            "limosa killed"
        }
        2 => {
            limosa.signal("STOP")?;
            tokio::time::sleep(pause).await;
            limosa.signal("CONT")?;
            "limosa stopped"
        }
        3 => {
            source.step_down().await?;
            "source step-down"
        }
        4 => {
            destination.step_down().await?;
            "dest. step-down"
        }
        5 => {
            let primary = destination.primary_index().await?;
            destination.kill(primary);
            tokio::time::sleep(pause).await;
            destination.restart(primary).await?;
            "dest. killed"
        }
        6 => {
            for index in 0..3 {
                destination.proxy(index).set(Network::Cut);
            }
            tokio::time::sleep(pause).await;
            for index in 0..3 {
                destination.proxy(index).set(Network::Whole);
            }
            "dest. cut off"
        }
        7 => {
            let network = if rng.random() { Network::Silent } else { Network::ToServer };
            destination.proxy(member).set(network);
            tokio::time::sleep(pause).await;
            destination.proxy(member).set(Network::Whole);
            destination.proxy(member).reset();
            "one-way or silent"
        }
        _ => {
            (0..3).for_each(|index| destination.proxy(index).reset());
            "connections reset"
        }
    })
}

/// The program at work, with what it said.
struct Limosa {
    binary: PathBuf,
    environment: [(&'static str, String); 2],
    state: PathBuf,
    include: String,
    child: Child,
    said: mpsc::UnboundedReceiver<String>,
    ready: bool,
    complete: Option<serde_json::Value>,
}

impl Limosa {
    fn start(
        binary: &Path,
        source: &ReplicaSet,
        destination: &ReplicaSet,
        state: PathBuf,
        db: &str,
    ) -> Result<Self, Error> {
        let environment = [("LIMOSA_SOURCE_URI", source.uri()), ("LIMOSA_DESTINATION_URI", destination.uri())];
        let include = format!("{db}.*");
        let (child, said) = spawn(binary, &environment, &state, &include)?;
        Ok(Self { binary: binary.to_owned(), environment, state, include, child, said, ready: false, complete: None })
    }

    fn kill(&mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        (self.child, self.said) = spawn(&self.binary, &self.environment, &self.state, &self.include)?;
        self.ready = false;
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<(), Error> {
        run({
            let mut command = Command::new("kill");
            command.args(["-s", name, &self.child.id().to_string()]);
            command
        })
    }

    /// What was true before the last fault needn't be.
    fn forget_ready(&mut self) {
        self.ready = false;
    }

    /// Takes in what it said; whether it is ready for the cutover. One that could not start, because nothing answered,
    /// is started again, as a service manager would.
    fn look(&mut self) -> Result<bool, Error> {
        while let Ok(line) = self.said.try_recv() {
            let event: serde_json::Value = serde_json::from_str(&line)?;
            match event["event"].as_str() {
                Some("progress") => self.ready = event["phase"] == "synced",
                Some("complete") => self.complete = Some(event),
                Some("failed") => {
                    let code = event["code"].as_str().unwrap_or_default();
                    if !["SOURCE_UNREACHABLE", "DESTINATION_UNREACHABLE"].contains(&code) {
                        return Err(format!("limosa failed: {event}").into());
                    }
                }
                _ => {}
            }
        }
        if self.complete.is_none() && self.child.try_wait()?.is_some() {
            self.restart()?;
        }
        Ok(self.ready)
    }

    /// Asks for the cutover; one that is refused is asked for again.
    fn cut_over(&self) -> Result<(), Error> {
        let mut command = Command::new(&self.binary);
        command.args(["migrations", "cutover", "--profile"]).arg(self.state.join("profile.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(())
    }
}

impl Drop for Limosa {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(
    binary: &Path,
    environment: &[(&'static str, String)],
    state: &Path,
    include: &str,
) -> Result<(Child, mpsc::UnboundedReceiver<String>), Error> {
    let mut command = Command::new(binary);
    command.args(["migrate", "--output", "json", "--include-ns", include, "--state-dir"]).arg(state);
    command.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().ok_or("limosa has no output")?;
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok((child, receiver))
}
