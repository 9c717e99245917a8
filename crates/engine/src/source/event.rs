//! Change events, read in place.

use crate::mongo::{
    catalog::Uuid,
    raw_value::{self, Value},
};
use bson::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp};
use limosa_model::Namespace;

/// One change event; borrows from the batch it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a> {
    pub raw: &'a RawDocument,
    pub kind: Kind,
    pub operation: &'a str,
    pub db: &'a str,
    pub coll: &'a str,
    pub uuid: Option<Uuid>,
    pub time: Option<Timestamp>,
    pub token: Option<&'a RawDocument>,
    /// The `_id` of the document that it is about.
    pub id: Option<Value<'a>>,
    pub full_document: Option<&'a RawDocument>,
    pub update_description: Option<&'a RawDocument>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `insert` and `replace`: the whole document is in the event.
    Image,
    Update,
    Delete,
    /// Anything that changes the catalog.
    Definition,
    /// Nothing to do with the destination's data.
    Ignored,
}

impl<'a> Event<'a> {
    /// Goes over the event's fields once: there may be a hundred thousand events a second.
    pub fn parse(raw: &'a RawDocument) -> Option<Self> {
        let mut event = Self {
            raw,
            kind: Kind::Ignored,
            operation: "",
            db: "",
            coll: "",
            uuid: None,
            time: None,
            token: None,
            id: None,
            full_document: None,
            update_description: None,
        };
        for field in raw {
            let (name, value) = field.ok()?;
            match (name.as_str(), value) {
                ("_id", RawBsonRef::Document(token)) => event.token = Some(token),
                ("operationType", RawBsonRef::String(operation)) => event.operation = operation,
                ("clusterTime", RawBsonRef::Timestamp(time)) => event.time = Some(time),
                ("collectionUUID", RawBsonRef::Binary(uuid)) => event.uuid = uuid.bytes.try_into().ok(),
                ("ns", RawBsonRef::Document(ns)) => {
                    // Text that can't be read is no name: the event must not pass for another namespace's.
                    event.db = ns.get("db").ok()?.and_then(RawBsonRef::as_str).unwrap_or_default();
                    event.coll = ns.get("coll").ok()?.and_then(RawBsonRef::as_str).unwrap_or_default();
                }
                ("documentKey", RawBsonRef::Document(key)) => event.id = raw_value::id_of(key),
                ("fullDocument", RawBsonRef::Document(document)) => event.full_document = Some(document),
                ("updateDescription", RawBsonRef::Document(delta)) => event.update_description = Some(delta),
                _ => {}
            }
        }
        event.kind = match event.operation {
            "" => return None,
            "insert" | "replace" => Kind::Image,
            "update" => Kind::Update,
            "delete" => Kind::Delete,
            "create" | "drop" | "rename" | "createIndexes" | "dropIndexes" | "modify" | "dropDatabase" => {
                Kind::Definition
            }
            _ => Kind::Ignored,
        };
        Some(event)
    }

    pub fn ns(&self) -> Namespace {
        Namespace::new(self.db, self.coll)
    }
}

/// The events of a reply to `aggregate` or `getMore`.
pub(crate) fn events_of(reply: &RawDocument) -> Option<&RawArray> {
    let cursor = reply.get_document("cursor").ok()?;
    cursor.get_array("nextBatch").or_else(|_| cursor.get_array("firstBatch")).ok()
}

/// The position after all events of a reply, which moves on even if there were none.
pub(crate) fn token_of(reply: &RawDocument) -> Option<RawDocumentBuf> {
    Some(reply.get_document("cursor").ok()?.get_document("postBatchResumeToken").ok()?.to_owned())
}

/// The cluster time inside a resume token: the token is a key string, whose first part is a timestamp (0x82).
pub(crate) fn token_time(token: &RawDocument) -> Option<Timestamp> {
    let data = token.get_str("_data").ok()?;
    if !data.starts_with("82") {
        return None;
    }
    let time = u32::from_str_radix(data.get(2..10)?, 16).ok()?;
    let increment = u32::from_str_radix(data.get(10..18)?, 16).ok()?;
    Some(Timestamp { time, increment })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn the_cluster_time_of_a_token_is_read() {
        let token = rawdoc! {"_data": "8263F5B0C5000000022B0229296E04"};
        assert_eq!(token_time(&token), Some(Timestamp { time: 0x63F5_B0C5, increment: 2 }));
        assert_eq!(token_time(&rawdoc! {"_data": "00"}), None);
        assert_eq!(token_time(&rawdoc! {"x": 1}), None);
    }
}
