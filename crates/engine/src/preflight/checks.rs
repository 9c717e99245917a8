//! Every reason not to start, and everything to know before, seen without writing anything. One function each; errors
//! stand in the way, warnings don't.

use crate::{
    Settings,
    copy::plan,
    destination::{
        checkpoint::{COLLECTIONS, Store},
        claims, time_series,
    },
    mongo::{
        calls::Release,
        capabilities::Capabilities,
        catalog::{self, Entry, Kind},
        cluster::Cluster,
        codes, connect, error, index_spec, privileges,
        raw_bson::as_i64,
        side::Side,
    },
    preflight::ownership,
    source::left_behind,
};
use bson::{Document, Timestamp, doc};
use limosa_model::filter::OWN_DATABASE;
use limosa_model::{ErrorCode, Failure, Finding, Secret, Uri};
use std::collections::BTreeMap;

/// An oplog that covers less than this can be lost in a restart of the migration host that takes a while.
const SHORT_OPLOG_SECONDS: i64 = 3600;

/// Leases and timers bear this much.
const SKEW_SECONDS: i64 = 10;

/// All findings; the migration can start when none is an error.
pub(crate) async fn preflight(settings: &Settings) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        [(Side::Source, &settings.source_uri), (Side::Destination, &settings.destination_uri)]
            .into_iter()
            .flat_map(|(side, uri)| files(side, uri))
            .collect();
    if !findings.is_empty() {
        return findings;
    }
    let (source, destination) = tokio::join!(
        Cluster::connect(Side::Source, &settings.source_uri),
        Cluster::connect(Side::Destination, &settings.destination_uri)
    );
    let about = |side: Side| move |failure: Failure| Finding { subject: side.to_string(), ..failure.into() };
    let (source, destination) = match (source, destination) {
        (Ok(source), Ok(destination)) => (source, destination),
        (a, b) => {
            let (a, b) = (a.err().map(about(Side::Source)), b.err().map(about(Side::Destination)));
            return a.into_iter().chain(b).collect();
        }
    };
    if let Some(failure) = crate::mongo::cluster::same_cluster(&source, &destination) {
        return vec![about(Side::Destination)(failure)];
    }
    for (side, uri) in [(Side::Source, &settings.source_uri), (Side::Destination, &settings.destination_uri)] {
        findings.extend(overridden(side, uri));
    }
    findings.extend(versions(source.can(), destination.can()));
    findings.extend(source_readable(&source).await.err().map(about(Side::Source)));
    findings.extend(destination_writable(&destination).await.err().map(about(Side::Destination)));
    if findings.iter().any(Finding::is_error) {
        // What can't be read can't be judged.
        return findings;
    }
    match everything_else(settings, &source, &destination).await {
        Ok(more) => findings.extend(more),
        Err(failure) => findings.push(failure.into()),
    }
    findings
}

async fn everything_else(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
) -> Result<Vec<Finding>, Failure> {
    let now = limosa_model::Timestamp::now();
    let mut findings = Vec::new();
    findings.extend(compatibility(source, destination));
    findings.extend(ownership::allowed(settings, destination).err().map(Finding::from));
    findings.extend(destination_free(settings, destination).await?);
    for cluster in [source, destination] {
        findings.extend(foreign(cluster).await?);
    }
    findings.extend(left_behind::findings(source, &settings.filter).await?);
    findings.extend(oplog(source).await?);
    for cluster in [source, destination] {
        findings.extend(clock(cluster, now).await?);
    }
    let entries = catalog::list(source, &settings.filter).await?;
    findings.extend(names(&entries, destination).await?);
    findings.extend(space(source, destination, &entries).await?);
    findings.extend(entries.iter().filter_map(unsupported));
    findings.extend(entries.iter().flat_map(|entry| unknown_options(entry, destination.can())));
    findings.extend(time_series(source, &entries));
    findings.extend(entries.iter().filter_map(|e| time_series::refusal(e, source.can(), destination.can())));
    for entry in entries.iter().filter(|e| e.kind != Kind::View && !e.ns.coll.starts_with(catalog::BUCKETS)) {
        findings.extend(index_findings(source, destination, entry).await?);
        findings.extend(unbuildable_indexes(source, destination, entry).await?);
    }
    Ok(findings)
}

