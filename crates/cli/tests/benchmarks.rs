//! Measurements on whole migrations; long, and only of use on a machine that does nothing else. They print what they
//! measured.

use crate::support::{Running, migrate, verb, wait_for};
use bson::{Binary, Document, doc, spec::BinarySubtype};
use limosa_testkit::{Network, ReplicaSet, tool};
use mongodb::Client;
use serde_json::Value;
use std::{path::Path, time::Instant};
use tokio::task::JoinSet;

/// Inserts documents number 0 to `count` made by `make`, by a few clients at once.
async fn fill(client: &Client, count: i32, make: fn(i32) -> Document) {
    let mut tasks = JoinSet::new();
    for part in 0..4 {
        let collection = client.database("app").collection::<Document>("c");
        tasks.spawn(async move {
            for first in (part * 5_000..count).step_by(20_000) {
                let documents: Vec<Document> = (first..count.min(first + 5_000)).map(make).collect();
                collection.insert_many(documents).await.expect("inserts");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("fills");
    }
}

/// The most memory that a process ever held, in MiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("is told");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1024
}

/// The pause of a client that writes to the source until it is refused, and then waits for the word to continue elsewhere.
async fn write_pause(gigabytes: i32) -> u64 {
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    fill(&from, gigabytes * 1_000_000, |n| doc! {"_id": n, "u": n, "p": "p".repeat(980)}).await;
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]};
    from.database("app").run_command(index).await.expect("indexes");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let began = Instant::now();
    let mut run = Running::start(migrate(&source.uri(), &destination.uri(), &state).arg("--block-source-writes"));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    run.until_event("readyForCutover");
    let ready = began.elapsed().as_secs();
    let writer = tokio::spawn({
        let collection = from.database("app").collection("c");
        async move {
            let mut written = 0;
            while collection.insert_one(doc! {"_id": format!("w{written}"), "u": -1 - written}).await.is_ok() {
                written += 1;
            }
            (Instant::now(), written)
        }
    });
    let (status, _, errors) =
        crate::support::finish(crate::support::limosa().args(["migrations", "cutover", "--profile", &profile]));
    assert_eq!(status, 0, "{errors}");
    let complete = run.until_event("complete");
    let (refused, written) = writer.await.expect("ends");
    to.database("app").collection("c").insert_one(doc! {"_id": "new", "u": i32::MIN}).await.expect("inserts");
    let pause = refused.elapsed().as_millis() as u64;
    let arrived =
        to.database("app").collection::<Document>("c").find_one(doc! {"_id": format!("w{}", written - 1)}).await;
    assert!(arrived.expect("reads").is_some(), "the last acknowledged write is not there");
    eprintln!(
        "{gigabytes} GB: ready after {ready} s; {written} writes until refused; the client waited {pause} ms, Limosa measured {} ms; \
         peak memory {} MiB",
        complete["writePauseMillis"],
        peak_memory(run.pid())
    );
    pause
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_pause_is_short_whatever_the_size() {
    if !tool::in_full() {
        return;
    }
    let (one, four) = (write_pause(1).await, write_pause(4).await);
    assert!(one < 5_000 && four < 5_000 && one.abs_diff(four) < 1_000, "{one} ms and {four} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_million_documents_and_a_million_dirty_ones_are_verified_in_flat_memory() {
    if !tool::in_full() {
        return;
    }
    let (source, destination) = tokio::join!(ReplicaSet::start(), ReplicaSet::start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let from = source.client().await;
    fill(&from, 5_000_000, |n| doc! {"_id": n, "n": n}).await;
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let began = Instant::now();
    let mut run = Running::start(&mut migrate(&source.uri(), &destination.uri(), &state));
    run.until(|event| event["phase"] == "catchingUp");
    let copied = began.elapsed().as_secs();
    run.until_event("readyForCutover");
    let ready = began.elapsed().as_secs();
    let verified = peak_memory(run.pid());
    eprintln!("5,000,000 documents: copied after {copied} s, verified after {ready} s, peak memory {verified} MiB");
    let million = doc! {"n": {"$lt": 1_000_000}};
    let collection = from.database("app").collection::<Document>("c");
    collection.update_many(million, doc! {"$set": {"n": -1}}).await.expect("updates");
    let mut most = 0;
    run.until(|event| {
        most = most.max(event["documentsDirty"].as_u64().unwrap_or(0));
        most > 100_000 && event["documentsDirty"] == 0
    });
    let clean = began.elapsed().as_secs();
    let peak = peak_memory(run.pid());
    eprintln!(
        "1,000,000 of them changed: {most} dirty at most, clean after {} s, peak memory {peak} MiB",
        clean - ready
    );
    assert!(peak < 256, "{peak} MiB");
}

/// Collections, each with an index, made by a few clients at once.
async fn define(client: &Client, prefix: &str, count: i32) {
    let mut tasks = JoinSet::new();
    for part in 0..8 {
        let (db, prefix) = (client.database("many"), prefix.to_owned());
        tasks.spawn(async move {
            for n in (part..count).step_by(8) {
                let indexes = vec![doc! {"key": {"a": 1}, "name": "a"}];
                let made = db.run_command(doc! {"createIndexes": format!("{prefix}{n}"), "indexes": indexes}).await;
                made.expect("creates");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("defines");
    }
}

/// Seconds of a processor that a process has had: what other work on the machine changes least.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("runs");
    let (_, fields) = stat.rsplit_once(')').expect("has a name");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

/// Where files are made at the speed of memory, if anywhere: a disk that takes 10 ms to make a file would be all that is
/// measured.
fn fast_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

/// What migrating so many took.
#[derive(Debug)]
struct Took {
    cpu_seconds: f64,
    peak_mib: u64,
}

/// Migrates `count` empty collections with an index each, and a tenth more that are made once it follows.
async fn define_and_migrate(count: i32) -> Took {
    let files = fast_dir();
    let start = || ReplicaSet::builder().cache_gb(1.0).many_files().dir(files.path()).start();
    let (source, destination) = tokio::join!(start(), start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let began = Instant::now();
    define(&from, "c", count).await;
    eprintln!("{count} collections: made in {:.1} s", began.elapsed().as_secs_f64());
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let began = Instant::now();
    let mut run = Running::start(&mut migrate(&source.uri(), &destination.uri(), &state));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    let (pid, servers) = (run.pid(), [source.pid(0).expect("runs"), destination.pid(0).expect("runs")]);
    let tell = |what: &str, began: Instant| {
        let [of_source, of_destination] = servers.map(cpu_seconds);
        eprintln!(
            "{count} collections: {what} after {:.1} s; processor seconds {:.1}, source {of_source:.1}, destination {of_destination:.1}",
            began.elapsed().as_secs_f64(),
            cpu_seconds(pid),
        );
    };
    let mut phase = Value::Null;
    run.until(|event| {
        if event["phase"].is_string() && event["phase"] != phase {
            phase = event["phase"].clone();
            tell(&phase.to_string(), began);
        }
        event["event"] == "readyForCutover"
    });
    // A tenth more of them, and each a definition to replicate.
    let began = Instant::now();
    define(&from, "later", count / 10).await;
    eprintln!("{count} collections: a tenth more made in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let (status, _, errors) =
        crate::support::finish(crate::support::limosa().args(["migrations", "cutover", "--profile", &profile]));
    assert_eq!(status, 0, "{errors}");
    let complete = run.until_event("complete");
    tell("complete", began);
    eprintln!("{count} collections: {} ms of write pause", complete["writePauseMillis"]);
    let took = Took { cpu_seconds: cpu_seconds(pid), peak_mib: peak_memory(pid) };
    eprintln!("{count} collections: {took:?}");
    let names = to.database("many").list_collection_names().await.expect("lists");
    assert_eq!(names.len() as i32, count + count / 10);
    limosa_testkit::compare(&from, &to, &["many"]).await.expect("equal");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_collections_and_indexes_migrate_in_bounded_memory_and_linear_time() {
    if !tool::in_full() {
        return;
    }
    let count = std::env::var("LIMOSA_COLLECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (few, many) = (define_and_migrate(count / 4).await, define_and_migrate(count).await);
    // Four times as many: sixteen times as long would be a quadratic step.
    assert!(many.cpu_seconds < few.cpu_seconds * 8.0, "{few:?} and {many:?}");
    assert!(many.peak_mib < 256, "{many:?}");
}

/// A destination that is away while the source continues being written to: in short here; in full with 5 GB, for which the
/// servers and the spool take 20 GB of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_in_the_spool_is_held_in_flat_memory() {
    const DOCUMENTS: usize = 2_000;
    const BYTES: usize = 16 * 1024;
    // MiB: replies of 16 MB are held by the driver, the queue, the spool's tables and the window that is written.
    const MOST: u64 = 320;
    let backlog: u64 = if tool::in_full() { 5 << 30 } else { 160 << 20 };
    let source = ReplicaSet::start().await.expect("starts");
    let destination = ReplicaSet::builder().proxied().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    for client in [&from, &to] {
        // What is overwritten takes room on the disk until the next checkpoint.
        let often = doc! {"setParameter": 1, "syncdelay": 3.0};
        client.database("admin").run_command(often).await.expect("is taken");
    }
    // Nothing that compresses; each round of writes begins at another place of it.
    let mut noise = vec![0; DOCUMENTS * BYTES + 64 * 1024];
    rand::fill(noise.as_mut_slice());
    let document = |round: usize, n: usize| {
        let from = n * BYTES + round % (64 * 1024);
        let bytes = noise[from..from + BYTES].to_vec();
        doc! {"_id": n as i32, "round": round as i32, "p": Binary { subtype: BinarySubtype::Generic, bytes }}
    };
    let app = from.database("app");
    app.collection("c").insert_many((0..DOCUMENTS).map(|n| document(0, n))).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let mut command = migrate(&source.uri(), &destination.uri(), &state);
    // As the agent's unit has it.
    let mut run = Running::start(command.env("MALLOC_MMAP_THRESHOLD_", "1048576"));
    let profile = run.until_event("started")["profile"].as_str().expect("a path").to_owned();
    let progress = || verb(Path::new(&profile), &["migrations", "describe"])["progress"].clone();
    let spooled = || progress()["spoolBytes"].as_u64().unwrap_or(0);
    run.until_event("readyForCutover");
    destination.proxy(0).set(Network::Cut);
    let began = Instant::now();
    let (mut written, mut round) = (0, 0);
    while written < backlog {
        round += 1;
        for first in (0..DOCUMENTS).step_by(500) {
            let replace = |n| doc! {"q": {"_id": n as i32}, "u": document(round, n)};
            let updates: Vec<Document> = (first..first + 500).map(replace).collect();
            app.run_command(doc! {"update": "c", "updates": updates}).await.expect("updates");
        }
        written += (DOCUMENTS * BYTES) as u64;
        if round % 4 == 0 {
            // Not faster than it is read: the oplog is short.
            wait_for("what was written", || (spooled() + (128 << 20) >= written).then_some(()));
        }
    }
    let held = wait_for("the whole backlog", || Some(spooled()).filter(|held| *held >= backlog));
    let spooling = began.elapsed().as_secs();
    let holding = peak_memory(run.pid());
    destination.proxy(0).set(Network::Whole);
    let began = Instant::now();
    wait_for("an empty spool", || (progress()["spoolBytes"] == 0).then_some(()));
    wait_for("its being synced", || {
        (verb(Path::new(&profile), &["migrations", "describe"])["readyForCutover"] == true).then_some(())
    });
    let applying = began.elapsed().as_secs();
    verb(Path::new(&profile), &["migrations", "cutover"]);
    run.until_event("complete");
    let peak = peak_memory(run.pid());
    eprintln!(
        "{} MiB in the spool after {spooling} s, with at most {holding} MiB of memory; applied in {applying} s; peak {peak} MiB",
        held >> 20
    );
    limosa_testkit::compare(&from, &to, &["app"]).await.expect("equal");
    assert!(peak < MOST, "{peak} MiB");
}
