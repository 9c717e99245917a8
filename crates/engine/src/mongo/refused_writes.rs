//! The writes that a reply says were refused: a write command succeeds as a command even where none of its writes does.

use bson::{Bson, Document};

/// One entry of a reply's `writeErrors`.
#[derive(Debug, PartialEq)]
pub(crate) struct RefusedWrite<'a> {
    /// The server's error code; 0 where there is none.
    pub code: i32,
    /// The server's words.
    pub message: &'a str,
    /// The fields of the unique index whose value another document has.
    key_pattern: Option<&'a Document>,
}

impl RefusedWrite<'_> {
    /// Whether the document is there already: its `_id` is taken, not another unique value.
    pub fn is_of_id(&self) -> bool {
        self.key_pattern.is_some_and(|keys| keys.len() == 1 && keys.contains_key("_id"))
    }
}

/// What `reply` says was refused, in the server's order.
pub(crate) fn refused_writes(reply: &Document) -> impl Iterator<Item = RefusedWrite<'_>> + Clone {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(Bson::as_document).map(|error| RefusedWrite {
        code: error.get_i32("code").unwrap_or(0),
        message: error.get_str("errmsg").unwrap_or("no reason given"),
        key_pattern: error.get_document("keyPattern").ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn each_refused_write_is_read_from_the_reply() {
        let taken = |keys: Document| doc! {"index": 0, "code": 11000, "keyPattern": keys, "errmsg": "E11000"};
        let reply =
            doc! {"ok": 1, "n": 0, "writeErrors": [taken(doc! {"_id": 1}), taken(doc! {"mail": 1}), {"index": 2}]};
        let read = refused_writes(&reply).map(|one| (one.code, one.message, one.is_of_id())).collect::<Vec<_>>();
        assert_eq!(read, [(11000, "E11000", true), (11000, "E11000", false), (0, "no reason given", false)]);
        assert_eq!(refused_writes(&doc! {"ok": 1, "n": 3}).next(), None);
    }
}