/// The files that a URI names can be read on this host.
fn files(side: Side, uri: &Secret) -> Vec<Finding> {
    // Of one that is malformed, connecting tells.
    let Ok(uri) = Uri::parse(uri) else { return Vec::new() };
    ["tlsCAFile", "tlsCertificateKeyFile"]
        .into_iter()
        .filter_map(|name| {
            let file = uri.option(name)?;
            let error = std::fs::File::open(file).err()?;
            let evidence = format!("{name} of the {side} URI names {file}, which can't be read on this host: {error}");
            Some(Finding::error(ErrorCode::CaFileUnreadable, side.to_string(), evidence))
        })
        .collect()
}

/// What a URI says that has no effect.
fn overridden(side: Side, uri: &Secret) -> Option<Finding> {
    let given = connect::read(side, uri).ok().filter(|given| !given.overridden.is_empty())?;
    let evidence = format!(
        "the {side} URI says {}: Limosa reads from the primary and writes with a majority, within time limits of its own, \
         whatever these options say",
        given.overridden.join(", ")
    );
    Some(Finding::warning(ErrorCode::UriOptionOverridden, side.to_string(), evidence))
}

fn versions(source: Capabilities, destination: Capabilities) -> Vec<Finding> {
    let show = |Capabilities { version: (major, minor, patch), .. }| format!("{major}.{minor}.{patch}");
    let mut findings = Vec::new();
    for (side, server) in [(Side::Source, source), (Side::Destination, destination)] {
        if server.is_too_old() {
            let evidence = format!("the {side} is MongoDB {}; the oldest supported is 4.4", show(server));
            findings.push(Finding::error(ErrorCode::UnsupportedVersion, side.to_string(), evidence));
        }
        if server.is_untested() {
            let evidence = format!("the {side} is MongoDB {}, which this program was not held against", show(server));
            findings.push(Finding::warning(ErrorCode::UnsupportedVersion, side.to_string(), evidence));
        }
    }
    if destination.is_older_than(source) {
        let evidence = format!("the destination ({}) is older than the source ({})", show(destination), show(source));
        findings.push(Finding::error(ErrorCode::UnsupportedVersion, "destination", evidence));
    }
    findings
}

/// The destination takes everything that the source's feature compatibility version allows; and one that is lower than
/// the server's version has consequences.
fn compatibility(source: &Cluster, destination: &Cluster) -> Vec<Finding> {
    let show = |release: Release| format!("{}.{}", release.0, release.1);
    let mut findings = Vec::new();
    if destination.can().allow_less_than(source.can()) {
        let evidence = format!(
            "the destination's featureCompatibilityVersion is {}, the source's is {}: collections may not be creatable",
            show(destination.level),
            show(source.level)
        );
        findings.push(Finding::error(ErrorCode::UnsupportedVersion, "destination", evidence));
    }
    for cluster in [source, destination] {
        if cluster.can().is_upgrading() {
            let evidence = format!(
                "the {} is MongoDB {} with the featureCompatibilityVersion {}: it is treated as a server of {}; don't change it \
                 while the migration runs",
                cluster.side,
                show(cluster.can().release()),
                show(cluster.level),
                show(cluster.level)
            );
            findings.push(Finding::warning(ErrorCode::UnsupportedVersion, cluster.side.to_string(), evidence));
        }
    }
    findings
}

fn denied(cluster: &Cluster, e: &mongodb::error::Error, needs: &str) -> Failure {
    match error::code(e) {
        Some(codes::UNAUTHORIZED) => {
            Failure::new(ErrorCode::InsufficientPrivileges, format!("the user of the {} {needs}", cluster.side))
        }
        _ => cluster.failure(e),
    }
}

/// The whole cluster's change stream can be opened, and every collection read.
async fn source_readable(source: &Cluster) -> Result<(), Failure> {
    let command = doc! {"aggregate": 1, "pipeline": [{"$changeStream": {"allChangesForCluster": true}}], "cursor": {}};
    let needs = "can't read the change stream of the cluster; grant it the role readAnyDatabase on admin";
    source.db("admin").run_cursor_command(command).batch().await.map_err(|e| denied(source, &e, needs))?;
    match source.privileges().await?.and_then(|all| all.lacking(privileges::TO_READ)) {
        Some(lacking) => {
            let message = format!("the user of the source can't read every database: {lacking}");
            Err(Failure::new(ErrorCode::InsufficientPrivileges, message))
        }
        None => Ok(()),
    }
}

