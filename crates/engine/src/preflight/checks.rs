//! The preflight: every reason not to start, and everything to know before. Errors stand in the way, warnings don't.

use crate::{
    Settings,
    destination::time_series,
    mongo::{
        catalog::{self, Kind},
        cluster::Cluster,
        side::Side,
    },
    preflight::{access, capacity, collections, indexes, ownership, versions},
    source::left_behind,
};
use limosa_model::{Failure, Finding};

/// All findings; the migration can start when none is an error.
pub(crate) async fn preflight(settings: &Settings) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        [(Side::Source, &settings.source_uri), (Side::Destination, &settings.destination_uri)]
            .into_iter()
            .flat_map(|(side, uri)| access::files(side, uri))
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
        findings.extend(access::overridden(side, uri));
    }
    findings.extend(versions::versions(source.can(), destination.can()));
    findings.extend(access::source_readable(&source).await.err().map(about(Side::Source)));
    findings.extend(access::destination_writable(&destination).await.err().map(about(Side::Destination)));
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
    findings.extend(versions::compatibility(source, destination));
    findings.extend(ownership::allowed(settings, destination).err().map(Finding::from));
    findings.extend(access::destination_free(settings, destination).await?);
    for cluster in [source, destination] {
        findings.extend(access::foreign(cluster).await?);
    }
    findings.extend(left_behind::findings(source, &settings.filter).await?);
    findings.extend(capacity::oplog(source).await?);
    for cluster in [source, destination] {
        findings.extend(capacity::clock(cluster, now).await?);
    }
    let entries = catalog::list(source, &settings.filter).await?;
    findings.extend(collections::names(&entries, destination).await?);
    findings.extend(capacity::space(source, destination, &entries).await?);
    findings.extend(entries.iter().filter_map(collections::unsupported));
    findings.extend(entries.iter().flat_map(|entry| collections::unknown_options(entry, destination.can())));
    findings.extend(collections::time_series(source, &entries));
    findings.extend(entries.iter().filter_map(|e| time_series::refusal(e, source.can(), destination.can())));
    for entry in entries.iter().filter(|e| e.kind != Kind::View && !e.ns.coll.starts_with(catalog::BUCKETS)) {
        findings.extend(indexes::index_findings(source, destination, entry).await?);
        findings.extend(indexes::unbuildable_indexes(source, destination, entry).await?);
    }
    Ok(findings)
}
