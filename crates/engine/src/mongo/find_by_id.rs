//! The one way to find documents by their `_id`s: `find` with `{_id: {$in: …}}`, built as bytes, so that no `_id` is decoded.

use crate::{
    mongo::{
        calls::Batches,
        cluster::Cluster,
        error, raw_bson,
        raw_builder::{RawArrayBuilder, RawDocBuilder},
        raw_value::{Value, id_of},
    },
    retry::Backoff,
};
use bson::{Document, RawBsonRef, RawDocumentBuf, doc};
use limosa_model::{Failure, Namespace};
use mongodb::error::Error;
use std::collections::HashMap;

/// `_id`s in one read.
pub(crate) const IDS: usize = 1000;

/// `{_id: {$in: ids}}`.
pub(crate) fn filter<'a>(ids: impl IntoIterator<Item = Value<'a>>) -> Vec<u8> {
    let mut wanted = RawArrayBuilder::with_capacity(1024);
    ids.into_iter().for_each(|id| wanted.push_value(id));
    RawDocBuilder::new().document("_id", &RawDocBuilder::new().array("$in", wanted).into_bytes()).into_bytes()
}

/// Opens a `find` in the database `db`: `head` is the command without its filter. It reads the member that `cluster` reads
/// in bulk; what it read is the caller's to account for.
pub(crate) async fn open(cluster: &Cluster, db: &str, head: &Document, filter: &[u8]) -> Result<Batches, Error> {
    let command = RawDocBuilder::new().extend(head)?.document("filter", filter).build()?;
    let (db, member) = (cluster.db(db), cluster.reads.from.criteria());
    db.run_raw_cursor_command(command).selection_criteria(member).batch().await
}

/// Those of `ids` that the collection has, by canonical `_id`; tried again after a transient error. `options` are those of
/// `find`, such as a projection.
pub(crate) async fn found<'a>(
    cluster: &Cluster,
    ns: &Namespace,
    ids: impl Iterator<Item = Value<'a>>,
    options: Document,
) -> Result<HashMap<Vec<u8>, RawDocumentBuf>, Failure> {
    let mut backoff = Backoff::default();
    let ids: Vec<Value<'a>> = ids.collect();
    loop {
        match try_found(cluster, ns, &ids, &options).await {
            Ok(found) => return Ok(found),
            Err(e) if error::is_transient(&e) && backoff.wait().await => {}
            Err(e) => return Err(cluster.failure(&e)),
        }
    }
}

/// The same, once.
pub(crate) async fn try_found(
    cluster: &Cluster,
    ns: &Namespace,
    ids: &[Value<'_>],
    options: &Document,
) -> Result<HashMap<Vec<u8>, RawDocumentBuf>, Error> {
    let mut head = doc! {"find": &ns.coll};
    head.extend(options.clone());
    let mut cursor = open(cluster, &ns.db, &head, &filter(ids.iter().copied())).await?;
    let mut found = HashMap::new();
    while let Some(batch) = cursor.next().await {
        let batch = batch?;
        let documents = batch.doc_slices()?;
        cluster.reads.throttle.charge_read(documents.as_bytes().len()).await;
        for document in documents.into_iter().flatten().filter_map(RawBsonRef::as_document) {
            found.extend(id_of(document).map(|id| (raw_bson::canonical_id(id, false), document.to_owned())));
        }
    }
    Ok(found)
}
