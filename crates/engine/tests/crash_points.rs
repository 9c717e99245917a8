//! An engine that dies at each place where that would hurt, and another that continues.

use crate::support::{Pair, Run, metric, settings};
use bson::{Document, doc};
use futures::{StreamExt, stream};
use limosa_engine::{Settings, failpoint};
use limosa_model::{
    PhaseKind,
    cutover::{CutoverOptions, RunOptions},
    protocol::Directive,
};
use limosa_testkit::{
    ReplicaSet, compare,
    workload::{Acknowledged, Workload},
};
use mongodb::Client;

/// Migrations side by side: each waits more than it works.
const AT_ONCE: usize = 3;

async fn seed(client: &Client, db: &str) {
    let payload = "p".repeat(400);
    for name in ["alpha", "beta"] {
        let documents: Vec<Document> =
            (0..6_000).map(|n| doc! {"_id": format!("seed-{n}"), "u": n, "payload": &payload}).collect();
        client.database(db).collection(name).insert_many(documents).await.expect("inserts");
        let indexes = doc! {"createIndexes": name, "indexes": [
            {"key": {"u": 1}, "name": "u_1", "unique": true, "partialFilterExpression": {"u": {"$exists": true}}},
            {"key": {"n": 1}, "name": "n_1"},
        ]};
        client.database(db).run_command(indexes).await.expect("indexes");
    }
    // So that no definition is in the stream but those of the test.
    client.database(db).create_collection("gamma").await.expect("creates");
    for name in ["old", "renamed"] {
        client.database(db).collection(name).insert_one(doc! {"_id": name}).await.expect("inserts");
    }
    client.database(db).run_command(doc! {"create": "ring", "capped": true, "size": 4096}).await.expect("creates");
    let documents: Vec<Document> = (0..100).map(|n| doc! {"_id": n, "payload": "x".repeat(50)}).collect();
    client.database(db).collection("ring").insert_many(documents).await.expect("inserts");
}

/// What dies where, on two clusters that stay.
struct Hazards {
    pair: Pair,
}

impl Hazards {
    async fn start() -> Self {
        Self { pair: Pair::start().await }
    }

    /// Runs until `name` is reached, lets the engine die there, and sees the migration through with another.
    async fn dies_at(&self, name: &'static str, in_cutover: bool, block_source_writes: bool) {
        eprintln!("dies at: {name}");
        let Pair { source, destination, from, .. } = &self.pair;
        let db = format!("hazard_{}", name.replace(' ', "_"));
        seed(from, &db).await;
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = settings(source, destination, dir.path());
        settings.filter.include = vec![format!("{db}.*").parse().expect("a pattern")];
        let cutover = CutoverOptions { block_source_writes, ..CutoverOptions::default() };
        settings.steering.set(RunOptions { cutover, ..RunOptions::default() });
        let scope = match name {
            failpoint::INDEXES_BUILT | failpoint::UNIQUE_PREPARED | failpoint::UNIQUE_MADE => format!("{db}.beta"),
            _ => settings.migration_id.to_string(),
        };
        let armed = failpoint::arm(name, scope);
        let writers = Workload::start(from, &db, 3, 2);
        let mut run = Run::start(&settings);
        if in_cutover {
            run.reach(PhaseKind::Synced).await;
            let acknowledged = writers.stop(&db).await.expect("writes");
            run.order(Directive::CutOver);
            self.die(name, armed, run).await;
            settings.epoch = settings.epoch.next();
            settings.steering.set(RunOptions::default());
            self.finish(Run::start(&settings), &settings, &db, acknowledged).await;
            return;
        }
        if [failpoint::INTENT_NOTED, failpoint::DEFINITION_APPLIED].contains(&name) {
            run.reach(PhaseKind::Synced).await;
            let rename =
                doc! {"renameCollection": format!("{db}.old"), "to": format!("{db}.renamed"), "dropTarget": true};
            from.database("admin").run_command(rename).await.expect("renames");
        }
        self.die(name, armed, run).await;
        settings.epoch = settings.epoch.next();
        let mut run = Run::start(&settings);
        run.reach(PhaseKind::Synced).await;
        let acknowledged = writers.stop(&db).await.expect("writes");
        self.finish(run, &settings, &db, acknowledged).await;
    }

