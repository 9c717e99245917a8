//! Whether two clusters hold the same: by `dbHash`, by catalog, and document by document where those differ.

use crate::Error;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::Client;
use std::collections::BTreeMap;

/// Characters of a document that a difference shows.
const SHOWN: usize = 400;

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Collections with documents.
    pub collections: u64,
    /// Documents in them.
    pub documents: u64,
    /// Their size.
    pub bytes: u64,
}

/// Compares the databases `dbs`; an error lists every difference.
pub async fn compare(source: &Client, destination: &Client, dbs: &[&str]) -> Result<Summary, Error> {
    let mut differences = Vec::new();
    let mut summary = Summary::default();
    for db in dbs {
        let (left, right) = (catalog(source, db).await?, catalog(destination, db).await?);
        for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
            // It stays behind, empty, where a view was created and dropped before the other side had any.
            let is_leftover = name == "system.views" && !left.values().any(|entry| entry.starts_with("view "));
            let is_expected = is_leftover && !right.contains_key(name);
            if left.get(name) != right.get(name) && !is_expected {
                differences.push(format!("{db}.{name}: catalog {:?} / {:?}", left.get(name), right.get(name)));
            }
        }
        let (a, b) = (hashes(source, db).await?, hashes(destination, db).await?);
        for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
            if a.get(name) != b.get(name) {
                differences.push(format!("{db}.{name}: dbHash"));
            }
            let capped = left.get(name).is_some_and(|entry| entry.contains("\"capped\": true"));
            differences.extend(documents(source, destination, db, name, capped).await?);
        }
        let stats = source.database(db).run_command(doc! {"dbStats": 1}).await?;
        let number = |name: &str| match stats.get(name) {
            Some(Bson::Int32(n)) => *n as u64,
            Some(Bson::Int64(n)) => *n as u64,
            Some(Bson::Double(n)) => *n as u64,
            _ => 0,
        };
        summary.collections += number("collections");
        summary.documents += number("objects");
        summary.bytes += number("dataSize");
    }
    if differences.is_empty() { Ok(summary) } else { Err(differences.join("\n").into()) }
}

async fn hashes(client: &Client, db: &str) -> Result<BTreeMap<String, String>, Error> {
    let reply = client.database(db).run_command(doc! {"dbHash": 1}).await?;
    let collections = reply.get_document("collections")?;
    // The views' own collection holds what the catalog tells, with details of a time-series that differ by version.
    let own = collections.iter().filter(|(name, _)| *name != "system.views");
    Ok(own.map(|(name, hash)| (name.clone(), hash.to_string())).collect())
}

/// Options and indexes by name, without what is the server's own.
async fn catalog(client: &Client, db: &str) -> Result<BTreeMap<String, String>, Error> {
    let cursor = client.database(db).run_cursor_command(doc! {"listCollections": 1, "cursor": {}}).await?;
    let mut found = BTreeMap::new();
    for entry in cursor.try_collect::<Vec<Document>>().await? {
        let name = entry.get_str("name")?.to_owned();
        let mut options = entry.get_document("options").cloned().unwrap_or_default();
        if name.starts_with("system.buckets.") {
            options.clear(); // the server makes them of the time-series collection's
        }
        let mut text = format!("{} {options}", entry.get_str("type")?);
        if entry.get_str("type")? != "view" {
            let cursor = client.database(db).run_cursor_command(doc! {"listIndexes": &name, "cursor": {}}).await?;
            let mut indexes: Vec<String> = cursor
                .try_collect::<Vec<Document>>()
                .await?
                .into_iter()
                .map(|mut index| {
                    // Only versions before 4.4 have it, or keep it from then.
                    index.remove("ns");
                    index.remove("background");
                    // Before 5.0 they are listed as they were written, later as what they mean.
                    for flag in ["unique", "sparse"] {
                        let meant = match index.get(flag) {
                            Some(Bson::Int32(n)) => *n != 0,
                            Some(Bson::Double(n)) => *n != 0.0,
                            Some(Bson::Boolean(flag)) => *flag,
                            _ => false,
                        };
                        index.remove(flag);
                        index.extend(meant.then(|| (flag.to_owned(), Bson::Boolean(true))));
                    }
                    // Later releases of 6.0 list a clustered collection's expiry here too; it is among the options.
                    if index.get_bool("clustered").unwrap_or(false) {
                        index.remove("expireAfterSeconds");
                    }
                    // 5.0 lists it as what it means, every other release as it was written.
                    if let Ok(projection) = index.get_document("wildcardProjection") {
                        let mut paths = BTreeMap::from([("_id".to_owned(), false)]);
                        flatten(projection, "", &mut paths);
                        index.insert("wildcardProjection", format!("{paths:?}"));
                    }
                    let mut fields: Vec<_> = index.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                    fields.sort();
                    fields.join(", ")
                })
                .collect();
            indexes.sort();
            text = format!("{text} {indexes:?}");
        }
        found.insert(name, text);
    }
    Ok(found)
}

/// The paths of a projection and whether it takes them.
fn flatten(projection: &Document, prefix: &str, paths: &mut BTreeMap<String, bool>) {
    for (name, value) in projection {
        let path = format!("{prefix}{name}");
        match value {
            Bson::Document(inner) => flatten(inner, &format!("{path}."), paths),
            value => drop(paths.insert(path, !matches!(value, Bson::Boolean(false) | Bson::Int32(0)))),
        }
    }
}

/// The first differences of two collections, byte for byte: in the order of insertion where that is kept, else in
/// `_id` order.
async fn documents(
    source: &Client,
    destination: &Client,
    db: &str,
    name: &str,
    capped: bool,
) -> Result<Vec<String>, Error> {
    let order = if capped {
        doc! {"$natural": 1}
    } else {
        doc! {"_id": 1}
    };
    let open = async |client: &Client| {
        client.database(db).collection::<RawDocumentBuf>(name).find(doc! {}).sort(order.clone()).await
    };
    let (mut a, mut b) = (open(source).await?, open(destination).await?);
    let mut differences = Vec::new();
    loop {
        let (x, y) = (a.try_next().await?, b.try_next().await?);
        if x.is_none() && y.is_none() || differences.len() >= 5 {
            return Ok(differences);
        }
        if x != y {
            let show = |d: Option<RawDocumentBuf>| {
                let text = d.map_or("none".to_owned(), |d| format!("{:?}", Document::try_from(d.as_ref())));
                text.chars().take(SHOWN).collect::<String>()
            };
            differences.push(format!("{db}.{name}: {} / {}", show(x), show(y)));
        }
    }
}
