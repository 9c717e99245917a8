//! What an index is to be on the destination, from what it is on the source: a release may list or take the same index in
//! another form, and some properties wait for the cutover.
//!
//! Expiry is deferred as the longest that the destination's release takes: before 5.1 no index becomes one that expires
//! without being built again.

use crate::mongo::{capabilities::Capabilities, cluster::Cluster, error, raw_bson::as_i64};
use bson::doc;
use bson::{Bson, Document};
use limosa_model::Failure;
use limosa_model::Namespace;
use std::collections::BTreeMap;

/// The longest expiry, in seconds, that an index of `destination` takes; who sets it means never.
pub(crate) fn longest_expiry(destination: Capabilities) -> i32 {
    // Since 1970 there are more than that from November 2023 on; it is 53 years.
    if destination.take_any_expiry() { i32::MAX } else { 1_700_000_000 }
}

/// Options of indexes made before 3.4 that no later release takes, and that never changed what an index holds.
const DEAD_OPTIONS: &[&str] = &["dropDups", "safe", "force", "w", "j", "fsync"];

/// All that an index's definition may have in some release from 4.4 to 8.0.
const KNOWN_OPTIONS: &[&str] = &[
    "2dsphereIndexVersion",
    "bits",
    "bucketSize",
    "clustered",
    "collation",
    "columnstoreProjection",
    "default_language",
    "expireAfterSeconds",
    "hidden",
    "key",
    "language_override",
    "max",
    "min",
    "name",
    "partialFilterExpression",
    "prepareUnique",
    "sparse",
    "storageEngine",
    "textIndexVersion",
    "unique",
    "v",
    "weights",
    "wildcardProjection",
];

/// Why `destination` can't build `index`, as far as its definition says.
pub(crate) fn unbuildable(index: &Document, destination: Capabilities) -> Option<String> {
    let name = index.get_str("name").unwrap_or_default();
    let kinds = || index.get_document("key").into_iter().flatten().filter_map(|(_, kind)| kind.as_str());
    if !destination.build_geo_haystack() && kinds().any(|kind| kind == "geoHaystack") {
        return Some(format!("index {name} is a geoHaystack index, which no release from 5.0 on has"));
    }
    let unknown = index
        .keys()
        .find(|option| !KNOWN_OPTIONS.contains(&option.as_str()) && !DEAD_OPTIONS.contains(&option.as_str()));
    let unknown = unknown.filter(|_| destination.have_only_known_index_options())?;
    Some(format!("index {name} has the option {unknown}, which the destination doesn't take"))
}

/// How far the destination's indexes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexPhase {
    /// While replicating.
    Deferred,
    /// At the cutover, before it is sure that it completes: nothing expires yet.
    FinalButExpiry,
    /// At the cutover.
    Final,
}

/// What `destination` should have for the source's `index`; `None`: nothing yet.
pub(crate) fn wanted(index: &Document, properties: IndexPhase, destination: Capabilities) -> Option<Document> {
    let mut spec = index.clone();
    for flag in ["unique", "sparse"] {
        // Before 5.0 they are listed as they were written, be it as a number.
        if let Some(number) = spec.get(flag).and_then(|value| as_i64(Some(value))) {
            spec.insert(flag, number != 0);
        }
    }
    DEAD_OPTIONS.iter().for_each(|option| drop(spec.remove(option)));
    if let Some(seconds) = spec.get("expireAfterSeconds") {
        // 4.4 takes NaN and never expires anything by it; 5.0.4 reads it as 0, and releases since 6.0.2 as the longest.
        let longest = longest_expiry(destination);
        let is_never = seconds.as_f64().is_some_and(f64::is_nan) || as_i64(Some(seconds)) > Some(i64::from(longest));
        if is_never || properties != IndexPhase::Final {
            spec.insert("expireAfterSeconds", longest);
        }
    }
    if properties == IndexPhase::Deferred {
        if spec.get_bool("unique").unwrap_or(false) {
            if !destination.make_an_index_unique() {
                return None;
            }
            spec.remove("unique");
        }
        spec.remove("prepareUnique");
    }
    Some(spec)
}

