//! The names of what the engine stores and counts. A running migration is continued by a newer version, and boards and
//! alerts read the metrics: what has a name there keeps it.

use crate::{
    metric_names,
    support::{Pair, Run, fail_command, scraped, settings, until},
};
use bson::{Bson, Document, doc};
use limosa_engine::{Settings, failpoint};
use limosa_model::{
    MigrationId, PhaseKind,
    cutover::{CutoverOptions, RunOptions},
    protocol::Directive,
};
use mongodb::Client;
use std::collections::{BTreeMap, BTreeSet};

/// What a failed comparison with a stored snapshot says.
const ADVICE: &str = "\
    Names that running migrations, dashboards and scripts depend on. A new one may be added. None may be renamed, removed \
    or get another type: keep the old spelling with #[serde(rename)] or #[serde(alias)], and read both. After an addition, \
    write the file again: INSTA_UPDATE=always cargo test -p limosa-engine --test main stored_documents";

/// What documents are made of, by kind: each field's path with its types, and in how many of the documents it is.
#[derive(Default)]
struct Shapes(BTreeMap<String, (usize, BTreeMap<String, Field>)>);

#[derive(Default)]
struct Field {
    types: BTreeSet<String>,
    documents: usize,
}

impl Shapes {
    fn add(&mut self, kind: &str, document: Document) {
        let mut found = BTreeMap::new();
        walk("", &Bson::Document(document), &mut found);
        let (documents, fields) = self.0.entry(kind.to_owned()).or_default();
        *documents += 1;
        for (path, types) in found {
            let field = fields.entry(path).or_default();
            field.types.extend(types);
            field.documents += 1;
        }
    }

    /// All documents of `__limosa`.
    async fn read(&mut self, client: &Client, side: &str) {
        let db = client.database("__limosa");
        for name in db.list_collection_names().await.expect("lists") {
            let mut found = db.collection::<Document>(&name).find(doc! {}).await.expect("finds");
            while found.advance().await.expect("reads") {
                let mut document = found.deserialize_current().expect("is a document");
                let kind = match document.get("_id") {
                    Some(Bson::String(id)) if id == "lock" => format!("{side} {name}, the lock"),
                    _ => format!("{side} {name}"),
                };
                if let Some(Bson::String(record)) = document.get("record") {
                    self.add_json(&format!("{kind}, the record's JSON"), record);
                }
                // Any value that an `_id` may have.
                for edge in ["min", "max"] {
                    document.get_mut(edge).into_iter().for_each(|value| *value = "any".into());
                }
                self.add(&kind, document);
            }
        }
    }

    fn add_json(&mut self, kind: &str, text: &str) {
        let mut parsed: serde_json::Value = serde_json::from_str(text).expect("is JSON");
        // Its keys are words for the reader of a report.
        if parsed.get("configuration").is_some() {
            parsed["configuration"] = "by name".into();
        }
        self.add(kind, bson::serialize_to_document(&parsed).expect("is a document"));
    }

    fn has(&self, kind: &str, path: &str) -> bool {
        self.0.get(kind).is_some_and(|(_, fields)| fields.contains_key(path))
    }
}

impl std::fmt::Display for Shapes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (kind, (documents, fields)) in &self.0 {
            writeln!(f, "{kind}")?;
            for (path, field) in fields {
                let types: Vec<&str> = field.types.iter().map(String::as_str).collect();
                let optional = if field.documents < *documents { ", optional" } else { "" };
                writeln!(f, "  {path}: {}{optional}", types.join(" or "))?;
            }
        }
        Ok(())
    }
}

/// The paths below `value`, with the types of what is there; numbers of JSON have no type of their own.
fn walk(path: &str, value: &Bson, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if !path.is_empty() {
        found.entry(path.to_owned()).or_default().insert(format!("{:?}", value.element_type()));
    }
    match value {
        Bson::Document(inner) => {
            let dot = if path.is_empty() { "" } else { "." };
            inner.iter().for_each(|(name, value)| walk(&format!("{path}{dot}{name}"), value, found));
        }
        Bson::Array(values) => values.iter().for_each(|value| walk(&format!("{path}[]"), value, found)),
        _ => {}
    }
}

