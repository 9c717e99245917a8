//! What the servers since 7.1 want for the buckets of a time-series collection, and what they no longer take from 9.0 on.

use crate::mongo::{
    capabilities::Capabilities,
    catalog::{self, Entry, Kind},
    cluster::Cluster,
};
use bson::{Document, doc};
use limosa_model::{ErrorCode, Failure, Finding, Namespace};

/// The server's name for the setting, in `collMod` and in the message with which it asks for it.
const MIXED_SCHEMA: &str = "timeseriesBucketsMayHaveMixedSchemaData";

/// The `collMod` that a refusal of a bucket asks for: from 7.1 on a bucket whose measurements have fields of different
/// types, as 5.0 made them, is taken only once its collection is marked so.
fn asked_for(ns: &Namespace, refusal: &str) -> Option<Document> {
    let series = ns.coll.strip_prefix(catalog::BUCKETS)?;
    let mut command = doc! {"collMod": series};
    command.insert(MIXED_SCHEMA, true);
    refusal.contains(MIXED_SCHEMA).then_some(command)
}

/// Does what a refusal asks for; `false` if that isn't what was refused.
pub(crate) async fn allow_mixed_schema(destination: &Cluster, ns: &Namespace, refusal: &str) -> Result<bool, Failure> {
    let Some(command) = asked_for(ns, refusal) else { return Ok(false) };
    tracing::info!(%ns, "its buckets have mixed schemas; the collection is marked so");
    destination.define(&ns.db, command).await.map_err(|e| destination.failure(&e))?;
    Ok(true)
}

/// Why a time-series collection can't be migrated between these releases; `None` if it can.
pub(crate) fn refusal(entry: &Entry, source: Capabilities, destination: Capabilities) -> Option<Finding> {
    let is_series = entry.kind == Kind::TimeSeries || entry.ns.coll.starts_with(catalog::BUCKETS);
    let side = match () {
        // Only a collection that has no buckets of its own has a UUID of its own.
        () if entry.kind == Kind::TimeSeries && (entry.uuid.is_some() || !source.have_bucket_collections()) => "source",
        () if is_series && !destination.have_bucket_collections() => "destination",
        () => return None,
    };
    let evidence = format!(
        "{} is a time-series collection, and the {side} has no separate collection of its buckets (MongoDB 9.0 and later)",
        entry.ns
    );
    Some(Finding::error(ErrorCode::UnsupportedCollection, entry.ns.to_string(), evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, coll: &str, uuid: Option<catalog::Uuid>) -> Entry {
        Entry { ns: Namespace::new("d", coll), kind, uuid, options: doc! {} }
    }

    #[test]
    fn mixed_schemas_are_allowed_only_when_a_server_asks_for_it() {
        let buckets = Namespace::new("d", "system.buckets.series");
        let refusal = "Cannot write time-series bucket containing mixed schema data, please run collMod with \
                       timeseriesBucketsMayHaveMixedSchemaData and retry your insert";
        let want = doc! {"collMod": "series", "timeseriesBucketsMayHaveMixedSchemaData": true};
        assert_eq!(asked_for(&buckets, refusal), Some(want));
        assert_eq!(asked_for(&buckets, "Document failed validation"), None);
        assert_eq!(asked_for(&Namespace::new("d", "c"), refusal), None);
    }

    #[test]
    fn time_series_without_buckets_are_refused_on_either_side() {
        let of = |entry: &Entry, source, destination| {
            refusal(entry, Capabilities::of(source), Capabilities::of(destination))
                .map(|finding| (finding.code, finding.subject))
        };
        let refused = Some((ErrorCode::UnsupportedCollection, "d.series".to_owned()));
        let with_buckets = entry(Kind::TimeSeries, "series", None);
        assert_eq!(of(&with_buckets, (8, 0, 0), (8, 2, 0)), None);
        assert_eq!(of(&with_buckets, (8, 0, 0), (9, 0, 0)), refused);
        // Whatever the release calls itself.
        assert_eq!(of(&entry(Kind::TimeSeries, "series", Some([1; 16])), (8, 3, 0), (8, 3, 0)), refused);
        assert_eq!(of(&entry(Kind::Collection, "c", Some([1; 16])), (9, 0, 0), (9, 0, 0)), None);
    }
}