/// Equal but for the numeric type of numbers, which servers change, and the order of the properties.
pub(crate) fn same(a: &Document, b: &Document) -> bool {
    let equal = |x: Option<&Bson>, y: Option<&Bson>| x == y || (as_i64(x).is_some() && as_i64(x) == as_i64(y));
    let truthy = |d: &Document, k: &str| match d.get(k) {
        Some(Bson::Boolean(false)) | None => None,
        other => other.cloned(),
    };
    let keys = |d: &Document| {
        d.get_document("key")
            .map(|k| k.iter().map(|(n, v)| (n.clone(), as_i64(Some(v)), v.clone())).collect::<Vec<_>>())
    };
    let same_keys = match (keys(a), keys(b)) {
        (Ok(x), Ok(y)) => {
            x.len() == y.len()
                && x.iter().zip(&y).all(|(p, q)| p.0 == q.0 && (p.2 == q.2 || (p.1.is_some() && p.1 == q.1)))
        }
        _ => false,
    };
    let names = a.keys().chain(b.keys()).filter(|k| *k != "key" && *k != "v");
    same_keys
        && names.into_iter().all(|k| match (k.as_str(), a.get_document(k), b.get_document(k)) {
            ("wildcardProjection", Ok(x), Ok(y)) => projected(x) == projected(y),
            _ => equal(truthy(a, k).as_ref(), truthy(b, k).as_ref()),
        })
}

/// Which paths a wildcard index takes or leaves out. 5.0 lists it as what it means, every other release as it was written:
/// `{a: 1, "in.x": 1}` and `{_id: false, a: true, in: {x: true}}` are one.
fn projected(projection: &Document) -> BTreeMap<String, bool> {
    fn add(found: &mut BTreeMap<String, bool>, prefix: &str, projection: &Document) {
        for (name, value) in projection {
            let path = format!("{prefix}{name}");
            match value {
                Bson::Document(inner) => add(found, &format!("{path}."), inner),
                Bson::Boolean(taken) => drop(found.insert(path, *taken)),
                number => drop(found.insert(path, as_i64(Some(number)) != Some(0))),
            }
        }
    }
    let mut found = BTreeMap::from([("_id".to_owned(), false)]);
    add(&mut found, "", projection);
    found
}