/// The user may make, fill and change collections in every database; read from its privileges, nothing is written.
async fn destination_writable(destination: &Cluster) -> Result<(), Failure> {
    let Some(own) = destination.privileges().await? else {
        return match destination.db("admin").run_command(doc! {"listDatabases": 1, "nameOnly": true}).await {
            Ok(_) => Ok(()), // no access control
            Err(e) => Err(denied(destination, &e, "is missing: put user and password into the URI")),
        };
    };
    match own.lacking(privileges::TO_WRITE) {
        Some(lacking) => {
            let message = format!("the user of the destination can't write all that is needed: {lacking}");
            Err(Failure::new(ErrorCode::InsufficientPrivileges, message))
        }
        None => Ok(()),
    }
}

/// Nothing is in the way on the destination, unless it is to be dropped or this migration put it there.
async fn destination_free(settings: &Settings, destination: &Cluster) -> Result<Option<Finding>, Failure> {
    let store = Store::new(destination, settings.migration_id, settings.epoch);
    if let Some(finding) = claims::in_the_way(&store, &settings.filter, &settings.claim.replaces).await? {
        return Ok(Some(finding));
    }
    if settings.drop_destination_data || store.load().await?.is_some() {
        return Ok(None);
    }
    let present = catalog::list(destination, &settings.filter).await?;
    Ok(present.first().map(|first| {
        let count = present.len();
        let evidence =
            format!("the destination already has {count} of the namespaces to be migrated, {} for one", first.ns);
        Finding::error(ErrorCode::DestinationNotEmpty, first.ns.to_string(), evidence)
    }))
}

