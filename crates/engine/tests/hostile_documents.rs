//! Documents that a server takes and that are hard to write again: fields of one name, timestamps of zeros, names that no
//! update can say, bytes that are no UTF-8. Each is there before the copy, comes with an insert, and is updated.

use crate::support::{Pair, Run, settings};
use bson::{Document, RawBsonRef, RawDocumentBuf, doc, rawdoc};
use futures::StreamExt;
use limosa_model::PhaseKind;
use limosa_testkit::ReplicaSet;
use mongodb::Client;

/// One element's type, name and value as bytes.
fn element(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[kind], name, &[0], value].concat()
}

fn int(name: &[u8], value: i32) -> Vec<u8> {
    element(0x10, name, &value.to_le_bytes())
}

fn nested(name: &[u8], fields: &[Vec<u8>]) -> Vec<u8> {
    element(0x03, name, document(fields).as_bytes())
}

fn document(fields: &[Vec<u8>]) -> RawDocumentBuf {
    let body = fields.concat();
    let length = (body.len() as i32 + 5).to_le_bytes();
    RawDocumentBuf::from_bytes([&length[..], &body, &[0]].concat()).expect("has its length")
}

/// A timestamp of zeros.
fn zeros(name: &[u8]) -> Vec<u8> {
    element(0x11, name, &[0; 8])
}

async fn run(client: &Client, db: &str, command: RawDocumentBuf) {
    let reply = client.database(db).run_raw_command(command).await.expect("is carried out");
    assert!(!reply.contains_key("writeErrors"), "{reply}");
}

/// Inserts just these bytes: an upsert by a pipeline keeps timestamps of zeros.
fn exact_insert(coll: &str, id: &[u8], whole: &RawDocumentBuf) -> RawDocumentBuf {
    let literal = document(&[element(0x03, b"$literal", whole.as_bytes())]);
    let stage = document(&[element(0x03, b"$replaceWith", literal.as_bytes())]);
    let pipeline = document(&[element(0x03, b"0", stage.as_bytes())]);
    let statement = document(&[
        nested(b"q", &[id.to_vec()]),
        element(0x04, b"u", pipeline.as_bytes()),
        element(0x08, b"upsert", &[1]),
    ]);
    let statements = document(&[element(0x03, b"0", statement.as_bytes())]);
    document(&[body_of(&rawdoc! {"update": coll}), element(0x04, b"updates", statements.as_bytes())])
}

fn plain_insert(coll: &str, whole: &RawDocumentBuf) -> RawDocumentBuf {
    let documents = document(&[element(0x03, b"0", whole.as_bytes())]);
    document(&[body_of(&rawdoc! {"insert": coll}), element(0x04, b"documents", documents.as_bytes())])
}

fn body_of(document: &RawDocumentBuf) -> Vec<u8> {
    let bytes = document.as_bytes();
    bytes[4..bytes.len() - 1].to_vec()
}

/// All documents as bytes, sorted.
async fn bytes(client: &Client, db: &str, coll: &str) -> Vec<Vec<u8>> {
    let command = doc! {"find": coll, "batchSize": 1000};
    let mut cursor = client.database(db).run_cursor_command(command).batch().await.expect("reads");
    let mut all = Vec::new();
    while let Some(batch) = cursor.next().await {
        let batch = batch.expect("reads");
        let slices = batch.doc_slices().expect("is a batch");
        all.extend(slices.into_iter().flatten().filter_map(RawBsonRef::as_document).map(|d| d.as_bytes().to_vec()));
    }
    all.sort();
    all
}

/// Fails with the first document that differs.
async fn same(from: &Client, to: &Client, db: &str, coll: &str) {
    let (source, destination) = (bytes(from, db, coll).await, bytes(to, db, coll).await);
    for (n, (a, b)) in source.iter().zip(&destination).enumerate() {
        assert!(a == b, "{db}.{coll}, document {n}:\n{}\n{}", a.escape_ascii(), b.escape_ascii());
    }
    assert_eq!(source.len(), destination.len(), "{db}.{coll}");
}

async fn pair(source: &str, destination: &str) -> Pair {
    let (source, destination) =
        tokio::join!(ReplicaSet::builder().version(source).start(), ReplicaSet::builder().version(destination).start());
    let (source, destination) = (source.expect("starts"), destination.expect("starts"));
    let (from, to) = (source.client().await, destination.client().await);
    Pair { source, destination, from, to }
}

fn text(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = (value.len() as i32 + 1).to_le_bytes();
    element(0x02, name, &[&length[..], value, &[0]].concat())
}

