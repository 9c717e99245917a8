//! Compares what is defined on both sides: collections, views, their options, their indexes.

use crate::{
    mongo::{
        catalog::{self, Entry, Kind},
        cluster::Cluster,
        index_spec::{self, IndexPhase},
        raw_bson::as_i64,
    },
    tuning::CATALOG_CONCURRENCY,
};
use bson::{Bson, Document};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{Failure, Namespace, NamespaceFilter};
use std::collections::{BTreeMap, BTreeSet};

/// What differs in one namespace's definition, a line each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Departures {
    pub options: Vec<String>,
    pub indexes: Vec<String>,
}

impl Departures {
    fn is_empty(&self) -> bool {
        self.options.is_empty() && self.indexes.is_empty()
    }
}

/// All namespaces whose definitions differ; `properties` says how far the destination's indexes should be.
pub(crate) async fn compare(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
    properties: IndexPhase,
) -> Result<BTreeMap<Namespace, Departures>, Failure> {
    let by_name = |entries: Vec<Entry>| -> BTreeMap<Namespace, Entry> {
        entries.into_iter().map(|e| (e.ns.clone(), e)).collect()
    };
    let (want, have) = (catalog::list(source, filter).await?, catalog::list(destination, filter).await?);
    let (want, have) = (by_name(want), by_name(have));
    let mut all = BTreeMap::new();
    let mut both = Vec::new();
    for ns in want.keys().chain(have.keys()).collect::<BTreeSet<_>>() {
        let only = match (want.get(ns), have.get(ns)) {
            (Some(a), Some(b)) => {
                both.push(of_both(source, destination, a, b, properties));
                continue;
            }
            (Some(_), None) => "it is missing on the destination",
            _ => "it is not on the source",
        };
        all.insert(ns.clone(), Departures { options: vec![only.to_owned()], indexes: Vec::new() });
    }
    let mut compared = futures::stream::iter(both).buffer_unordered(CATALOG_CONCURRENCY);
    while let Some((ns, found)) = compared.try_next().await? {
        if !found.is_empty() {
            all.insert(ns, found);
        }
    }
    Ok(all)
}

/// What differs in the definition of a namespace that both sides have.
async fn of_both(
    source: &Cluster,
    destination: &Cluster,
    want: &Entry,
    have: &Entry,
    properties: IndexPhase,
) -> Result<(Namespace, Departures), Failure> {
    let ns = &want.ns;
    let mut found = Departures { options: options(want, have), indexes: Vec::new() };
    if want.kind != Kind::View && have.kind != Kind::View && !ns.coll.starts_with(catalog::BUCKETS) {
        let (listed, own) = tokio::try_join!(index_spec::list(source, ns), index_spec::list(destination, ns))?;
        let wanted: Vec<Document> =
            listed.iter().filter_map(|i| index_spec::wanted(i, properties, destination.can())).collect();
        found.indexes = index_departures(&wanted, &own);
    }
    Ok((ns.clone(), found))
}

/// Options that differ, but for what is only another way to write the same.
fn options(source: &Entry, destination: &Entry) -> Vec<String> {
    if source.kind != destination.kind {
        return vec![format!("{:?} on the source, {:?} on the destination", source.kind, destination.kind)];
    }
    if source.ns.coll.starts_with(catalog::BUCKETS) {
        // They follow from those of the time-series collection.
        return Vec::new();
    }
    let names: BTreeSet<&String> = source.options.keys().chain(destination.options.keys()).collect();
    let mut lines = Vec::new();
    for name in names.into_iter().filter(|name| !matches!(name.as_str(), "uuid" | "autoIndexId")) {
        let value = |entry: &Entry| {
            let own = entry.options.get(name).cloned();
            match (name.as_str(), own) {
                ("validationLevel", None) => Some(Bson::String("strict".to_owned())),
                ("validationAction", None) => Some(Bson::String("error".to_owned())),
                ("changeStreamPreAndPostImages", Some(Bson::Document(d))) if !d.get_bool("enabled").unwrap_or(true) => {
                    None
                }
                ("timeseries", Some(Bson::Document(mut d))) if d.contains_key("granularity") => {
                    // It follows from the granularity, and not all versions show it.
                    d.remove("bucketMaxSpanSeconds");
                    Some(Bson::Document(d))
                }
                (_, own) => own,
            }
        };
        let (a, b) = (value(source), value(destination));
        let same = match (&a, &b) {
            (Some(a), Some(b)) => same_value(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            lines.push(format!(
                "{name}: {} on the source, {} on the destination",
                shown(a.as_ref()),
                shown(b.as_ref())
            ));
        }
    }
    lines
}

fn shown(value: Option<&Bson>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| value.clone().into_relaxed_extjson().to_string())
}