async fn seed(client: &Client) {
    let app = client.database("app");
    let small: Vec<Document> = (0..100).map(|n| doc! {"_id": n, "n": n}).collect();
    app.collection("small").insert_many(small).await.expect("inserts");
    // More than one range.
    let payload = "p".repeat(1024 * 1024);
    for tens in 0..7 {
        let large: Vec<Document> = (0..10).map(|n| doc! {"_id": 10 * tens + n, "p": &payload}).collect();
        app.collection("large").insert_many(large).await.expect("inserts");
    }
    app.create_collection("old").await.expect("creates");
}

/// Something to wait for and to write again, so that it is counted.
async fn disturb(from: &Client, to: &Client, settings: &Settings) {
    let update =
        |code: i32, labels: &[&str]| doc! {"failCommands": ["update"], "errorCode": code, "errorLabels": labels};
    let write = async |id: &str| {
        let small = from.database("app").collection("small");
        small.insert_one(doc! {"_id": id}).await.expect("inserts");
        let there = to.database("app").collection::<Document>("small");
        until("the write", async || there.find_one(doc! {"_id": id}).await.expect("finds").is_some()).await;
    };
    let counted = |name: &str| scraped(&settings.metrics).lines().any(|line| line.starts_with(name));
    for (name, failure) in [
        ("limosa_engine_write_retries_total{", update(112, &["TransientTransactionError"])),
        ("limosa_engine_waits_total{", update(13, &[])),
    ] {
        let mut n = 0;
        // It may be another update than one of the data that fails.
        while !counted(name) {
            assert!(n < 20, "{name} is never counted");
            fail_command(to, doc! {"times": 1}, failure.clone()).await;
            write(&format!("{name} {n}")).await;
            n += 1;
        }
    }
    fail_command(to, "off", doc! {}).await;
}

/// A migration that takes another's place, copies twice, is cut over and could be reversed.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_stored_documents_and_of_metrics_stay() {
    let Pair { source, destination, from, to } = Pair::start().await;
    seed(&from).await;
    let mut shapes = Shapes::default();
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut replaced = settings(&source, &destination, one.path());
    replaced.filter.include = vec!["app.*".parse().expect("a pattern")];
    replaced.filter.exclude = vec!["app.nothing".parse().expect("a pattern")];
    let mut run = Run::start(&replaced);
    run.reach(PhaseKind::Synced).await;
    let id = MigrationId::generate();
    let mut settings =
        Settings { migration_id: id, data_dir: two.path().to_owned(), drop_destination_data: true, ..replaced.clone() };
    settings.claim.replaces = vec![replaced.migration_id];
    let cutover = CutoverOptions { block_source_writes: true, reversible: true };
    settings.steering.set(RunOptions { cutover, ..RunOptions::default() });
    let planned = failpoint::arm(failpoint::PLANNED, id);
    let mut second = Run::start(&settings);
    run.end().await;
    planned.reached().await;
    // Where there is the least: what isn't there now is optional.
    shapes.read(&to, "destination").await;
    planned.release();
    second.reach(PhaseKind::Synced).await;
    second.kill().await;
    (settings.epoch, settings.recopies) = (settings.epoch.next(), 1);
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    disturb(&from, &to, &settings).await;
    let rename = doc! {"renameCollection": "app.old", "to": "app.new"};
    from.database("admin").run_command(rename).await.expect("renames");
    // Noted every second or two.
    for _ in 0..100 {
        shapes.read(&to, "destination").await;
        let noted = ["intent.to", "token", "sourceSeen", "verifier", "recopies"];
        if noted.iter().all(|path| shapes.has("destination migrations", path)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    run.reach_quietly(PhaseKind::Synced).await;
    let verifies = failpoint::arm(failpoint::STEPS_NOTED[3], id);
    run.order(Directive::CutOver);
    verifies.reached().await;
    shapes.read(&to, "destination").await;
    shapes.read(&from, "source").await;
    verifies.release();
    assert_eq!(run.end().await, limosa_engine::Outcome::Complete);
    shapes.read(&to, "destination").await;
    for dir in [one.path(), two.path()] {
        for file in std::fs::read_dir(dir.join("migrations")).expect("is there") {
            let text = std::fs::read_to_string(file.expect("is one").path()).expect("reads");
            shapes.add_json("data directory migrations/ID.json", &text);
        }
    }
    insta::with_settings!({
        snapshot_path => "golden", prepend_module_to_snapshot => false, description => ADVICE, omit_expression => true,
    }, {
        insta::assert_snapshot!("stored_documents", shapes.to_string());
        insta::assert_snapshot!("metric_names", metric_names::names(&scraped(&settings.metrics)));
    });
}