/// Each with its `_id` field first; `n` makes the `_id`s unique.
fn hostile(n: i32, version: &str) -> Vec<(Vec<u8>, RawDocumentBuf)> {
    let padding = || text(b"padding", &[b'x'; 300]);
    let mut bodies: Vec<Vec<Vec<u8>>> = vec![
        vec![int(b"a", 1), int(b"a", 2), int(b"b", 3)],
        vec![int(b"a", 1), int(b"b", 3), int(b"a", 2)],
        vec![nested(b"n", &[int(b"a", 1), int(b"a", 2)]), int(b"b", 3)],
        vec![nested(b"a", &[int(b"q", 1)]), nested(b"a", &[int(b"q", 2)]), int(b"b", 3)],
        vec![zeros(b"t"), int(b"b", 3)],
        vec![zeros(b"t"), int(b"a", 1), int(b"a", 2)],
        vec![int(b"t", 1), zeros(b"t"), zeros(b"t")],
        vec![zeros(b"a.b"), zeros(b""), zeros(b"7")],
        vec![int(b"\xff\xfe", 1), zeros(b"t")],
        vec![zeros(b"\xff\xfe")],
        vec![int(b"a.b", 1), int(b"", 2), int(b"0", 3)],
        vec![element(0x0b, b"r", b"a\0xi\0")],
        vec![element(0x04, b"r", document(&[int(b"5", 1), int(b"0", 2), int(b"foo", 3)]).as_bytes())],
        vec![nested(b"r", &[text(b"$ref", b"c"), int(b"$id", 1)])],
        vec![nested(b"r", &[int(b"$id", 1)])],
        vec![nested(b"r", &[int(b"$x", 1)])],
        vec![element(0x06, b"u", b""), element(0x01, b"nan", &f64::NAN.to_le_bytes())],
        vec![element(0x13, b"d", &[0x7c; 16])],
        vec![nested_deep(170)],
        vec![text(b"v", b"\xff\xfe")],
    ];
    if version != "4.4.2" {
        bodies.push(vec![int(b"$b", 1), int(b"a", 1)]);
        bodies.push(vec![int(b"\xff", 1), int(b"$b", 1)]);
        bodies.push(vec![int(b"a", 1), int(b"$v", 1), zeros(b"t")]);
    }
    let plain = bodies.into_iter().zip(n * 100..).map(|(body, id)| {
        let id = int(b"_id", id);
        (id.clone(), document(&[&[id], &body[..], &[padding()]].concat()))
    });
    let ids = [
        nested(b"_id", &[int(b"q", n), int(b"q", 1)]),
        nested(b"_id", &[int(b"a.b", n), element(0x0b, b"r", b"a\0xi\0")]),
        nested(b"_id", &[int(b"", n), element(0x06, b"u", b"")]),
    ];
    let odd = ids.into_iter().map(|id| (id.clone(), document(&[id, int(b"b", 1), padding()])));
    plain.chain(odd).collect()
}

fn nested_deep(levels: usize) -> Vec<u8> {
    (0..levels).fold(int(b"k", 1), |inner, _| nested(b"n", &[inner]))
}

/// The updates: two that together create fields in an order that no single one can, others that remove, that touch a
/// name that is there twice, that push, that keep options of a regular expression as they are.
fn updates() -> Vec<RawDocumentBuf> {
    let set = |fields: &[Vec<u8>]| document(&[nested(b"$set", fields)]);
    vec![
        set(&[int(b"z", 1)]),
        set(&[int(b"c", 1)]),
        set(&[element(0x0b, b"regex", b"a\0xi\0")]),
        document(&[nested(b"$unset", &[int(b"b", 1)])]),
        set(&[int(b"aa", 7), int(b"y", 8)]),
        set(&[zeros(b"t2")]),
        document(&[nested(b"$inc", &[int(b"z", 5)])]),
        document(&[nested(b"$push", &[int(b"list", 5)])]),
        set(&[nested(b"sub", &[int(b"a", 1), int(b"a", 2)])]),
        set(&[int(b"sub.c", 3)]),
    ]
}

/// One command, so that its events come in one reply.
async fn update_all(client: &Client, db: &str, coll: &str, ids: &[Vec<u8>]) {
    for id in ids {
        let statements: Vec<Vec<u8>> = updates()
            .iter()
            .enumerate()
            .map(|(n, u)| {
                let statement = document(&[nested(b"q", std::slice::from_ref(id)), element(0x03, b"u", u.as_bytes())]);
                element(0x03, n.to_string().as_bytes(), statement.as_bytes())
            })
            .collect();
        let statements = document(&statements);
        let command = document(&[body_of(&rawdoc! {"update": coll}), element(0x04, b"updates", statements.as_bytes())]);
        run(client, db, command).await;
    }
}

