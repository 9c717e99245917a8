//! Everything that a database can hold, case by case. A case is described once, as what a database has and what changes
//! in it, and happens three times within one migration, each time in a database of its own: before the start, so that
//! the copy carries it; while the copy is held, so that both do; and once the destination follows, so that replication
//! carries it. In the end both sides are compared: options, indexes, documents byte for byte, `dbHash`.
//!
//! `LIMOSA_CASES=part,of,names` runs only some.

mod collections;
mod definitions;
mod documents;
mod indexes;
mod transactions;
mod updates;

use crate::support::{Run, hold_reads, settings};
use bson::{Document, doc};
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use limosa_model::PhaseKind;
use limosa_testkit::{Error, ReplicaSet, compare};
use mongodb::{Client, Collection, Database};
use std::time::Duration;

/// One thing that a database can hold or that can happen in it.
pub struct Case {
    pub name: &'static str,
    /// The oldest source that has it.
    pub since: (u32, u32),
    setup: Step,
    change: Step,
}

type Step = fn(Place) -> BoxFuture<'static, Result<(), Error>>;

impl Case {
    /// What the database has, and what happens in it.
    pub const fn new(name: &'static str, setup: Step, change: Step) -> Self {
        Self { name, since: (4, 4), setup, change }
    }

    /// Only on sources of this release or later.
    pub const fn since(self, major: u32, minor: u32) -> Self {
        Self { since: (major, minor), ..self }
    }
}

/// `case!("name", p => { setup }, p => { change })`: both with `?`, `p` being a [`Place`].
macro_rules! case {
    ($name:literal, $a:pat => $setup:block, $b:pat => $change:block) => {
        $crate::cases::Case::new(
            $name,
            |$a| {
                Box::pin(async move {
                    $setup;
                    Ok(())
                })
            },
            |$b| {
                Box::pin(async move {
                    $change;
                    Ok(())
                })
            },
        )
    };
}
pub(crate) use case;

/// A case's own databases.
#[derive(Clone)]
pub struct Place {
    pub client: Client,
    pub name: String,
}

impl Place {
    pub fn db(&self) -> Database {
        self.client.database(&self.name)
    }

    /// A second one, for what goes across databases.
    pub fn other(&self) -> Database {
        self.client.database(&format!("{}2", self.name))
    }

    pub fn coll(&self, name: &str) -> Collection<Document> {
        self.db().collection(name)
    }

    pub async fn run(&self, command: Document) -> Result<Document, Error> {
        let name = command.keys().next().cloned().unwrap_or_default();
        self.db().run_command(command).await.map_err(|e| format!("{name}: {e}").into())
    }

    pub async fn admin(&self, command: Document) -> Result<Document, Error> {
        Ok(self.client.database("admin").run_command(command).await?)
    }

    /// Inserts what isn't there yet.
    pub async fn insert_new(&self, coll: &str, documents: impl IntoIterator<Item = Document>) -> Result<(), Error> {
        let documents: Vec<Document> = documents.into_iter().collect();
        self.run(doc! {"insert": coll, "documents": documents, "ordered": false}).await?;
        Ok(())
    }

    pub async fn insert(&self, coll: &str, documents: impl IntoIterator<Item = Document>) -> Result<(), Error> {
        self.coll(coll).insert_many(documents).await?;
        Ok(())
    }

    /// Updates one document; `u` is an update document or a pipeline.
    pub async fn update(&self, coll: &str, q: Document, u: impl Into<bson::Bson>) -> Result<(), Error> {
        let reply = self.run(doc! {"update": coll, "updates": [{"q": q, "u": u.into()}]}).await?;
        match reply.get_array("writeErrors") {
            Ok(errors) => Err(format!("{errors:?}").into()),
            Err(_) => Ok(()),
        }
    }

    pub async fn update_many(&self, coll: &str, q: Document, u: Document) -> Result<(), Error> {
        self.run(doc! {"update": coll, "updates": [{"q": q, "u": u, "multi": true}]}).await?;
        Ok(())
    }

    pub async fn delete(&self, coll: &str, q: Document) -> Result<(), Error> {
        self.coll(coll).delete_many(q).await?;
        Ok(())
    }

    pub async fn aggregate(&self, coll: &str, pipeline: Vec<Document>) -> Result<(), Error> {
        self.coll(coll).aggregate(pipeline).await?.try_collect::<Vec<Document>>().await?;
        Ok(())
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.rename_over(from, to, false).await
    }

