//! From changes to the commands that carry them out.
//!
//! No update by a pipeline is ever sent to a document that is there. The server then works out what differs, and releases
//! before 5.0.18 and 6.0.6 end their process when it meets two fields of one name; later ones refuse the update. Where
//! nothing but a pipeline can say what a document holds, it inserts it.

use crate::{
    destination::{
        coalesce::{DocumentWrite, WriteKind},
        document_shape::{self, Fields, Zeros},
    },
    mongo::{
        raw_bson::replacing,
        raw_builder::{RawArrayBuilder, RawDocBuilder},
        raw_value::{self, Value},
    },
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
pub(crate) fn commands(ops: &[(u32, DocumentWrite)]) -> Result<Vec<Command>, Error> {
    let mut all = Commands::default();
    for (_, op) in ops {
        let ns = &op.target.ns;
        let by_id = || RawDocBuilder::new().document("q", op.id.as_bytes());
        match &op.change {
            WriteKind::Put { document, .. } => all.put(ns, &op.id, document)?,
            WriteKind::Remake { document } => all.remake(ns, &op.id, document)?,
            WriteKind::Update(delta) => {
                for update in delta.updates() {
                    all.add(ns, Verb::Update, &by_id().document("u", &update).into_bytes())?;
                }
            }
            WriteKind::Delete => {
                all.add(ns, Verb::Delete, &by_id().value("limit", RawBsonRef::Int32(1)).into_bytes())?;
            }
            WriteKind::Refetch => {}
        }
    }
    all.finish()
}

/// Inserts of documents into one collection, in this order, leaving those that are there.
pub(crate) fn inserts(ns: &Namespace, documents: &[&RawDocument]) -> Result<Vec<Command>, Error> {
    let mut all = Commands { unordered: true, ..Commands::default() };
    for document in documents {
        match (document_shape::zeros(document.as_bytes()), id_of(document)?) {
            (Zeros::Elsewhere, Some(id)) => all.add(ns, Verb::Update, &exactly(&id, document))?,
            _ => all.add(ns, Verb::Insert, document.as_bytes())?,
        }
    }
    for document in documents {
        if let Some(id) = id_of(document)? {
            all.zero(ns, &id, &document_shape::zeros(document.as_bytes()))?;
        }
    }
    all.finish()
}

/// What brings back the timestamps of zeros of `documents`, in whose place their insert has put the current time. Of capped
/// collections only those documents are given that [`inserts`] didn't insert.
pub(crate) fn restores(ns: &Namespace, documents: &[&RawDocument], capped: bool) -> Result<Vec<Command>, Error> {
    let mut all = Commands::default();
    for document in documents {
        let Some(id) = id_of(document)? else { continue };
        match document_shape::zeros(document.as_bytes()) {
            Zeros::Elsewhere if !capped => all.remake(ns, &id, document)?,
            zeros => all.zero(ns, &id, &zeros)?,
        }
    }
    all.finish()
}

/// Puts `documents` in the place of those that have their `_id`s, or inserts them.
pub(crate) fn puts(ns: &Namespace, documents: &[&RawDocument]) -> Result<Vec<Command>, Error> {
    let mut all = Commands::default();
    for document in documents {
        if let Some(id) = id_of(document)? {
            all.put(ns, &id, document)?;
        }
    }
    all.finish()
}

/// Whether a plain insert and an update can't give `document` its bytes.
pub(crate) fn needs_exact_insert(document: &RawDocument) -> bool {
    document_shape::zeros(document.as_bytes()) == Zeros::Elsewhere
}

/// `{_id: …}` of a document.
fn id_of(document: &RawDocument) -> Result<Option<RawDocumentBuf>, Error> {
    let id = raw_value::id_of(document).map(|id| {
        let mut only = Fields::default();
        only.push(b"_id", id);
        RawDocumentBuf::from_bytes(only.finish()).map_err(Error::custom)
    });
    id.transpose()
}

/// An update that inserts just these bytes, or fails with 11000 if a document with this `_id` is there: its query finds
/// none, so that the pipeline never changes one.
fn exactly(id: &RawDocument, document: &RawDocument) -> Vec<u8> {
    let mut nothing = RawArrayBuilder::with_capacity(16);
    nothing.push_document(&Fields::default().finish());
    let mut query = Fields::default();
    query.extend(id.as_bytes());
    query.extend(&RawDocBuilder::new().array("$nor", nothing).into_bytes());
    RawDocBuilder::new()
        .document("q", &query.finish())
        .array("u", replacing(document))
        .value("upsert", RawBsonRef::Boolean(true))
        .into_bytes()
}

/// Whether no update can replace a document by `document`: one that begins with an operator's sign would be taken for
/// operators, and one of the largest leaves no place for its `_id`. A reply to an upsert repeats the `_id`, and can't be
/// read if that isn't UTF-8.
fn must_be_inserted(id: &RawDocument, document: &RawDocument) -> bool {
    document_shape::has_dollar_name(document.as_bytes())
        || raw_value::id_of(id).is_some_and(|id| !id.is_utf8())
        || id.as_bytes().len() + document.as_bytes().len() > STATEMENT_BYTES
}

#[derive(Default)]
struct Commands {
    done: Vec<Command>,
    open: Option<Open>,
    /// Whether an update that fails doesn't keep those behind it from being tried.
    unordered: bool,
}

struct Open {
    ns: Namespace,
    verb: Verb,
    statements: RawArrayBuilder,
    bytes: usize,
}

impl Commands {
    /// `document` in place of what has its `_id`, if anything has.
    fn put(&mut self, ns: &Namespace, id: &RawDocument, document: &RawDocument) -> Result<(), Error> {
        let zeros = document_shape::zeros(document.as_bytes());
        if zeros == Zeros::Elsewhere || must_be_inserted(id, document) {
            return self.remake(ns, id, document);
        }
        let statement = RawDocBuilder::new().document("q", id.as_bytes()).document("u", document.as_bytes());
        self.add(ns, Verb::Update, &statement.value("upsert", RawBsonRef::Boolean(true)).into_bytes())?;
        self.zero(ns, id, &zeros)
    }

    /// The same by a delete and an insert.
    fn remake(&mut self, ns: &Namespace, id: &RawDocument, document: &RawDocument) -> Result<(), Error> {
        let delete = RawDocBuilder::new().document("q", id.as_bytes()).value("limit", RawBsonRef::Int32(1));
        self.add(ns, Verb::Delete, &delete.into_bytes())?;
        match document_shape::zeros(document.as_bytes()) {
            Zeros::Elsewhere => self.add(ns, Verb::Update, &exactly(id, document)),
            zeros => {
                self.add(ns, Verb::Insert, document.as_bytes())?;
                self.zero(ns, id, &zeros)
            }
        }
    }

    /// Brings back timestamps of zeros: `$set` writes them as they are.
    fn zero(&mut self, ns: &Namespace, id: &RawDocument, zeros: &Zeros<'_>) -> Result<(), Error> {
        let Zeros::Named(names) = zeros else { return Ok(()) };
        let mut set = Fields::default();
        names.iter().for_each(|name| set.push(name, Value { kind: raw_value::TIMESTAMP, bytes: &[0; 8] }));
        let update = RawDocBuilder::new().document("$set", &set.finish()).into_bytes();
        let statement = RawDocBuilder::new().document("q", id.as_bytes()).document("u", &update);
        self.add(ns, Verb::Update, &statement.into_bytes())
    }

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
            Verb::Update => {
                let head = doc! {"update": &ns.coll, "ordered": !self.unordered, "bypassDocumentValidation": true};
                (head, "updates")
            }
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
    use crate::destination::{coalesce::Origin, collection_map::Target};
    use bson::rawdoc;
    use std::sync::Arc;

    fn put(document: RawDocumentBuf) -> (u32, DocumentWrite) {
        let target = Arc::new(Target::plain(Namespace::new("d", "c")));
        let id = rawdoc! {"_id": 1};
        (
            0,
            DocumentWrite {
                target,
                id,
                canonical: Vec::new(),
                change: WriteKind::Put { document, origin: Origin::Replacement },
            },
        )
    }

    fn verbs(ops: &[(u32, DocumentWrite)]) -> Vec<String> {
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
    fn a_pipeline_is_sent_only_where_it_inserts() {
        let zero = bson::Timestamp { time: 0, increment: 0 };
        assert_eq!(verbs(&[put(rawdoc! {"_id": 1, "t": zero})]), ["update"]);
        let mut twice = rawdoc! {"_id": 1, "t": zero};
        twice.append(bson::raw::cstr!("t"), zero);
        assert_eq!(verbs(&[put(twice.clone())]), ["delete", "update"]);
        for command in commands(&[put(twice)]).expect("well formed") {
            let told = crate::mongo::raw_bson::to_document(&command.1).to_string();
            assert!(!told.contains("$replaceWith") || told.contains("$nor"), "{told}");
        }
    }

    #[test]
    fn no_command_is_larger_than_the_server_takes() {
        let large = || put(rawdoc! {"_id": 1, "a": "x".repeat(5 * 1024 * 1024)});
        assert_eq!(verbs(&[large(), large(), large(), large(), large()]), ["update", "update", "update"]);
    }
}
