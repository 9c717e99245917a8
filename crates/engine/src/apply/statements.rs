//! From changes to the commands that carry them out.

use super::coalesce::{Change, Op};
use crate::{
    raw::{RawArrayBuilder, RawDocBuilder, has_zero_timestamp, replacing},
    value,
};
use bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use limosa_model::Namespace;
use mongodb::error::Error;

/// Bytes of statements in a command. The server takes 16 MB and 16 KB; a single statement may be as large as that.
const COMMAND_BYTES: usize = 12 * 1024 * 1024;

/// Beyond this a document and its `_id` don't fit into one update statement.
const STATEMENT_BYTES: usize = 16 * 1024 * 1024 + 8 * 1024;

/// How a statement changes a collection; each is a command of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Update,
    Delete,
    Insert,
}

/// A database and a command to run in it.
pub(crate) type Command = (Namespace, RawDocumentBuf);

/// The commands for `ops`, to be run in this order: one for each run of statements that fit together.
pub(crate) fn commands(ops: &[(u32, Op)]) -> Result<Vec<Command>, Error> {
    let mut all = Commands::default();
    for (_, op) in ops {
        let ns = &op.target.ns;
        let by_id = || RawDocBuilder::new().document("q", op.id.as_bytes());
        match &op.change {
            Change::Put { document, .. } if has_zero_timestamp(document) => {
                let statement = by_id().array("u", replacing(document)).value("upsert", RawBsonRef::Boolean(true));
                all.add(ns, Verb::Update, &statement.into_bytes())?;
            }
            Change::Put { document, .. } if !must_be_inserted(&op.id, document) => {
                let statement = by_id().document("u", document.as_bytes()).value("upsert", RawBsonRef::Boolean(true));
                all.add(ns, Verb::Update, &statement.into_bytes())?;
            }
            Change::Put { document, .. } | Change::Remake { document } => {
                all.add(ns, Verb::Delete, &by_id().value("limit", RawBsonRef::Int32(1)).into_bytes())?;
                all.add(ns, Verb::Insert, document.as_bytes())?;
            }
            Change::Update(delta) if delta.is_empty() => {}
            Change::Update(delta) => all.add(ns, Verb::Update, &delta.append_update(by_id()).into_bytes())?,
            Change::Delete => {
                all.add(ns, Verb::Delete, &by_id().value("limit", RawBsonRef::Int32(1)).into_bytes())?;
            }
            Change::Refetch => {}
        }
    }
    all.finish()
}

/// Inserts of documents into one collection, in this order, leaving those that are there.
pub(crate) fn inserts(ns: &Namespace, documents: &[&RawDocument]) -> Result<Vec<Command>, Error> {
    let mut all = Commands::default();
    for document in documents {
        all.add(ns, Verb::Insert, document.as_bytes())?;
    }
    all.finish()
}

/// Updates that put `documents`, which are there, back to just these bytes.
pub(crate) fn restores(ns: &Namespace, documents: &[&RawDocument]) -> Result<Vec<Command>, Error> {
    let mut all = Commands::default();
    for document in documents {
        if let Some(id) = value::id_of(document) {
            let q = RawDocBuilder::new().value("_id", id).into_bytes();
            let statement = RawDocBuilder::new().document("q", &q).array("u", replacing(document));
            all.add(ns, Verb::Update, &statement.into_bytes())?;
        }
    }
    all.finish()
}

/// Whether no update can replace a document by `document`: one that begins with an operator's sign would be taken for
/// operators, and one of the largest leaves no place for its `_id`. A reply to an upsert repeats the `_id`, and can't be
/// read if that isn't UTF-8.
fn must_be_inserted(id: &RawDocument, document: &RawDocument) -> bool {
    value::elements(document.as_bytes()).any(|(name, _)| name.starts_with(b"$"))
        || value::id_of(id).is_some_and(|id| !id.is_utf8())
        || id.as_bytes().len() + document.as_bytes().len() > STATEMENT_BYTES
}

#[derive(Default)]
struct Commands {
    done: Vec<Command>,
    open: Option<Open>,
}

struct Open {
    ns: Namespace,
    verb: Verb,
    statements: RawArrayBuilder,
    bytes: usize,
}

impl Commands {
    fn add(&mut self, ns: &Namespace, verb: Verb, statement: &[u8]) -> Result<(), Error> {
        let fits =
            |open: &Open| open.ns == *ns && open.verb == verb && open.bytes + statement.len() + 16 <= COMMAND_BYTES;
        if !self.open.as_ref().is_some_and(fits) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| Open {
            ns: ns.clone(),
            verb,
            statements: RawArrayBuilder::with_capacity(statement.len() * 2),
            bytes: 0,
        });
        open.statements.push_document(statement);
        open.bytes += statement.len() + 16;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some(Open { ns, verb, statements, .. }) = self.open.take() else { return Ok(()) };
        let (head, name): (Document, &str) = match verb {
            Verb::Update => (doc! {"update": &ns.coll, "ordered": true, "bypassDocumentValidation": true}, "updates"),
            Verb::Delete => (doc! {"delete": &ns.coll, "ordered": true}, "deletes"),
            Verb::Insert => {
                (doc! {"insert": &ns.coll, "ordered": false, "bypassDocumentValidation": true}, "documents")
            }
        };
        let command = RawDocBuilder::new().extend(&head)?.array(name, statements).build()?;
        self.done.push((ns, command));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Command>, Error> {
        self.close()?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::registry::Target;
    use bson::rawdoc;
    use std::sync::Arc;

    fn put(document: RawDocumentBuf) -> (u32, Op) {
        let target = Arc::new(Target::plain(Namespace::new("d", "c")));
        let id = rawdoc! {"_id": 1};
        (0, Op { target, id, canonical: Vec::new(), change: Change::Put { document, fresh: false } })
    }

    fn verbs(ops: &[(u32, Op)]) -> Vec<String> {
        let commands = commands(ops).expect("well formed");
        commands
            .iter()
            .map(|(_, c)| c.iter().next().and_then(Result::ok).map(|(n, _)| n.to_string()).unwrap_or_default())
            .collect()
    }

    #[test]
    fn what_no_update_can_say_is_deleted_and_inserted() {
        assert_eq!(verbs(&[put(rawdoc! {"_id": 1, "a": 1})]), ["update"]);
        assert_eq!(verbs(&[put(rawdoc! {"_id": 1, "$a": 1})]), ["delete", "insert"]);
        assert_eq!(verbs(&[put(rawdoc! {"_id": 1, "a": "x".repeat(STATEMENT_BYTES)})]), ["delete", "insert"]);
    }

    #[test]
    fn no_command_is_larger_than_the_server_takes() {
        let large = || put(rawdoc! {"_id": 1, "a": "x".repeat(5 * 1024 * 1024)});
        assert_eq!(verbs(&[large(), large(), large(), large(), large()]), ["update", "update", "update"]);
    }
}
