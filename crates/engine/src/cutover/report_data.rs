//! What a migration's report is made of and only its engine knows.

use crate::{
    Settings,
    cutover::{reverse, steps::CutoverOutcome},
    mongo::index_spec,
    replication::replicator::Replicator,
    source::left_behind,
    tuning::CATALOG_CONCURRENCY,
};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{
    Failure,
    report::{CutoverStep, NamespaceReport, Record, RepairedDocument},
    verification::NamespaceVerification,
};
use std::collections::BTreeMap;

/// Of a migration that was just cut over.
pub(crate) async fn of(
    settings: &Settings,
    replicator: &Replicator,
    done: CutoverOutcome,
    reversible: bool,
) -> Result<Record, Failure> {
    let (source, destination) = (replicator.source(), replicator.destination());
    let version = |v: (u32, u32, u32)| format!("{}.{}.{}", v.0, v.1, v.2);
    let (found, repaired) = (replicator.verifier().found()?, replicator.verifier().repaired_first()?);
    let mut namespaces = Vec::with_capacity(found.len());
    for (ns, found) in found {
        let counted = found.map(|found| found.counted).unwrap_or_default();
        let changed_since = found.is_none_or(|found| found.changed_since);
        let verification = NamespaceVerification {
            namespace: ns.to_string(),
            documents_compared: counted.compared,
            bytes_compared: counted.bytes,
            digest: (!changed_since).then(|| format!("{:032x}", counted.digest)),
            ..NamespaceVerification::default()
        };
        namespaces.push(async move {
            let index_count = index_spec::list(destination, &ns).await?.len() as u64;
            Ok::<_, Failure>(NamespaceReport { verification, changed_since, index_count })
        });
    }
    let namespaces = futures::stream::iter(namespaces).buffered(CATALOG_CONCURRENCY).try_collect().await?;
    Ok(Record {
        source_version: version(source.version),
        destination_version: version(destination.version),
        limosa_version: env!("CARGO_PKG_VERSION").to_owned(),
        configuration: configuration(settings),
        namespaces,
        verification_passes: replicator.verifier().passes()?,
        repaired: repaired
            .into_iter()
            .filter_map(|one| {
                let difference = bson::deserialize_from_document(one.difference).ok()?;
                Some(RepairedDocument { namespace: one.ns, difference })
            })
            .collect(),
        turning_point: match reversible {
            true => Some(reverse::turning_point(destination).await?),
            false => None,
        },
        brought_over: done.brought_over,
        left_behind: left_behind::findings(source, &settings.filter).await?.into_iter().map(|f| f.evidence).collect(),
        reread: replicator.reread(),
        cutover_steps: done
            .steps
            .into_iter()
            .map(|(step, took)| CutoverStep { step: step.to_string(), millis: took.as_millis() as i64 })
            .collect(),
    })
}

/// No URI is among it.
fn configuration(settings: &Settings) -> BTreeMap<String, String> {
    let list = |patterns: &[limosa_model::filter::NamespacePattern]| {
        let all: Vec<String> = patterns.iter().cloned().map(String::from).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let tuning = &settings.tuning;
    [
        ("included namespaces", list(&settings.filter.include).replace("none", "all")),
        ("excluded namespaces", list(&settings.filter.exclude)),
        ("drop destination data", settings.drop_destination_data.to_string()),
        ("copy workers", tuning.copy_workers.to_string()),
        ("spool limit in bytes", tuning.spool_disk_bytes.to_string()),
        ("patience in seconds", tuning.patience.as_secs().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