    pub async fn rename_over(&self, from: &str, to: &str, drop_target: bool) -> Result<(), Error> {
        let ns = |coll: &str| format!("{}.{coll}", self.name);
        self.admin(doc! {"renameCollection": ns(from), "to": ns(to), "dropTarget": drop_target}).await?;
        Ok(())
    }
}

fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').filter_map(|part| part.parse().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The cases for a source and destination of these versions.
fn chosen(source: &str, destination: &str) -> Vec<&'static Case> {
    let wanted = std::env::var("LIMOSA_CASES").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|part| !part.is_empty()).collect();
    let all =
        [documents::CASES, updates::CASES, collections::CASES, indexes::CASES, definitions::CASES, transactions::CASES];
    let fits = |case: &&Case| case.since <= release(source).min(release(destination));
    let named = |case: &&Case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part));
    all.into_iter().flatten().filter(fits).filter(named).collect()
}

fn is_transient(error: &Error) -> bool {
    let driver = error.downcast_ref::<mongodb::error::Error>();
    driver.is_some_and(|e| e.contains_label("TransientTransactionError"))
}

/// The longest that a source may work at one case's change, on the busiest machine.
const A_CHANGE: Duration = Duration::from_secs(120);

/// The collection that the copy reads first.
const HELD: &str = "0hold.x";

/// Runs all cases from `source` to `destination`.
async fn run_cases(source: &str, destination: &str) {
    let cases = chosen(source, destination);
    let started = async |version: &str| ReplicaSet::builder().version(version).oplog_mb(990).start().await;
    let (source, destination) = (started(source).await.expect("starts"), started(destination).await.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    let place = |when: &str, case: &Case| Place { client: from.clone(), name: format!("{when}_{}", case.name) };
    let change = async |when: &str| {
        let mut failed = Vec::new();
        for case in &cases {
            let changed = tokio::time::timeout(A_CHANGE, async {
                let mut done = (case.change)(place(when, case)).await;
                // What an application does: a transaction that met a conflict is begun again.
                while done.as_ref().is_err_and(is_transient) {
                    done = (case.change)(place(when, case)).await;
                }
                done
            });
            let done = changed.await.unwrap_or_else(|_| Err("the source never answered".into()));
            failed.extend(done.err().map(|e| format!("{when}_{}: {e}", case.name)));
        }
        assert!(failed.is_empty(), "the source refused:\n{}", failed.join("\n"));
    };
    for case in &cases {
        for when in ["before", "during", "after"] {
            (case.setup)(place(when, case)).await.unwrap_or_else(|e| panic!("{} can't be set up: {e}", case.name));
        }
    }
    change("before").await;
    from.database("0hold").collection("x").insert_one(doc! {"_id": 1}).await.expect("inserts");
    hold_reads(&from, HELD, true).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    // The copy goes by name, and this collection holds its only worker.
    settings.tuning.copy_workers = 1;
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Copying).await;
    change("during").await;
    assert_eq!(run.report().phase, PhaseKind::Copying, "the copy was not held");
    hold_reads(&from, HELD, false).await;
    run.reach(PhaseKind::Synced).await;
    change("after").await;
    run.cut_over().await;
    let mut differences = Vec::new();
    for case in &cases {
        for when in ["before", "during", "after"] {
            let name = place(when, case).name;
            if let Err(difference) = compare(&from, &to, &[&name, &format!("{name}2")]).await {
                differences.push(difference.to_string());
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_database_holds_arrives_before_during_and_after_the_copy() {
    run_cases("6.0.5", "6.0.5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_4_4_database_holds_arrives() {
    run_cases("4.4.2", "6.0.5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_5_0_database_holds_arrives() {
    run_cases("5.0.4", "6.0.27").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_versions_works() {
    if std::env::var_os("LIMOSA_FULL").is_none() {
        eprintln!("SKIPPED: the matrix of versions runs under --full");
        return;
    }
    for source in ["4.4.2", "5.0.4", "6.0.5", "6.0.27"] {
        for destination in ["5.0.4", "6.0.5", "6.0.27"] {
            if release(source) <= release(destination) {
                eprintln!("{source} to {destination}");
                run_cases(source, destination).boxed_local().await;
            }
        }
    }
}
