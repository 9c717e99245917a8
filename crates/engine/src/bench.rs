//! What `benches/` measures of the pure parts, which are private: they are reached through here, with the feature `bench`.

use crate::{
    destination::{collection_map::Target, delta::Delta, write_commands},
    mongo::raw_bson,
    replication::batch::ChangeBatch,
    source::event::{self, Event},
};
use bson::RawDocument;
use limosa_model::Namespace;
use std::sync::Arc;

/// How many of a reply's events are about documents: parses them all, and the time of the reply's token.
#[must_use]
pub fn parse_events(reply: &RawDocument) -> usize {
    let events = event::events_of(reply).into_iter().flatten().flatten();
    let parsed = events.filter_map(|e| Event::parse(e.as_document()?)).filter(|e| e.id.is_some()).count();
    let time = event::token_of(reply).and_then(|token| event::token_time(&token));
    if time.is_some() { parsed } else { 0 }
}

/// How many updates of a reply say exactly what changed.
#[must_use]
pub fn exact_deltas(reply: &RawDocument) -> usize {
    let events = event::events_of(reply).into_iter().flatten().flatten();
    events.filter_map(|e| Event::parse(e.as_document()?)?.update_description.and_then(Delta::exact)).count()
}

/// How many commands a reply's events become: parsed, partitioned, coalesced, written out.
#[must_use]
pub fn commands(reply: &RawDocument) -> usize {
    let target = Arc::new(Target::plain(Namespace::new("d", "c")));
    let mut window = ChangeBatch::new();
    for raw in event::events_of(reply).into_iter().flatten().flatten() {
        if let Some(event) = raw.as_document().and_then(Event::parse) {
            let _ = window.push(Arc::clone(&target), &event, false);
        }
    }
    let shares = window.into_shares().into_iter();
    shares.filter_map(|ops| write_commands::commands(&ops).ok()).map(|commands| commands.len()).sum()
}

/// How long the canonical forms of all documents' `_id`s are together.
#[must_use]
pub fn canonical_ids(documents: &[&RawDocument]) -> usize {
    let ids = documents.iter().filter_map(|document| crate::mongo::raw_value::id_of(document));
    ids.map(|id| raw_bson::canonical_id(id, false).len()).sum()
}

/// How many of the documents an insert would change.
#[must_use]
pub fn zero_timestamps(documents: &[&RawDocument]) -> usize {
    documents.iter().filter(|document| raw_bson::has_zero_timestamp(document)).count()
}
