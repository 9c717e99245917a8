//! The documents of one side, in the order in which the server gives them.

use crate::{
    mongo::{
        cluster::Cluster,
        raw_value::{self, Value},
    },
    verify::collection_pair::Place,
};
use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use mongodb::error::Error;
use tokio::sync::mpsc;

/// Documents a reply; the server ends one at 16 MB anyway.
const BATCH_DOCUMENTS: i32 = 2000;

/// A whole `find`, majority-committed.
pub(crate) fn find_command(place: &Place, query: &Document) -> Document {
    let mut concern = doc! {"level": "majority"};
    concern.extend(place.since.map(|since| ("afterClusterTime".to_owned(), Bson::Timestamp(since))));
    let mut command = doc! {"find": &place.ns.coll, "batchSize": BATCH_DOCUMENTS, "readConcern": concern};
    if let Some(uuid) = place.uuid {
        command.insert("collectionUUID", Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() });
    }
    command.extend(query.clone());
    command
}

/// The value of a document's `_id`.
pub(crate) fn id_of(document: &[u8]) -> Option<Value<'_>> {
    raw_value::elements(document).find(|(name, _)| *name == b"_id").map(|(_, id)| id)
}

/// The documents of one side, in the replies that they came in; the next reply is fetched while one is gone through.
pub(crate) struct Stream {
    replies: mpsc::Receiver<Result<Reply, Error>>,
    reply: Reply,
    next: usize,
    ended: bool,
}

/// One reply's documents.
#[derive(Default)]
struct Reply {
    bytes: Vec<u8>,
    /// Where each document begins and ends.
    documents: Vec<(usize, usize)>,
}

impl Reply {
    fn of(array: &bson::RawArray) -> Self {
        let bytes = array.as_bytes().to_vec();
        let mut documents = Vec::new();
        // Each element is a type, a name that ends with a zero, and a document that begins with its length.
        let mut at = 4;
        while bytes.get(at).is_some_and(|kind| *kind != 0) {
            let Some(name) = bytes[at + 1..].iter().position(|b| *b == 0) else { break };
            let begin = at + 1 + name + 1;
            let Some(length) = bytes.get(begin..begin + 4).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes)
            else {
                break;
            };
            let end = begin + length as usize;
            documents.push((begin, end));
            at = end;
        }
        Self { bytes, documents }
    }
}

impl Stream {
    pub fn open(cluster: &Cluster, place: &Place, query: &Document) -> Self {
        let (sender, replies) = mpsc::channel(1);
        let (db, command, reads) = (cluster.db(&place.ns.db), find_command(place, query), cluster.reads.clone());
        let batch_size = command.get_i32("batchSize").unwrap_or(BATCH_DOCUMENTS) as u32;
        tokio::spawn(async move {
            let opened =
                db.run_cursor_command(command).batch_size(batch_size).selection_criteria(reads.from.criteria());
            let mut cursor = match opened.batch().await {
                Ok(cursor) => cursor,
                Err(e) => return drop(sender.send(Err(e)).await),
            };
            while let Some(batch) = cursor.next().await {
                let reply = batch.and_then(|batch| batch.doc_slices().map(Reply::of));
                let failed = reply.is_err();
                reads.throttle.note_read(reply.as_ref().map_or(0, |reply| reply.bytes.len()));
                // Nobody listens any more: the scan ended.
                if sender.send(reply).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { replies, reply: Reply::default(), next: 0, ended: false }
    }

    pub fn needs_reply(&self) -> bool {
        !self.ended && self.next >= self.reply.documents.len()
    }

    pub async fn fill(&mut self) -> Result<(), Error> {
        while self.needs_reply() {
            match self.replies.recv().await {
                Some(reply) => (self.reply, self.next) = (reply?, 0),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// The document at hand, if there is one.
    pub fn current(&self) -> Option<&[u8]> {
        self.reply.documents.get(self.next).map(|(begin, end)| &self.reply.bytes[*begin..*end])
    }

    pub fn advance(&mut self) {
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};

    #[test]
    fn documents_of_a_reply_are_found_in_place() {
        let mut array = RawArrayBuf::new();
        let all: Vec<RawDocumentBuf> = (0..120).map(|n| rawdoc! {"_id": n, "x": ["a", {"b": n}]}).collect();
        all.iter().for_each(|d| array.push(d.clone()));
        let reply = Reply::of(&array);
        let found: Vec<&[u8]> = reply.documents.iter().map(|(b, e)| &reply.bytes[*b..*e]).collect();
        assert_eq!(found, all.iter().map(|d| d.as_bytes()).collect::<Vec<_>>());
        assert!(Reply::of(&RawArrayBuf::new()).documents.is_empty());
    }
}
