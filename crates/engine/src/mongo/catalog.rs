//! Collections, views and their options: read from either side, created on the destination, compared.

use crate::mongo::{cluster::Cluster, codes, error, raw_bson::as_i64};
use bson::{Bson, Document, doc};
use limosa_model::{Failure, Namespace, NamespaceFilter};

/// A collection's UUID.
pub(crate) type Uuid = [u8; 16];

/// What `listCollections` calls a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Collection,
    View,
    TimeSeries,
}

/// One entry of the catalog.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub ns: Namespace,
    pub kind: Kind,
    /// Absent for views.
    pub uuid: Option<Uuid>,
    /// As `create` takes them.
    pub options: Document,
}

impl Entry {
    pub fn is_capped(&self) -> bool {
        self.options.get_bool("capped").unwrap_or(false)
    }

    /// Whether strings that differ may be equal here.
    pub fn is_collated(&self) -> bool {
        self.options.contains_key("collation")
    }

    /// Holds documents of its own: everything but views and the view half of a time-series collection.
    pub fn has_documents(&self) -> bool {
        self.kind == Kind::Collection
    }
}

/// Prefix of the collection that holds a time-series collection's data.
pub(crate) const BUCKETS: &str = "system.buckets.";

/// All that `filter` admits.
pub(crate) async fn list(cluster: &Cluster, filter: &NamespaceFilter) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for db in cluster.databases().await? {
        if filter.admits_database(&db) {
            entries.extend(
                list_database(cluster, &db, doc! {}).await?.into_iter().filter(|e| filter.admits(&e.ns.db, &e.ns.coll)),
            );
        }
    }
    entries.sort_by(|a, b| a.ns.cmp(&b.ns));
    Ok(entries)
}

/// One namespace, if it exists.
pub(crate) async fn find(cluster: &Cluster, ns: &Namespace) -> Result<Option<Entry>, Failure> {
    Ok(list_database(cluster, &ns.db, doc! {"name": &ns.coll}).await?.pop())
}

/// The collection with this UUID in the database of `last`, its last known name, if it exists. Looked for under that name
/// first: to find a UUID the server goes through the whole database.
pub(crate) async fn find_by_uuid(cluster: &Cluster, last: &Namespace, uuid: Uuid) -> Result<Option<Entry>, Failure> {
    let under_its_name = find(cluster, last).await?;
    if under_its_name.as_ref().is_some_and(|entry| entry.uuid == Some(uuid)) {
        return Ok(under_its_name);
    }
    let binary = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.to_vec() };
    Ok(list_database(cluster, &last.db, doc! {"info.uuid": binary}).await?.pop())
}

