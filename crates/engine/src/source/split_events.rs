//! Change events of more than 16 MB.
//!
//! A server that can splits them into fragments (`$changeStreamSplitLargeEvent`), which are put together here before
//! they continue. Another one can't send them at all, and none can split a single field, such as a delta that writes a large
//! array again: there the stream is read without the events' documents until such an event is behind, and the documents
//! concerned are read again from the source.

use crate::{
    mongo::{
        codes, error,
        raw_builder::{RawArrayBuilder, RawDocBuilder},
    },
    source::event,
};
use bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use mongodb::error::Error;

/// Whether the server can't send the next event as it is: all of it, or one field of it, which it can't
/// split.
pub(crate) fn is_too_large(error: &Error) -> bool {
    error::code(error).is_some_and(codes::is_event_too_large)
}

/// The stage with which no event is too large, at the price of the documents in them.
pub(crate) fn without_documents() -> Document {
    doc! {"$project": {"fullDocument": 0, "updateDescription": 0}}
}

/// Puts fragments together. While an event is incomplete, the replies that hold parts of it are kept back.
#[derive(Default)]
pub(crate) struct Fragments {
    events: Vec<RawDocumentBuf>,
    parts: Vec<RawDocumentBuf>,
}

impl Fragments {
    /// Takes a reply in and gives it back, or what is to take its place; `None`: the rest of an event is to come.
    pub fn absorb(&mut self, reply: RawDocumentBuf) -> Result<Option<RawDocumentBuf>, Error> {
        let Some(events) = event::events_of(&reply) else { return Ok(Some(reply)) };
        let events = || events.into_iter().flatten().filter_map(RawBsonRef::as_document);
        let split = |event: &RawDocument| event.get_document("splitEvent").is_ok();
        // An event that had to be split doesn't fit into one reply: it begins or ends at the reply's edge.
        if self.parts.is_empty() && !events().last().is_some_and(split) && !events().next().is_some_and(split) {
            return Ok(Some(reply));
        }
        for event in events() {
            let Ok(place) = event.get_document("splitEvent") else {
                self.events.push(event.to_owned());
                continue;
            };
            self.parts.push(event.to_owned());
            if place.get_i32("fragment").map_err(Error::custom)? == place.get_i32("of").map_err(Error::custom)? {
                let whole = join(&std::mem::take(&mut self.parts))?;
                self.events.push(whole);
            }
        }
        let (true, Some(token)) = (self.parts.is_empty(), event::token_of(&reply)) else { return Ok(None) };
        let mut array = RawArrayBuilder::with_capacity(1024);
        self.events.drain(..).for_each(|event| array.push_document(event.as_bytes()));
        let cursor = RawDocBuilder::new().array("nextBatch", array).document("postBatchResumeToken", token.as_bytes());
        RawDocBuilder::new().document("cursor", &cursor.into_bytes()).build().map(Some)
    }
}

/// One event of all its fragments, with the token of the last.
fn join(parts: &[RawDocumentBuf]) -> Result<RawDocumentBuf, Error> {
    let mut whole = RawDocBuilder::new();
    for (n, part) in parts.iter().enumerate() {
        for field in part.iter() {
            let (name, value) = field.map_err(Error::custom)?;
            let wanted = match name.as_str() {
                "splitEvent" => false,
                "_id" => n + 1 == parts.len(),
                _ => true,
            };
            if wanted {
                whole = whole.value(name.as_str(), value);
            }
        }
    }
    whole.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn reply(token: &str, events: Vec<RawDocumentBuf>) -> RawDocumentBuf {
        let mut array = bson::RawArrayBuf::new();
        events.into_iter().for_each(|event| array.push(event));
        rawdoc! {"cursor": {"nextBatch": array, "postBatchResumeToken": {"_data": token}}}
    }

    #[test]
    fn fragments_become_one_event_and_what_is_around_them_keeps_its_order() {
        let mut fragments = Fragments::default();
        let plain = |n: i32| rawdoc! {"_id": n, "operationType": "insert"};
        let alone = reply("0", vec![plain(0), plain(1)]);
        assert_eq!(fragments.absorb(alone.clone()).expect("well formed"), Some(alone));
        let first = rawdoc! {"_id": 2, "splitEvent": {"fragment": 1, "of": 3}, "operationType": "update", "a": 1};
        let second = rawdoc! {"_id": 3, "splitEvent": {"fragment": 2, "of": 3}, "b": 2};
        let third = rawdoc! {"_id": 4, "splitEvent": {"fragment": 3, "of": 3}, "c": 3};
        assert_eq!(fragments.absorb(reply("2", vec![plain(1), first])).expect("well formed"), None);
        assert_eq!(fragments.absorb(reply("3", vec![second])).expect("well formed"), None);
        let got = fragments.absorb(reply("5", vec![third, plain(5)])).expect("well formed");
        let whole = rawdoc! {"operationType": "update", "a": 1, "b": 2, "_id": 4, "c": 3};
        assert_eq!(got, Some(reply("5", vec![plain(1), whole, plain(5)])));
    }
}