/// Each goes, and another comes in its place with the same `_id`: in one transaction, so that both changes come in one
/// reply.
async fn replace_all(client: &Client, coll: &str, all: &[(Vec<u8>, RawDocumentBuf)]) {
    let mut session = client.start_session().await.expect("starts");
    session.start_transaction().await.expect("starts");
    for (n, (id, _)) in all.iter().enumerate() {
        let (other, whole) = &all[(n + 1) % all.len()];
        let statement = document(&[nested(b"q", std::slice::from_ref(id)), int(b"limit", 1)]);
        let statements = document(&[element(0x03, b"0", statement.as_bytes())]);
        let delete = document(&[body_of(&rawdoc! {"delete": coll}), element(0x04, b"deletes", statements.as_bytes())]);
        let successor = document(&[&id[..], &body_of(whole)[other.len()..]].map(<[u8]>::to_vec));
        for command in [delete, placing(coll, id, &successor)] {
            let reply = client.database("app").run_raw_command(command).session(&mut session).await;
            assert!(reply.as_ref().is_ok_and(|reply| !reply.contains_key("writeErrors")), "{reply:?}");
        }
    }
    session.commit_transaction().await.expect("commits");
}

async fn hostile_documents_pass(source: &str, destination: &str) {
    eprintln!("from {source} to {destination}");
    let Pair { source: s, destination: d, from, to } = pair(source, destination).await;
    let kinds = ["plain", "ring"];
    for coll in kinds {
        if coll == "ring" {
            let create = doc! {"create": coll, "capped": true, "size": 10_000_000};
            from.database("app").run_command(create).await.expect("creates");
        }
        for (id, whole) in hostile(1, source) {
            place(&from, coll, &id, &whole).await;
        }
    }
    let process = d.pid(0);
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&s, &d, dir.path());
    settings.filter.include = vec!["app.*".parse().expect("a pattern")];
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    for coll in kinds {
        for (id, whole) in hostile(2, source) {
            place(&from, coll, &id, &whole).await;
        }
    }
    let ids: Vec<Vec<u8>> = [hostile(1, source), hostile(2, source)].concat().into_iter().map(|(id, _)| id).collect();
    update_all(&from, "app", "plain", &ids).await;
    replace_all(&from, "plain", &hostile(2, source)).await;
    let progress = run.cut_over().await;
    assert_eq!(d.pid(0), process);
    assert!(!d.log(0).contains("\"s\":\"F\""), "the destination died");
    for coll in kinds {
        same(&from, &to, "app", coll).await;
    }
    assert_eq!(progress.documents_repaired, 0, "what was applied was wrong at first");
}

/// By the way that keeps its bytes: an insert puts the time in place of zeros, and before 5.0 only an insert takes some
/// names that begin with a dollar.
fn placing(coll: &str, id: &[u8], whole: &RawDocumentBuf) -> RawDocumentBuf {
    match whole.as_bytes().windows(9).any(|bytes| bytes == [0; 9]) {
        true => exact_insert(coll, id, whole),
        false => plain_insert(coll, whole),
    }
}

