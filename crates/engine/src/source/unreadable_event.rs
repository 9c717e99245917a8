//! A change at which the source's change stream ends each time that it is opened. A pipeline may put a document with a
//! field `$v` in the place of another; the oplog holds the document as it is, and the stream takes the field for the version
//! of an update. The entry is looked up in the oplog, and events that tell to read its documents again take its place.

use crate::mongo::{
    cluster::Cluster,
    incidents::{Trouble, shown},
    raw_builder::{RawArrayBuilder, RawDocBuilder},
};
use bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, doc};
use limosa_model::{ErrorCode, Failure};
use mongodb::error::Error;

/// What takes the place of an entry of the oplog.
pub(crate) struct Replaced {
    /// As the change stream would answer.
    pub reply: RawDocumentBuf,
    /// From where the stream continues.
    pub after: Timestamp,
}

/// Whether the stream may have ended at such a change: an error that neither passes nor has a meaning of its own.
pub(crate) fn may_be(source: &Cluster, error: &Error) -> bool {
    source.failure(error).code == ErrorCode::ServerError
}

/// Looks for the first such entry later than `passed`, or at `from` if nothing was read since then. `None` if there is
/// none: the stream ended for another reason.
pub(crate) async fn replaced(
    source: &Cluster,
    passed: Timestamp,
    from: Option<Timestamp>,
    token: Option<&Document>,
    trouble: &Trouble,
) -> Result<Option<Replaced>, Failure> {
    let Some(entry) = find(source, passed, from).await.map_err(|e| unreadable(&source.failure(&e).message))? else {
        return Ok(None);
    };
    let broken = || unreadable("its entry in the oplog can't be read");
    let time = entry.get_timestamp("ts").map_err(|_| broken())?;
    let changes = changes_of(&entry)?;
    let mut events = RawArrayBuilder::with_capacity(256);
    for change in &changes {
        events.push_document(&change.event(time, source.can().show_expanded_events()));
        let named = format!(
            "{} _id {}: the source couldn't tell its change ($v); it was read again",
            change.namespace,
            change.shown()
        );
        // In a transaction the others were read again too.
        if change.is_cause {
            trouble.reread(named)?;
        }
    }
    let mut cursor = RawDocBuilder::new().array("nextBatch", events);
    if let Some(token) = token {
        let token = RawDocumentBuf::try_from(token).map_err(|_| broken())?;
        cursor = cursor.document("postBatchResumeToken", token.as_bytes());
    }
    let reply = RawDocBuilder::new().document("cursor", &cursor.into_bytes()).build().map_err(|_| broken())?;
    let after = Timestamp { time: time.time, increment: time.increment + 1 };
    Ok(Some(Replaced { reply, after }))
}

fn unreadable(why: &str) -> Failure {
    let message = format!("the source's change stream ends at a change each time that it is opened: {why}");
    Failure::new(ErrorCode::ChangeUnreadable, message)
}

async fn find(source: &Cluster, passed: Timestamp, from: Option<Timestamp>) -> Result<Option<RawDocumentBuf>, Error> {
    // A version of 1 is taken for what it is.
    let misread = doc! {"op": "u", "o._id": {"$exists": true}, "o.$v": {"$exists": true, "$ne": 1}};
    let mut alone = misread.clone();
    let later = from.map_or_else(|| doc! {"$gt": passed}, |from| doc! {"$gte": from});
    alone.insert("ts", later);
    let filter = doc! {
        // Events of one transaction, some of which may have been read, all have one time.
        "ts": {"$gte": from.unwrap_or(passed)},
        "$or": [alone, {"op": "c", "o.applyOps": {"$elemMatch": misread}}],
    };
    let command = doc! {
        "find": "oplog.rs", "filter": filter, "sort": {"$natural": 1}, "limit": 1,
        "readConcern": {"level": "majority"},
    };
    let mut cursor = source.db("local").run_cursor_command(command).batch().await?;
    while let Some(batch) = cursor.next().await {
        let batch = batch?;
        if let Some(entry) = batch.doc_slices()?.into_iter().flatten().find_map(RawBsonRef::as_document) {
            return Ok(Some(entry.to_owned()));
        }
    }
    Ok(None)
}

/// One document that an entry of the oplog changed.
struct Change<'a> {
    namespace: &'a str,
    uuid: Option<RawBsonRef<'a>>,
    id: RawBsonRef<'a>,
    is_cause: bool,
}