    async fn die(&self, name: &str, armed: failpoint::Armed, run: Run) {
        tokio::time::timeout(std::time::Duration::from_secs(60), armed.reached())
            .await
            .unwrap_or_else(|_| panic!("never came to {name:?}, is at {:?}", run.report()));
        run.kill().await;
    }

    async fn finish(&self, mut run: Run, settings: &Settings, db: &str, acknowledged: Acknowledged) {
        let Pair { from, to, .. } = &self.pair;
        run.reach(PhaseKind::Synced).await;
        // Whatever died, the source's users may write.
        from.database(db).collection("gamma").insert_one(doc! {"_id": "after"}).await.expect("inserts");
        run.cut_over().await;
        acknowledged.check(from).await.expect("the source has what it acknowledged");
        acknowledged.check(to).await.expect("acknowledged writes are there");
        compare(from, to, &[db]).await.unwrap_or_else(|e| panic!("{db} ({}): {e}", settings.migration_id));
        from.database(db).drop().await.expect("drops");
        to.database(db).drop().await.expect("drops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_at_a_hazard_is_succeeded_without_loss() {
    let hazards = Hazards::start().await;
    stream::iter(failpoint::BEFORE_CUTOVER)
        .for_each_concurrent(AT_ONCE, |name| hazards.dies_at(name, false, false))
        .await;
    // One after the other: the stream has the definitions of all migrations.
    for name in [failpoint::INTENT_NOTED, failpoint::DEFINITION_APPLIED] {
        hazards.dies_at(name, false, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_a_step_of_the_cutover_is_succeeded_without_loss() {
    let hazards = Hazards::start().await;
    let names = [failpoint::UNIQUE_PREPARED, failpoint::UNIQUE_MADE, failpoint::CUT_OVER];
    let steps = &failpoint::STEPS_NOTED[1..];
    stream::iter(steps.iter().copied().chain(names))
        .for_each_concurrent(AT_ONCE, |name| hazards.dies_at(name, true, false))
        .await;
    // These block the whole source.
    for name in [failpoint::STEPS_NOTED[0], failpoint::WRITES_BLOCKED, failpoint::STEPS_NOTED[2]] {
        hazards.dies_at(name, true, true).await;
    }
}

/// The build continues in the server, or was ended with the connection that asked for it; either is joined or begun again.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_during_an_index_build_is_succeeded_without_loss() {
    let mut hazards = Hazards::start().await;
    for server_dies in [false, true] {
        let Pair { source, destination, from, .. } = &hazards.pair;
        let db = format!("build_{server_dies}");
        seed(from, &db).await;
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = settings(source, destination, dir.path());
        settings.filter.include = vec![format!("{db}.*").parse().expect("a pattern")];
        destination.fail_point(0, "hangAfterStartingIndexBuild", "alwaysOn").await.expect("is set");
        let writers = Workload::start(from, &db, 4, 2);
        let mut run = Run::start(&settings);
        run.reach(PhaseKind::BuildingIndexes).await;
        let began = std::time::Instant::now();
        while !builds(destination, &db) {
            assert!(began.elapsed().as_secs() < 60, "no index build began");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        run.kill().await;
        if server_dies {
            hazards.pair.destination.restart(0).await.expect("comes back");
        } else {
            destination.fail_point(0, "hangAfterStartingIndexBuild", "off").await.expect("is set");
        }
        settings.epoch = settings.epoch.next();
        let mut run = Run::start(&settings);
        run.reach(PhaseKind::Synced).await;
        let acknowledged = writers.stop(&db).await.expect("writes");
        hazards.finish(run, &settings, &db, acknowledged).await;
    }
}

/// Whether an index build of `db` has begun, by the server's log.
fn builds(set: &ReplicaSet, db: &str) -> bool {
    set.log(0).lines().any(|line| line.contains("Index build: starting") && line.contains(&format!("{db}.")))
}

/// A range of the copy that is marked is not copied again.
#[tokio::test(flavor = "multi_thread")]
async fn only_ranges_in_flight_are_copied_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    for n in 0..30 {
        let documents: Vec<Document> = (0..2_000).map(|i| doc! {"_id": i, "n": n}).collect();
        from.database("ranges").collection(&format!("c{n}")).insert_many(documents).await.expect("inserts");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let done = async || {
        let filter = doc! {"_id.migration": settings.migration_id.to_string(), "done": true};
        to.database("__limosa").collection::<Document>("ranges").count_documents(filter).await.expect("counts")
    };
    let run = Run::start(&settings);
    let began = std::time::Instant::now();
    while done().await < 10 {
        assert!(began.elapsed().as_secs() < 60, "the copy never came to ten ranges");
    }
    run.kill().await;
    let kept = done().await;
    let filter = doc! {"_id.migration": settings.migration_id.to_string(), "done": true};
    let once = |d: &Document| d.get_i32("confirmed").unwrap_or(0);
    settings.epoch = settings.epoch.next();
    let run = Run::start(&settings);
    run.cut_over().await;
    let ranges = to.database("__limosa").collection::<Document>("ranges");
    let all: Vec<Document> =
        futures::TryStreamExt::try_collect(ranges.find(filter).await.expect("reads")).await.expect("reads");
    assert_eq!(all.len(), 30);
    // Confirmed twice: written by the first engine, and again by the second.
    let twice = all.iter().filter(|d| once(d) > 1).count() as u64;
    assert!(twice <= 30 - kept && twice <= 2, "{twice} ranges were copied twice, {kept} were done");
    compare(&from, &to, &["ranges"]).await.expect("equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_lost_history_the_copy_is_made_again_and_what_is_equal_stays() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from, "lost").await;
    from.database("lost").collection("gone").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    run.order(Directive::Pause);
    assert_eq!(run.end().await, limosa_engine::Outcome::Stopped);
    // What happens now is in no oplog that is read later: the checkpoint's token is made one of long ago.
    let alpha = from.database("lost").collection::<Document>("alpha");
    alpha.delete_many(doc! {"u": {"$lt": 500}}).await.expect("deletes");
    alpha.update_many(doc! {"u": {"$lt": 1000}}, doc! {"$set": {"n": 7}}).await.expect("updates");
    alpha.insert_one(doc! {"_id": "late"}).await.expect("inserts");
    from.database("lost").collection::<Document>("gone").drop().await.expect("drops");
    from.database("lost").collection::<Document>("ring").insert_one(doc! {"_id": "r"}).await.expect("inserts");
    let id = doc! {"_id": settings.migration_id.to_string()};
    let old = doc! {"$set": {"token": {"_data": "820000000100000001292904"}, "spool": "none"}};
    to.database("__limosa").collection::<Document>("migrations").update_one(id, old).await.expect("updates");
    settings.epoch = settings.epoch.next();
    match Run::start(&settings).end().await {
        limosa_engine::Outcome::Failed(failure) => {
            assert_eq!(failure.code, limosa_model::ErrorCode::HistoryLost, "{failure}");
        }
        other => panic!("{other:?}"),
    }
    let ops = async || metric(&to, &["document", "inserted"]).await + metric(&to, &["document", "updated"]).await;
    let before = ops().await;
    settings.epoch = settings.epoch.next();
    settings.recopies = 1;
    let armed = failpoint::arm(failpoint::RECOPY_PREPARED, settings.migration_id);
    let run = Run::start(&settings);
    armed.reached().await;
    run.kill().await;
    settings.epoch = settings.epoch.next();
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    let written = ops().await - before;
    assert!(written < 2_000, "{written} documents were written where about 700 differ");
    run.cut_over().await;
    compare(&from, &to, &["lost"]).await.expect("equal");
}

/// Each of a batch's documents is there already, and its refusal would repeat an `_id` of 20 KB: more than a reply holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_nothing_but_large_duplicates_is_copied_again() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let documents = (0..1_000).map(|n| doc! {"_id": format!("{n:05}{}", "x".repeat(20_000)), "n": n});
    for db in ["large", "large_capped"] {
        let database = from.database(db);
        if db == "large_capped" {
            database.run_command(doc! {"create": "c", "capped": true, "size": 100_000_000}).await.expect("creates");
        }
        database.collection("c").insert_many(documents.clone()).await.expect("inserts");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut runs = 0;
    // Once for either range.
    while runs < 2 {
        let armed = failpoint::arm(failpoint::RANGE_WRITTEN, settings.migration_id.to_string());
        let run = Run::start(&settings);
        armed.reached().await;
        run.kill().await;
        settings.epoch = settings.epoch.next();
        runs += 1;
    }
    Run::start(&settings).cut_over().await;
    compare(&from, &to, &["large", "large_capped"]).await.expect("equal");
}

/// Index builds of the source that are under way while everything else is copied; one ends, one is given up.
#[tokio::test(flavor = "multi_thread")]
async fn index_builds_that_are_unfinished_on_the_source_come_when_they_end_and_not_before() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let db = from.database("builds");
    for name in ["ends", "given up"] {
        let documents: Vec<Document> = (0..500).map(|n| doc! {"_id": n, "u": n}).collect();
        db.collection(name).insert_many(documents).await.expect("inserts");
    }
    source.fail_point(0, "hangAfterStartingIndexBuild", "alwaysOn").await.expect("holds");
    let build = |name: &'static str| {
        let db = from.database("builds");
        let index = doc! {"key": {"u": 1}, "name": "u", "unique": true};
        tokio::spawn(async move { db.run_command(doc! {"createIndexes": name, "indexes": [index]}).await })
    };
    let (ending, given_up) = (build("ends"), build("given up"));
    for name in ["ends", "given up"] {
        let listed = async || {
            let command = doc! {"listIndexes": name, "includeBuildUUIDs": true};
            db.run_command(command).await.is_ok_and(|reply| reply.to_string().contains("buildUUID"))
        };
        let began = std::time::Instant::now();
        while !listed().await {
            assert!(began.elapsed().as_secs() < 30, "the build of {name} never began");
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let dropping = tokio::spawn({
        let db = from.database("builds");
        async move { db.run_command(doc! {"dropIndexes": "given up", "index": "u"}).await }
    });
    db.collection("ends").insert_one(doc! {"_id": "later", "u": -1}).await.expect("inserts");
    source.fail_point(0, "hangAfterStartingIndexBuild", "off").await.expect("lets go");
    ending.await.expect("ends").expect("builds");
    // Which of the two comes first is the server's to say.
    let _ = (given_up.await.expect("ends"), dropping.await.expect("ends"));
    run.cut_over().await;
    compare(&from, &to, &["builds"]).await.expect("equal");
    let indexes = to.database("builds").collection::<Document>("ends").list_index_names().await.expect("lists");
    assert_eq!(indexes, ["_id_", "u"]);
}

/// The source makes a time-series collection in two steps, its buckets first: what is created after the first of them
/// must hold what comes later.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_series_collection_seen_half_made_is_not_lost() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let app = from.database("app");
    app.collection("c").insert_one(doc! {"_id": 1}).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Synced).await;
    let half = async |mode: &str| {
        let data = doc! {"ns": "app.series"};
        let command = doc! {"configureFailPoint": "failTimeseriesViewCreation", "mode": mode, "data": data};
        from.database("admin").run_command(command).await.expect("the server has this failpoint");
    };
    let create = doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m", "granularity": "minutes"},
    "expireAfterSeconds": 1_000_000_000};
    half("alwaysOn").await;
    app.run_command(create.clone()).await.expect_err("only its buckets are made");
    half("off").await;
    let applied = run.report().progress.events_applied;
    app.collection("c").insert_one(doc! {"_id": 2}).await.expect("inserts");
    run.count(|progress| progress.events_applied > applied).await;
    let here = to.database("app").collection::<Document>("c");
    while here.find_one(doc! {"_id": 2}).await.expect("reads").is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    app.run_command(create).await.expect("creates the rest");
    let measured = (0..50).map(|n| doc! {"t": bson::DateTime::now(), "m": n % 3, "n": n});
    app.collection("series").insert_many(measured).await.expect("inserts");
    run.cut_over().await;
    assert_eq!(to.database("app").collection::<Document>("series").count_documents(doc! {}).await.expect("counts"), 50);
    compare(&from, &to, &["app"]).await.expect("equal");
}