async fn list_database(cluster: &Cluster, db: &str, filter: Document) -> Result<Vec<Entry>, Failure> {
    let read = async {
        let cursor =
            cluster.db(db).run_cursor_command(doc! {"listCollections": 1, "filter": filter, "cursor": {}}).await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let found = read.await.map_err(|e| cluster.failure(&e))?;
    Ok(found.into_iter().filter_map(|document| parse(db, document)).collect())
}

fn parse(db: &str, mut document: Document) -> Option<Entry> {
    let kind = match document.get_str("type") {
        Ok("view") => Kind::View,
        Ok("timeseries") => Kind::TimeSeries,
        _ => Kind::Collection,
    };
    let uuid = document.get_document("info").ok().and_then(|info| uuid_of(info.get("uuid")));
    let mut options = match document.remove("options") {
        Some(Bson::Document(options)) => options,
        _ => Document::new(),
    };
    // What is the default since 3.4 isn't told.
    if let Ok(index) = document.get_document("idIndex")
        && as_i64(index.get("v")) == Some(1)
    {
        let mut index = index.clone();
        index.remove("ns");
        options.insert("idIndex", index);
    }
    Some(Entry { ns: Namespace::new(db, document.get_str("name").ok()?), kind, uuid, options })
}

/// A UUID out of a field.
pub(crate) fn uuid_of(value: Option<&Bson>) -> Option<Uuid> {
    match value? {
        Bson::Binary(binary) => binary.bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

/// The option by which the documents of a time-series or clustered collection expire.
const EXPIRY: &str = "expireAfterSeconds";

/// What became of [`create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    New,
    /// Something has that name already.
    Existed,
}

/// Creates `ns` with `options`; that it exists already is success. What would make the destination delete documents on
/// its own is left out until the cutover.
pub(crate) async fn create(destination: &Cluster, ns: &Namespace, options: &Document) -> Result<Made, Failure> {
    // Buckets come with their time-series collection. What it is like is told by their own options too: on the source it
    // is created a moment later, and may not be there yet.
    let series = ns.coll.strip_prefix(BUCKETS);
    let mut command = doc! {"create": series.unwrap_or(&ns.coll)};
    command.extend(options.clone());
    if series.is_some() {
        command.remove("validator");
        command.remove("clusteredIndex");
    }
    command.remove("uuid");
    command.remove("autoIndexId");
    command.remove("temp"); // or an election would drop it
    if !options.get_bool("recordPreImages").unwrap_or(true) {
        command.remove("recordPreImages"); // which no release since 6.0 takes, not even turned off
    }
    if options.contains_key("timeseries") || options.contains_key("clusteredIndex") {
        command.remove("expireAfterSeconds");
    }
    // `convertToCapped` makes a capped collection of a clustered one; `create` doesn't take the two together.
    let converted = command.get("size").cloned().filter(|_| command.contains_key("clusteredIndex"));
    if converted.is_some() {
        ["capped", "size", "max"].iter().for_each(|name| drop(command.remove(name)));
    }
    match destination.define(&ns.db, command).await {
        Ok(_) => {}
        Err(e) if error::code(&e) == Some(codes::NAMESPACE_EXISTS) => return Ok(Made::Existed),
        Err(e) => return Err(destination.failure(&e)),
    }
    if let Some(size) = converted {
        let command = doc! {"convertToCapped": &ns.coll, "size": size};
        destination.define_once(&ns.db, command).await.map_err(|e| destination.failure(&e))?;
    }
    Ok(Made::New)
}

/// The `collMod`s that bring `have` to `want`, where `collMod` can.
pub(crate) fn option_changes(want: &Entry, have: &Entry) -> Document {
    match want.kind {
        Kind::View if differs(want, have, "viewOn") || differs(want, have, "pipeline") => {
            let options = ["viewOn", "pipeline"].into_iter();
            options.filter_map(|name| Some((name.to_owned(), want.options.get(name)?.clone()))).collect()
        }
        Kind::View => Document::new(),
        Kind::TimeSeries => time_series_changes(want, have),
        Kind::Collection if want.ns.coll.starts_with(BUCKETS) => Document::new(),
        Kind::Collection => collection_changes(want, have),
    }
}

/// Whether an option isn't the same, but for the numeric type of a number.
fn differs(want: &Entry, have: &Entry, name: &str) -> bool {
    let (a, b) = (want.options.get(name), have.options.get(name));
    a != b && (as_i64(a).is_none() || as_i64(a) != as_i64(b))
}

fn time_series_changes(want: &Entry, have: &Entry) -> Document {
    let series = |e: &Entry, field: &str| e.options.get_document("timeseries").ok()?.get(field).cloned();
    let (mut changes, mut series_changes) = (Document::new(), Document::new());
    for field in ["granularity", "bucketMaxSpanSeconds", "bucketRoundingSeconds"] {
        // What a granularity implies needn't be said, nor can it.
        let implied = field != "granularity" && series(want, "granularity").is_some();
        if !implied && series(want, field) != series(have, field) {
            series_changes.extend(series(want, field).map(|value| (field.to_owned(), value)));
        }
    }
    if !series_changes.is_empty() {
        changes.insert("timeseries", series_changes);
    }
    if differs(want, have, EXPIRY) {
        changes.insert(EXPIRY, want.options.get(EXPIRY).cloned().unwrap_or("off".into()));
    }
    changes
}

fn collection_changes(want: &Entry, have: &Entry) -> Document {
    let mut changes = Document::new();
    let set = |changes: &mut Document, option: &str, name: &str, default: Bson| {
        if differs(want, have, option) {
            changes.insert(name, want.options.get(option).cloned().unwrap_or(default));
        }
    };
    set(&mut changes, "validator", "validator", doc! {}.into());
    for (name, default) in [("validationLevel", "strict"), ("validationAction", "error")] {
        let of = |e: &Entry| e.options.get_str(name).unwrap_or(default).to_owned();
        if of(want) != of(have) || (differs(want, have, name) && want.options.contains_key(name)) {
            changes.insert(name, of(want));
        }
    }
    let images = "changeStreamPreAndPostImages";
    set(&mut changes, images, images, doc! {"enabled": false}.into());
    if want.is_capped() && have.is_capped() {
        if differs(want, have, "size") {
            changes.extend(want.options.get("size").map(|v| ("cappedSize".to_owned(), v.clone())));
        }
        set(&mut changes, "max", "cappedMax", Bson::Int64(0));
    }
    if want.options.contains_key("clusteredIndex") {
        set(&mut changes, EXPIRY, EXPIRY, "off".into());
    }
    changes
}

/// Whether the two differ in something that no `collMod` changes.
pub(crate) fn must_be_recreated(want: &Entry, have: &Entry) -> bool {
    let same = |name: &str| want.options.get(name) == have.options.get(name);
    want.kind != have.kind
        || want.is_capped() != have.is_capped()
        || !same("collation")
        || !same("timeseries") && {
            let key = |e: &Entry, f: &str| e.options.get_document("timeseries").ok().and_then(|t| t.get(f).cloned());
            key(want, "timeField") != key(have, "timeField") || key(want, "metaField") != key(have, "metaField")
        }
        || !same("clusteredIndex")
}