/// All indexes of `ns`, but `_id`'s; none if it doesn't exist or is a view.
pub(crate) async fn list(cluster: &Cluster, ns: &Namespace) -> Result<Vec<Document>, Failure> {
    let read = async {
        let cursor = cluster.db(&ns.db).run_cursor_command(doc! {"listIndexes": &ns.coll, "cursor": {}}).await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let mut found = match read.await {
        Ok(found) => found,
        Err(e) if error::is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(cluster.failure(&e)),
    };
    found.retain(|index| {
        !index.get_str("name").is_ok_and(|n| n == "_id_") && !index.get_bool("clustered").unwrap_or(false)
    });
    for index in &mut found {
        index.remove("ns");
        index.remove("background");
        // A build in progress is listed with what was asked for.
        if let Some(Bson::Document(spec)) = index.remove("spec") {
            *index = spec;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn uniqueness_and_expiry_wait_for_the_cutover() {
        let index = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": true, "expireAfterSeconds": 60};
        let deferred = wanted(&index, IndexPhase::Deferred, Capabilities::of((6, 0, 5)));
        assert_eq!(deferred, Some(doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "expireAfterSeconds": i32::MAX}));
        assert_eq!(wanted(&index, IndexPhase::Deferred, Capabilities::of((5, 0, 4))), None);
        assert_eq!(wanted(&index, IndexPhase::Final, Capabilities::of((5, 0, 4))), Some(index));
        let written = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": 1, "sparse": 0.0};
        let read = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": true, "sparse": false};
        assert_eq!(wanted(&written, IndexPhase::Final, Capabilities::of((6, 0, 5))), Some(read));
        assert_eq!(wanted(&written, IndexPhase::Deferred, Capabilities::of((5, 0, 4))), None);
        let never = doc! {"v": 2, "key": {"a": 1}, "name": "a_1", "expireAfterSeconds": f64::NAN};
        let told = wanted(&never, IndexPhase::Final, Capabilities::of((6, 0, 5)))
            .and_then(|index| index.get_i32("expireAfterSeconds").ok());
        assert_eq!(told, Some(i32::MAX));
        // A release that refuses the longest, or reads NaN as 0, gets the longest that it takes.
        let expiry = |seconds: Bson, properties, version| {
            let mut index = doc! {"v": 2, "key": {"a": 1}, "name": "a_1"};
            index.insert("expireAfterSeconds", seconds);
            wanted(&index, properties, Capabilities::of(version))
                .and_then(|index| as_i64(index.get("expireAfterSeconds")))
        };
        for version in [(4, 4, 2), (5, 0, 4), (6, 0, 1)] {
            assert_eq!(expiry(60.into(), IndexPhase::Deferred, version), Some(1_700_000_000));
            assert_eq!(expiry(f64::NAN.into(), IndexPhase::Final, version), Some(1_700_000_000));
            assert_eq!(expiry(i32::MAX.into(), IndexPhase::Final, version), Some(1_700_000_000));
            assert_eq!(expiry(60.into(), IndexPhase::Final, version), Some(60));
        }
        assert_eq!(expiry(60.into(), IndexPhase::FinalButExpiry, (6, 0, 5)), Some(i64::from(i32::MAX)));
    }

    #[test]
    fn what_a_definition_says_can_not_be_built_is_known() {
        let hay = doc! {"v": 2, "key": {"at": "geoHaystack", "b": 1}, "name": "hay", "bucketSize": 1};
        assert_eq!(unbuildable(&hay, Capabilities::of((4, 4, 2))), None);
        assert!(unbuildable(&hay, Capabilities::of((5, 0, 4))).is_some_and(|why| why.contains("hay")));
        let old = doc! {"v": 1, "key": {"a": 1}, "name": "a", "dropDups": true, "safe": true};
        assert_eq!(unbuildable(&old, Capabilities::of((6, 0, 5))), None);
        assert_eq!(
            wanted(&old, IndexPhase::Final, Capabilities::of((6, 0, 5))),
            Some(doc! {"v": 1, "key": {"a": 1}, "name": "a"})
        );
        let odd = doc! {"v": 1, "key": {"a": 1}, "name": "a", "fancy": 1};
        assert!(unbuildable(&odd, Capabilities::of((6, 0, 5))).is_some_and(|why| why.contains("fancy")));
    }

    #[test]
    fn numeric_types_and_false_flags_make_no_difference() {
        let a = doc! {"v": 2, "key": {"a": 1, "b": "text"}, "name": "x", "unique": false};
        assert!(same(&a, &doc! {"v": 2, "key": {"a": 1.0, "b": "text"}, "name": "x"}));
        assert!(!same(&a, &doc! {"v": 2, "key": {"b": "text", "a": 1}, "name": "x"}));
        assert!(!same(&a, &doc! {"v": 2, "key": {"a": 1, "b": "text"}, "name": "x", "sparse": true}));
    }

    #[test]
    fn a_wildcard_projection_is_what_it_means() {
        let index = |projection: Document| doc! {"key": {"$**": 1}, "name": "w", "wildcardProjection": projection};
        let written = index(doc! {"a": 1, "in.x": 1.0});
        assert!(same(&written, &index(doc! {"_id": false, "a": true, "in": {"x": true}})));
        assert!(same(&index(doc! {"a": 0}), &index(doc! {"_id": false, "a": false})));
        for other in [doc! {"_id": 1, "a": 1, "in.x": 1}, doc! {"a": 1}, doc! {"a": 0, "in.x": 0}] {
            assert!(!same(&written, &index(other.clone())), "{other}");
        }
        assert!(!same(&written, &doc! {"key": {"$**": 1}, "name": "w"}));
    }
}