async fn place(client: &Client, coll: &str, id: &[u8], whole: &RawDocumentBuf) {
    run(client, "app", placing(coll, id, whole)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_hard_to_write_pass_to_6_0() {
    hostile_documents_pass("6.0.5", "6.0.5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_hard_to_write_pass_to_a_newer_release() {
    hostile_documents_pass("4.4.2", "6.0.5").await;
    hostile_documents_pass("5.0.4", "6.0.27").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_hard_to_write_pass_between_old_releases() {
    hostile_documents_pass("4.4.2", "4.4.2").await;
    hostile_documents_pass("4.4.2", "5.0.4").await;
}

/// The server takes a field `$v` in a document that a pipeline put in place of another for the version of an update, and
/// its change stream ends there for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_source_can_not_tell_is_read_again() {
    for version in ["6.0.5", "5.0.4"] {
        let Pair { source, destination, from, to } = pair(version, "6.0.5").await;
        let coll = from.database("app").collection::<Document>("c");
        coll.insert_many((0..20).map(|n| doc! {"_id": n, "a": 1})).await.expect("inserts");
        let dir = tempfile::tempdir().expect("a directory");
        let mut run = Run::start(&settings(&source, &destination, dir.path()));
        run.reach(PhaseKind::Synced).await;
        coll.update_one(doc! {"_id": 3}, doc! {"$set": {"a": 2}}).await.expect("updates");
        for (id, version) in [(5, bson::Bson::Int32(2)), (6, "text".into())] {
            let literal = doc! {"$literal": {"_id": id, "a": 3, "$v": version}};
            coll.update_one(doc! {"_id": id}, vec![doc! {"$replaceWith": literal}]).await.expect("updates");
            coll.update_one(doc! {"_id": 7}, doc! {"$set": {"a": id}}).await.expect("updates");
        }
        coll.delete_one(doc! {"_id": 8}).await.expect("deletes");
        let report = run.cut_over_and_tell().await;
        same(&from, &to, "app", "c").await;
        let told = report.record.expect("is told").reread;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("app.c _id 5: "), "{told:?}");
    }
}

/// A document whose write ends the destination's process, each time that it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_took_the_destination_down_twice_is_not_sent_for_ever() {
    let source = ReplicaSet::start().await.expect("starts");
    let mut destination = ReplicaSet::builder().proxied().uncompressed().start().await.expect("starts");
    let (from, to) = (source.client().await, destination.client().await);
    let coll = from.database("app").collection::<Document>("c");
    coll.insert_many((0..200).map(|n| doc! {"_id": n, "a": 1})).await.expect("inserts");
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut run = Run::start(&settings);
    run.reach(PhaseKind::Synced).await;
    destination.proxy(0).hold_messages_with(b"deadly words");
    let all = doc! {"$set": {"a": 2}};
    coll.update_many(doc! {}, all).await.expect("updates");
    coll.update_one(doc! {"_id": 77}, doc! {"$set": {"text": "deadly words"}}).await.expect("updates");
    destination.proxy(0).held(1).await;
    destination.restart(0).await.expect("comes back");
    destination.proxy(0).held(2).await;
    // The count outlives the agent, which needn't even see the second end.
    destination.kill(0);
    run.kill().await;
    settings.epoch = settings.epoch.next();
    destination.restart(0).await.expect("comes back");
    let failure = match Run::start(&settings).end().await {
        limosa_engine::Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure.code, limosa_model::ErrorCode::WriteEndsDestination, "{failure}");
    assert!(failure.message.contains("app.c") && failure.message.contains("77"), "{failure}");
    assert_eq!(destination.proxy(0).held_so_far(), 2, "it was sent a third time");
    // Once the destination bears it, a resume writes the document whole.
    destination.proxy(0).hold_messages_with(b"");
    settings.epoch = settings.epoch.next();
    Run::start(&settings).cut_over().await;
    same(&from, &to, "app", "c").await;
}

/// On a way back two documents exchange a unique value, and both are read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_unique_value_that_is_taken_for_the_moment_is_written_after_the_others() {
    let Pair { source, destination, from, .. } = Pair::start().await;
    let coll = from.database("app").collection::<Document>("c");
    coll.insert_many((1..4).map(|n| doc! {"_id": n, "u": n, "list": [0]})).await.expect("inserts");
    let index = doc! {"createIndexes": "c", "indexes": [{"key": {"u": 1}, "name": "u", "unique": true}]};
    from.database("app").run_command(index).await.expect("builds");
    let dir = tempfile::tempdir().expect("a directory");
    let forth = settings(&source, &destination, dir.path());
    let cutover = limosa_model::cutover::CutoverOptions { reversible: true, ..Default::default() };
    forth.steering.set(limosa_model::cutover::RunOptions { cutover, ..Default::default() });
    let report = Run::start(&forth).cut_over_and_tell().await;
    let turning_point = report.record.expect("is told").turning_point;
    let mut back = settings(&destination, &source, dir.path());
    back.reversal_from = turning_point;
    let mut run = Run::start(&back);
    run.reach(PhaseKind::Synced).await;
    let to = destination.client().await;
    let coll = to.database("app").collection::<Document>("c");
    let mut session = to.start_session().await.expect("starts");
    session.start_transaction().await.expect("starts");
    for (id, u) in [(3, 30), (2, 3), (1, 2)] {
        let update = doc! {"$set": {"u": u, "list.0": u}};
        coll.update_one(doc! {"_id": id}, update).session(&mut session).await.expect("updates");
    }
    session.commit_transaction().await.expect("commits");
    let progress = run.cut_over().await;
    same(&from, &to, "app", "c").await;
    assert_eq!(progress.documents_repaired, 0, "a write was dropped and repaired later");
}