/// A server holds no two databases whose names differ only in case.
async fn names(entries: &[Entry], destination: &Cluster) -> Result<Vec<Finding>, Failure> {
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

/// The destination's disk holds what the source's does.
async fn space(source: &Cluster, destination: &Cluster, entries: &[Entry]) -> Result<Option<Finding>, Failure> {
    let mut databases: Vec<&str> = entries.iter().map(|e| e.ns.db.as_str()).collect();
    databases.dedup();
    let mut needed = 0;
    for db in databases {
        let stats = source.db(db).run_command(doc! {"dbStats": 1}).await.map_err(|e| source.failure(&e))?;
        needed += ["storageSize", "indexSize"].iter().filter_map(|name| as_i64(stats.get(*name))).sum::<i64>();
    }
    let stats = destination.db("admin").run_command(doc! {"dbStats": 1}).await;
    let Ok(stats) = stats else { return Ok(None) }; // may not be seen
    let (total, used) = (as_i64(stats.get("fsTotalSize")), as_i64(stats.get("fsUsedSize")));
    Ok(total.zip(used).and_then(|(total, used)| too_small(needed, total - used)))
}

fn too_small(needed: i64, free: i64) -> Option<Finding> {
    let megabytes = |bytes: i64| bytes / 1_048_576;
    (needed > free).then(|| {
        let evidence = format!(
            "the source takes {} MiB with its indexes, the destination's disk has {} MiB free",
            megabytes(needed),
            megabytes(free)
        );
        Finding::error(ErrorCode::InsufficientDiskSpace, "destination", evidence)
    })
}

/// How far back the oplog goes, or will once it is full.
async fn oplog(source: &Cluster) -> Result<Option<Finding>, Failure> {
    let ends = async |direction: i32| {
        let command = doc! {"find": "oplog.rs", "sort": {"$natural": direction}, "limit": 1, "projection": {"ts": 1}};
        source.db("local").run_cursor_command(command).await?.try_collect::<Vec<Document>>().await
    };
    let stats = source.db("local").run_command(doc! {"collStats": "oplog.rs"}).await;
    let (Ok(first), Ok(last), Ok(stats)) = (ends(1).await, ends(-1).await, stats) else {
        return Ok(None); // may not be seen; the stream's own error tells when it is lost
    };
    let time = |found: &[Document]| found.first().and_then(|d| d.get_timestamp("ts").ok());
    let (Some(first), Some(last)) = (time(&first), time(&last)) else { return Ok(None) };
    let (size, most) = (as_i64(stats.get("size")).unwrap_or(0), as_i64(stats.get("maxSize")).unwrap_or(0));
    Ok(short_oplog(first, last, size, most))
}

fn short_oplog(first: Timestamp, last: Timestamp, size: i64, most: i64) -> Option<Finding> {
    let seconds = i64::from(last.time.saturating_sub(first.time)).max(1);
    // Until it is full it goes back to its beginning; what matters is what it will hold at this rate.
    let window = (seconds as f64 * (most.max(1) as f64 / size.max(1) as f64).max(1.0)) as i64;
    (window < SHORT_OPLOG_SECONDS).then(|| {
        let evidence = format!(
            "the source's oplog of {} MiB covers about {window} seconds at the rate of its last writes: a longer interruption of \
             the migration host loses the place in it",
            most / 1_048_576
        );
        Finding::warning(ErrorCode::ShortOplog, "source", evidence)
    })
}

/// Leases count on clocks that go alike.
async fn clock(cluster: &Cluster, now: limosa_model::Timestamp) -> Result<Option<Finding>, Failure> {
    let hello = cluster.db("admin").run_command(doc! {"hello": 1}).await.map_err(|e| cluster.failure(&e))?;
    let Ok(theirs) = hello.get_datetime("localTime") else { return Ok(None) };
    let skew = (theirs.timestamp_millis() - now.0) / 1000;
    Ok((skew.abs() > SKEW_SECONDS).then(|| {
        let word = if skew > 0 { "ahead of" } else { "behind" };
        let evidence = format!("the clock of the {} is {} seconds {word} this host's", cluster.side, skew.abs());
        Finding::warning(ErrorCode::ClockSkew, cluster.side.to_string(), evidence)
    }))
}

/// Kinds of collections that can't be carried over.
fn unsupported(entry: &Entry) -> Option<Finding> {
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
fn unknown_options(entry: &Entry, destination: Capabilities) -> Vec<Finding> {
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

/// Before 6.0 no change stream tells of what is written to a time-series collection.
fn time_series(source: &Cluster, entries: &[Entry]) -> Option<Finding> {
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

/// Indexes that the destination's release doesn't take: every cutover would be refused because of them. An expiry that it
/// doesn't take is shortened.
async fn unbuildable_indexes(source: &Cluster, destination: &Cluster, entry: &Entry) -> Result<Vec<Finding>, Failure> {
    let (longest, subject) = (index_spec::longest_expiry(destination.can()), entry.ns.to_string());
    let mut findings = Vec::new();
    for index in index_spec::list(source, &entry.ns).await? {
        if let Some(why) = index_spec::unbuildable(&index, destination.can()) {
            let evidence = format!("{} can't be carried over whole: {why}; drop that index on the source", entry.ns);
            findings.push(Finding::error(ErrorCode::IndexBuildFailed, &subject, evidence));
        }
        let seconds = index.get("expireAfterSeconds");
        let is_never = seconds.and_then(bson::Bson::as_f64).is_some_and(f64::is_nan);
        if longest < i32::MAX && (is_never || as_i64(seconds) > Some(i64::from(longest))) {
            let name = index.get_str("name").unwrap_or_default();
            let evidence = format!(
                "index {name} of {} never expires anything; the destination's release takes no expiry longer than {longest} s, \
                 so documents dated before the 1970s would expire there",
                entry.ns
            );
            findings.push(Finding::warning(ErrorCode::IndexBuildFailed, &subject, evidence));
        }
    }
    Ok(findings)
}

async fn index_findings(source: &Cluster, destination: &Cluster, entry: &Entry) -> Result<Vec<Finding>, Failure> {
    let listed = index_spec::list(source, &entry.ns).await?;
    let name = |index: &Document| index.get_str("name").unwrap_or_default().to_owned();
    let mut findings = Vec::new();
    let mut by_keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for index in &listed {
        let keys = index.get_document("key").map(|keys| keys.to_string()).unwrap_or_default();
        by_keys.entry(keys).or_default().push(name(index));
    }
    for (keys, names) in by_keys.into_iter().filter(|(_, names)| names.len() > 1) {
        let evidence = format!("{} has {} indexes on {keys}: {}", entry.ns, names.len(), names.join(", "));
        findings.push(Finding::warning(ErrorCode::SameIndexKeys, entry.ns.to_string(), evidence));
    }
    let unique: Vec<String> = listed.iter().filter(|i| i.get_bool("unique").unwrap_or(false)).map(name).collect();
    if !unique.is_empty() && !destination.can().make_an_index_unique() {
        let documents = plan::size(source, &entry.ns).await?.documents;
        let evidence = format!(
            "the unique indexes {} of {} are built in the write pause, over about {documents} documents, since the destination \
             is of {}.{}, not of 6.0 or later",
            unique.join(", "),
            entry.ns,
            destination.level.0,
            destination.level.1
        );
        findings.push(Finding::warning(ErrorCode::UniqueBuiltAtCutover, entry.ns.to_string(), evidence));
    }
    Ok(findings)
}

/// What somebody else put into Limosa's own database.
async fn foreign(cluster: &Cluster) -> Result<Option<Finding>, Failure> {
    let all = left_behind::collections(cluster, OWN_DATABASE, doc! {}).await?;
    let foreign: Vec<String> = all
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !COLLECTIONS.contains(&name.as_str()) && !name.starts_with("system."))
        .map(|name| format!("{OWN_DATABASE}.{name}"))
        .collect();
    let Some(first) = foreign.first() else { return Ok(None) };
    let evidence = format!(
        "the {} has collections in Limosa's own database that aren't Limosa's: {}",
        cluster.side,
        foreign.join(", ")
    );
    Ok(Some(Finding::error(ErrorCode::ReservedDatabase, first, evidence)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use limosa_model::{Namespace, Severity};

    fn codes(findings: &[Finding]) -> Vec<(ErrorCode, Severity)> {
        findings.iter().map(|f| (f.code, f.severity)).collect()
    }

    #[test]
    fn versions_are_refused_or_warned_about() {
        let refused = (ErrorCode::UnsupportedVersion, Severity::Error);
        let told = |source, destination| codes(&versions(Capabilities::of(source), Capabilities::of(destination)));
        assert_eq!(told((4, 4, 2), (6, 0, 5)), []);
        assert_eq!(told((4, 2, 9), (6, 0, 5)), [refused]);
        assert_eq!(told((6, 0, 5), (5, 0, 4)), [refused]);
        assert_eq!(told((8, 0, 1), (9, 0, 0)), [(ErrorCode::UnsupportedVersion, Severity::Warning)]);
    }

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

    #[test]
    fn a_disk_that_is_too_small_is_told() {
        assert_eq!(too_small(100, 100), None);
        let told = too_small(300 << 20, 200 << 20).expect("too small");
        assert!(told.is_error() && told.evidence.contains("300 MiB") && told.evidence.contains("200 MiB"), "{told:?}");
    }

    #[test]
    fn an_oplog_is_judged_by_what_it_will_hold() {
        let at = |time| Timestamp { time, increment: 1 };
        // A tenth of it holds ten minutes: it will hold a hundred.
        assert_eq!(short_oplog(at(0), at(600), 10, 100), None);
        assert!(short_oplog(at(0), at(600), 100, 100).is_some());
        assert_eq!(short_oplog(at(0), at(7200), 100, 100), None);
    }

    #[test]
    fn files_of_a_uri_are_found_whatever_their_writing() {
        let uri = Secret::new("mongodb://u:p@h/?tls=true&tlsCAFile=%2Fno%20where%2Fca.pem&w=1");
        let found = files(Side::Source, &uri);
        assert!(found[0].evidence.contains("/no where/ca.pem") && found.len() == 1, "{found:?}");
        assert!(files(Side::Source, &Secret::new("mongodb://u:p@h/?tls=true")).is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clocks_that_go_apart_are_told() {
        let set = limosa_testkit::ReplicaSet::start().await.expect("starts");
        let cluster = Cluster::connect(Side::Source, &Secret::new(set.uri())).await.expect("connects");
        let now = limosa_model::Timestamp::now();
        assert_eq!(clock(&cluster, now).await, Ok(None));
        let told = clock(&cluster, now.plus_seconds(-60)).await.expect("answers").expect("apart");
        assert!(told.code == ErrorCode::ClockSkew && told.evidence.contains("ahead of"), "{told:?}");
    }
}