impl<'a> Change<'a> {
    fn of(op: &'a RawDocument) -> Option<Self> {
        let kind = op.get_str("op").ok()?;
        let o = op.get_document("o").ok()?;
        let id = match kind {
            "u" => op.get_document("o2").ok()?.get("_id").ok()??,
            "i" | "d" => o.get("_id").ok()??,
            _ => return None,
        };
        let namespace = op.get_str("ns").ok()?;
        let is_cause = kind == "u" && o.get("$v").ok().flatten().is_some() && o.get("_id").ok().flatten().is_some();
        Some(Self { namespace, uuid: op.get("ui").ok().flatten(), id, is_cause })
    }

    fn key(&self) -> Vec<u8> {
        RawDocBuilder::new().value("_id", self.id).into_bytes()
    }

    fn shown(&self) -> String {
        RawDocumentBuf::from_bytes(self.key()).map(|key| shown(&key)).unwrap_or_default()
    }

    /// A replacement without its document: as after an event that was too large, the document is read from the source.
    fn event(&self, time: Timestamp, with_uuid: bool) -> Vec<u8> {
        let (db, coll) = self.namespace.split_once('.').unwrap_or((self.namespace, ""));
        let ns = RawDocBuilder::new().value("db", RawBsonRef::String(db)).value("coll", RawBsonRef::String(coll));
        let event = RawDocBuilder::new()
            .value("operationType", RawBsonRef::String("replace"))
            .value("clusterTime", RawBsonRef::Timestamp(time))
            .document("ns", &ns.into_bytes())
            .document("documentKey", &self.key());
        match self.uuid {
            Some(uuid) if with_uuid => event.value("collectionUUID", uuid).into_bytes(),
            _ => event.into_bytes(),
        }
    }
}

/// All documents that an entry changed: more than one if it is a transaction's.
fn changes_of(entry: &RawDocument) -> Result<Vec<Change<'_>>, Failure> {
    let alone = Change::of(entry);
    if let Some(alone) = alone {
        return Ok(vec![alone]);
    }
    let of_all = || {
        let o = entry.get_document("o").ok()?;
        let ops = o.get_array("applyOps").ok()?;
        let all: Option<Vec<Change<'_>>> = ops.into_iter().map(|op| Change::of(op.ok()?.as_document()?)).collect();
        let is_part = o.get_bool("partialTxn").unwrap_or(false)
            || entry
                .get_document("prevOpTime")
                .and_then(|before| before.get_timestamp("ts"))
                .is_ok_and(|ts| ts.time > 0);
        all.filter(|_| !is_part)
    };
    of_all().ok_or_else(|| {
        let id = entry.get_document("o").ok().and_then(|o| {
            let ops = o.get_array("applyOps").ok()?;
            ops.into_iter().find_map(|op| Change::of(op.ok()?.as_document()?).filter(|change| change.is_cause))
        });
        let named = id.map(|change| format!("{} _id {}", change.namespace, change.shown())).unwrap_or_default();
        unreadable(&format!("{named} was replaced by a document with a field $v in a transaction of several entries"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn op(kind: &str, id: i32) -> RawDocumentBuf {
        rawdoc! {"op": kind, "ns": "d.c", "o": {"_id": id, "$v": 2}, "o2": {"_id": id}}
    }

    #[test]
    fn all_documents_of_a_transaction_are_read_again_or_none() {
        let alone = op("u", 1);
        assert_eq!(changes_of(&alone).expect("is one").len(), 1);
        let whole = rawdoc! {"op": "c", "o": {"applyOps": [op("i", 1), op("u", 2), op("d", 3)]}};
        let told: Vec<(String, bool)> =
            changes_of(&whole).expect("three").iter().map(|change| (change.shown(), change.is_cause)).collect();
        assert_eq!(told, [("1".to_owned(), false), ("2".to_owned(), true), ("3".to_owned(), false)]);
        let part = rawdoc! {"op": "c", "o": {"applyOps": [op("u", 2)], "partialTxn": true}};
        let failure = changes_of(&part).err().expect("is refused");
        assert_eq!(failure.code, ErrorCode::ChangeUnreadable);
        assert!(failure.message.contains("d.c _id 2 "), "{failure}");
    }
}
