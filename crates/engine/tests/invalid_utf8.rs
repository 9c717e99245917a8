//! Text that isn't UTF-8, which the server keeps and old drivers wrote: in `_id`s, in values and in names of fields.

use crate::support::{Pair, Run, settings};
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use limosa_engine::{VerifyOptions, VerifyProgress};
use limosa_model::{NamespaceFilter, PhaseKind, Secret, verification::VerificationReport};
use limosa_testkit::ReplicaSet;
use mongodb::Client;
use std::{path::Path, time::Duration};
use tokio::sync::watch;

/// Stands for a byte that begins nothing in UTF-8, in documents that are written down here.
const MARK: char = '\u{7f}';

/// The document with each [`MARK`] made such a byte.
fn spoilt(document: &RawDocumentBuf) -> RawDocumentBuf {
    let bytes = document.as_bytes();
    let spoilt = bytes.iter().map(|byte| if *byte == MARK as u8 { 0xE9 } else { *byte }).collect();
    RawDocumentBuf::from_bytes(spoilt).expect("is a document")
}

async fn run(client: &Client, command: RawDocumentBuf) -> Document {
    let reply = client.database("app").run_raw_command(spoilt(&command)).await.expect("is taken");
    assert!(!reply.contains_key("writeErrors"), "{reply}");
    reply
}

fn ids() -> Vec<RawDocumentBuf> {
    let mut all: Vec<RawDocumentBuf> =
        (0..50).map(|n| rawdoc! {"_id": format!("caf\u{7f}{n}"), "n": n, "v": "x\u{7f}y"}).collect();
    all.push(rawdoc! {"_id": {"nested": "a\u{7f}", "list": ["b\u{7f}", 1]}, "n": 100});
    all.push(rawdoc! {"_id": {"name\u{7f}": 1}, "n": 101, "named\u{7f}": {"deep\u{7f}": 1}});
    all.push(rawdoc! {"_id": "plain", "named\u{7f}": 1, "n": 102});
    all
}

async fn insert(client: &Client, documents: &[RawDocumentBuf]) {
    let mut all = bson::RawArrayBuf::new();
    documents.iter().for_each(|document| all.push(document.clone()));
    run(client, rawdoc! {"insert": "old", "documents": all}).await;
}

async fn update(client: &Client, id: &str, u: RawDocumentBuf) {
    let reply = run(client, rawdoc! {"update": "old", "updates": [{"q": {"_id": id}, "u": u}]}).await;
    assert_eq!(reply.get_i32("n").ok(), Some(1), "{reply}");
}

async fn delete(client: &Client, id: &str) {
    let reply = run(client, rawdoc! {"delete": "old", "deletes": [{"q": {"_id": id}, "limit": 1}]}).await;
    assert_eq!(reply.get_i32("n").ok(), Some(1), "{reply}");
}

async fn verify(source: &ReplicaSet, destination: &ReplicaSet, dir: &Path, settle: u64) -> VerificationReport {
    let options = VerifyOptions {
        source_uri: Secret::new(source.uri()),
        destination_uri: Secret::new(destination.uri()),
        filter: NamespaceFilter::default(),
        sample_percent: None,
        settle_seconds: settle,
        work_dir: dir.to_owned(),
        workers: 1,
    };
    let progress = watch::Sender::new(VerifyProgress::default());
    let verified = tokio::time::timeout(Duration::from_secs(60), limosa_engine::verify(&options, &progress)).await;
    verified.expect("it ends").expect("it can say")
}

async fn hash(client: &Client) -> String {
    client.database("app").run_command(doc! {"dbHash": 1}).await.expect("hashes").get_str("md5").expect("is one").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_copied_replicated_verified_and_repaired_as_it_is() {
    let Pair { source, destination, from, to } = Pair::start().await;
    insert(&from, &ids()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = settings(&source, &destination, dir.path());
    let mut engine = Run::start(&settings);
    engine.reach(PhaseKind::Synced).await;
    // Every kind of event.
    insert(&from, &[rawdoc! {"_id": "new\u{7f}", "n": 1}, rawdoc! {"_id": {"l": ["\u{7f}"]}, "n": 2}]).await;
    update(&from, "caf\u{7f}0", rawdoc! {"$set": {"n": -1}}).await;
    update(&from, "caf\u{7f}1", rawdoc! {"$set": {"set\u{7f}": "z\u{7f}"}}).await;
    update(&from, "caf\u{7f}2", rawdoc! {"$set": {"v": "w\u{7f}"}}).await;
    update(&from, "caf\u{7f}3", rawdoc! {"whole": "r\u{7f}"}).await;
    update(&from, "caf\u{7f}4", rawdoc! {"$unset": {"v": 1}}).await;
    update(&from, "plain", rawdoc! {"$push": {"list": "p\u{7f}"}}).await;
    delete(&from, "caf\u{7f}5").await;
    engine.count(|p| p.events_applied >= 9 && p.documents_dirty == 0).await;
    assert_eq!(hash(&from).await, hash(&to).await);
    // Another run reads what this one noted.
    engine.kill().await;
    settings.epoch = settings.epoch.next();
    let mut engine = Run::start(&settings);
    engine.reach(PhaseKind::Synced).await;
    assert_eq!(engine.report().progress.documents_repaired, 0);
    update(&to, "caf\u{7f}10", rawdoc! {"$set": {"n": 9}}).await;
    delete(&to, "caf\u{7f}11").await;
    insert(&to, &[rawdoc! {"_id": "extra\u{7f}"}]).await;
    engine.count(|p| p.documents_repaired == 3).await;
    let report = engine.cut_over_and_tell().await;
    let told = format!("{:?}", report.record.expect("is told").repaired);
    for id in ["636166e93130", "636166e93131", "6578747261e9"] {
        assert!(told.contains(id), "{told}");
    }
    assert_eq!(hash(&from).await, hash(&to).await);
    let verified = verify(&source, &destination, &dir.path().join("after"), 0).await;
    assert!(verified.equal, "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_ends_and_tells_of_each_id_that_is_not_utf8() {
    let Pair { source, destination, from, to } = Pair::start().await;
    insert(&from, &ids()).await;
    insert(&to, &ids()).await;
    for settle in [0, 1] {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(verify(&source, &destination, &dir.path().join("v"), settle).await.equal);
    }
    // The last ones, so that one side ends first; and some in the middle.
    insert(&from, &[rawdoc! {"_id": "z\u{7f}"}, rawdoc! {"_id": {"z": ["z\u{7f}"]}}]).await;
    delete(&from, "caf\u{7f}7").await;
    update(&to, "caf\u{7f}8", rawdoc! {"$set": {"v": "x\u{7f}z"}}).await;
    update(&to, "caf\u{7f}9", rawdoc! {"$set": {"n": 9_i64}}).await;
    let dir = tempfile::tempdir().expect("a directory");
    let report = verify(&source, &destination, &dir.path().join("v"), 0).await;
    let old = report.namespaces.iter().find(|own| own.namespace == "app.old").expect("is compared");
    assert_eq!((old.missing, old.extra, old.different), (2, 1, 2), "{old:?}");
    assert_eq!(old.differences.len(), 5, "{old:?}");
    let of = |id: &str| {
        let found = old.differences.iter().find(|one| one.id.to_string().contains(id));
        found.unwrap_or_else(|| panic!("{id} is not named: {old:?}")).path.clone()
    };
    assert_eq!(of("636166e938"), Some("v".to_owned()));
    assert_eq!(of("636166e939"), Some("n".to_owned()));
    assert_eq!((of("7ae9"), of("636166e937")), (None, None));
}
