//! Collections that the destination can't have as they are.

use crate::mongo::{
    calls::Release,
    capabilities::Capabilities,
    catalog::{self, Entry, Kind},
    cluster::Cluster,
};
use limosa_model::{ErrorCode, Failure, Finding};

/// A server holds no two databases whose names differ only in case.
pub(super) async fn names(entries: &[Entry], destination: &Cluster) -> Result<Vec<Finding>, Failure> {
    let have = destination.databases().await?;
    let mut wanted: Vec<&str> = entries.iter().map(|e| e.ns.db.as_str()).collect();
    wanted.dedup();
    let clashes = wanted.into_iter().filter_map(|db| {
        let other = have.iter().find(|own| *own != db && own.to_lowercase() == db.to_lowercase())?;
        let evidence = format!("the source has the database {db}, the destination {other}: no server holds both");
        Some(Finding::error(ErrorCode::NamesDifferInCase, db, evidence))
    });
    Ok(clashes.collect())
}

/// Kinds of collections that can't be carried over.
pub(super) fn unsupported(entry: &Entry) -> Option<Finding> {
    entry.options.contains_key("encryptedFields").then(|| {
        let evidence = format!("{} has queryable encryption, which is not supported", entry.ns);
        Finding::error(ErrorCode::UnsupportedCollection, entry.ns.to_string(), evidence)
    })
}

/// The options of collections and views, with the release that brought each, and the one that no longer takes it.
const OPTIONS: &[(&str, Release, Option<Release>)] = &[
    ("autoIndexId", (2, 2), None),
    ("capped", (2, 2), None),
    ("changeStreamPreAndPostImages", (6, 0), None),
    ("clusteredIndex", (5, 3), None),
    ("collation", (3, 4), None),
    ("encryptedFields", (6, 0), None),
    ("expireAfterSeconds", (5, 0), None),
    ("flags", (2, 2), None),
    ("idIndex", (3, 4), None),
    ("indexOptionDefaults", (3, 2), None),
    ("max", (2, 2), None),
    ("pipeline", (3, 4), None),
    ("recordPreImages", (4, 2), Some((6, 0))),
    ("size", (2, 2), None),
    ("storageEngine", (3, 0), None),
    ("temp", (2, 2), None),
    ("timeseries", (5, 0), None),
    ("uuid", (3, 6), None),
    ("validationAction", (3, 2), None),
    ("validationLevel", (3, 2), None),
    ("validator", (3, 2), None),
    ("viewOn", (3, 4), None),
];

/// Options that the destination's release doesn't take, or that nobody here has heard of; what is off needs no place.
pub(super) fn unknown_options(entry: &Entry, destination: Capabilities) -> Vec<Finding> {
    if entry.ns.coll.starts_with(catalog::BUCKETS) {
        return Vec::new(); // the destination makes its own
    }
    let takes = |name: &str| {
        OPTIONS.iter().any(|(known, from, until)| *known == name && destination.take_option(*from, *until))
    };
    let unknown = entry.options.iter().filter(|(name, value)| !takes(name) && value.as_bool() != Some(false));
    let told = unknown.map(|(name, _)| {
        let evidence = format!(
            "{} has the option {name}, which MongoDB {}.{} on the destination doesn't take",
            entry.ns, destination.level.0, destination.level.1
        );
        Finding::error(ErrorCode::UnsupportedCollection, entry.ns.to_string(), evidence)
    });
    told.collect()
}

/// Before 6.0 no change stream has the writes to a time-series collection.
pub(super) fn time_series(source: &Cluster, entries: &[Entry]) -> Option<Finding> {
    let mut series = entries.iter().filter(|e| e.kind == Kind::TimeSeries);
    let first = series.next().filter(|_| !source.can().show_time_series_events())?;
    let evidence = format!(
        "{} time-series collections, {} for one, are compared whole at the cutover, since a source before 6.0 doesn't tell \
         of writes to them: the write pause grows with their size",
        series.count() + 1,
        first.ns
    );
    Some(Finding::warning(ErrorCode::TimeSeriesAtCutover, first.ns.to_string(), evidence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};
    use limosa_model::Namespace;

    #[test]
    fn options_that_the_destination_does_not_take_are_named() {
        let told = |options: Document, version| -> Vec<String> {
            let entry = Entry { ns: Namespace::new("app", "c"), kind: Kind::Collection, uuid: None, options };
            unknown_options(&entry, Capabilities::of(version)).into_iter().map(|finding| finding.evidence).collect()
        };
        let options = doc! {"capped": true, "size": 4096, "recordIdsReplicated": true};
        let unheard = "app.c has the option recordIdsReplicated, which MongoDB 6.0 on the destination doesn't take";
        assert_eq!(told(options, (6, 0, 0)), [unheard]);
        let images = doc! {"recordPreImages": true, "validator": {"a": 1}};
        assert!(told(images.clone(), (5, 0, 0)).is_empty());
        let gone = "app.c has the option recordPreImages, which MongoDB 6.0 on the destination doesn't take";
        assert_eq!(told(images, (6, 0, 0)), [gone]);
        assert!(told(doc! {"recordPreImages": false}, (6, 0, 0)).is_empty());
    }
}