/// Equal but for the types of numbers.
fn same_value(a: &Bson, b: &Bson) -> bool {
    match (a, b) {
        (Bson::Document(x), Bson::Document(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|((n, v), (m, w))| n == m && same_value(v, w))
        }
        (Bson::Array(x), Bson::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same_value(v, w)),
        _ => a == b || as_i64(Some(a)).is_some() && as_i64(Some(a)) == as_i64(Some(b)),
    }
}

fn index_departures(want: &[Document], have: &[Document]) -> Vec<String> {
    let name = |d: &Document| d.get_str("name").unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for index in want {
        match have.iter().find(|other| name(other) == name(index)) {
            None => lines.push(format!("{} is missing on the destination", name(index))),
            Some(other) if index_spec::same(index, other) => {}
            Some(other) => {
                let fields: BTreeSet<&String> = index.keys().chain(other.keys()).filter(|k| *k != "v").collect();
                let departing = fields.into_iter().filter(|field| match (index.get(*field), other.get(*field)) {
                    (Some(a), Some(b)) => !same_value(a, b),
                    (a, b) => a.or(b) != Some(&Bson::Boolean(false)),
                });
                let told: Vec<String> = departing
                    .map(|f| {
                        format!("{f} {} on the source, {} on the destination", shown(index.get(f)), shown(other.get(f)))
                    })
                    .collect();
                lines.push(format!("{}: {}", name(index), told.join("; ")));
            }
        }
    }
    for index in have.iter().filter(|index| !want.iter().any(|other| name(other) == name(index))) {
        lines.push(format!("{} is not on the source", name(index)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn entry(options: Document) -> Entry {
        Entry { ns: Namespace::new("d", "c"), kind: Kind::Collection, uuid: None, options }
    }

    #[test]
    fn ways_to_write_the_same_are_no_difference() {
        let pairs = [
            (doc! {"capped": true, "size": 4096}, doc! {"capped": true, "size": 4096_i64}),
            (doc! {"validator": {"a": 1}}, doc! {"validator": {"a": 1}, "validationLevel": "strict"}),
            (doc! {}, doc! {"changeStreamPreAndPostImages": {"enabled": false}}),
        ];
        for (a, b) in pairs {
            assert_eq!(options(&entry(a), &entry(b)), Vec::<String>::new());
        }
        let told = options(&entry(doc! {"validator": {"a": 1}}), &entry(doc! {"validator": {"a": 2}}));
        assert_eq!(told, [r#"validator: {"a":1} on the source, {"a":2} on the destination"#]);
    }

    #[test]
    fn indexes_that_differ_are_told_with_what_differs() {
        let want = vec![
            doc! {"v": 2, "key": {"a": 1}, "name": "a"},
            doc! {"v": 2, "key": {"b": 1}, "name": "b", "unique": true},
            doc! {"v": 2, "key": {"c": 1}, "name": "c"},
        ];
        let have = [
            doc! {"v": 2, "key": {"a": 1.0}, "name": "a"},
            doc! {"v": 2, "key": {"b": 1}, "name": "b"},
            doc! {"v": 2, "key": {"d": 1}, "name": "d"},
        ];
        let told = index_departures(&want, &have);
        assert_eq!(
            told,
            [
                "b: unique true on the source, absent on the destination",
                "c is missing on the destination",
                "d is not on the source"
            ]
        );
    }
}
