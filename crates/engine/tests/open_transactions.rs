//! Transactions that are open while a migration begins or ends.

use crate::support::{Pair, Run, hold_reads, settings};
use bson::{Document, doc};
use limosa_model::PhaseKind;
use limosa_testkit::compare;
use mongodb::{Client, ClientSession};

async fn begin(client: &Client, name: &str) -> ClientSession {
    let mut session = client.start_session().await.expect("starts");
    session.start_transaction().await.expect("starts");
    write(client, &mut session, name, "first").await;
    session
}

/// A new document, and a change of one that is there.
async fn write(client: &Client, session: &mut ClientSession, name: &str, what: &str) {
    let collection = client.database("open").collection::<Document>("c");
    let new = doc! {"_id": format!("{name} {what}")};
    collection.insert_one(new).session(&mut *session).await.expect("inserts");
    let (id, set) = (doc! {"_id": name}, doc! {"$set": {"deep": {"at": what}}, "$inc": {"n": 1}});
    collection.update_one(id, set).session(session).await.expect("updates");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_open_at_either_end_arrive_if_they_are_committed_in_time() {
    let Pair { source, destination, from, to } = Pair::start().await;
    let names = ["during the copy", "once it follows", "aborted", "unfinished", "begun later"];
    let documents: Vec<Document> = names.iter().map(|name| doc! {"_id": *name, "n": 0}).collect();
    from.database("open").collection("c").insert_many(documents).await.expect("inserts");
    // All open when the place in the stream is noted.
    let mut during = begin(&from, names[0]).await;
    let mut following = begin(&from, names[1]).await;
    let mut aborted = begin(&from, names[2]).await;
    let mut unfinished = begin(&from, names[3]).await;
    hold_reads(&from, "open.c", true).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut run = Run::start(&settings(&source, &destination, dir.path()));
    run.reach(PhaseKind::Copying).await;
    write(&from, &mut during, names[0], "second").await;
    during.commit_transaction().await.expect("commits");
    write(&from, &mut aborted, names[2], "second").await;
    aborted.abort_transaction().await.expect("aborts");
    hold_reads(&from, "open.c", false).await;
    run.reach(PhaseKind::Synced).await;
    write(&from, &mut following, names[1], "second").await;
    following.commit_transaction().await.expect("commits");
    let mut later = begin(&from, names[4]).await;
    write(&from, &mut unfinished, names[3], "second").await;
    // Two are open: what they wrote was never acknowledged, and isn't waited for.
    run.cut_over().await;
    unfinished.abort_transaction().await.expect("aborts");
    later.abort_transaction().await.expect("aborts");
    compare(&from, &to, &["open"]).await.expect("equal");
    let count = to.database("open").collection::<Document>("c").count_documents(doc! {}).await.expect("counts");
    assert_eq!(count, names.len() as u64 + 4);
}
