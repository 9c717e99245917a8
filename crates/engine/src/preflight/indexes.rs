//! Indexes that the destination can't have as they are.

use crate::{
    copy::plan,
    mongo::{catalog::Entry, cluster::Cluster, index_spec, raw_bson::as_i64},
};
use bson::Document;
use limosa_model::{ErrorCode, Failure, Finding};
use std::collections::BTreeMap;

/// Indexes that the destination's release doesn't take: every cutover would be refused because of them. An expiry that it
/// doesn't take is shortened.
pub(super) async fn unbuildable_indexes(
    source: &Cluster,
    destination: &Cluster,
    entry: &Entry,
) -> Result<Vec<Finding>, Failure> {
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

pub(super) async fn index_findings(
    source: &Cluster,
    destination: &Cluster,
    entry: &Entry,
) -> Result<Vec<Finding>, Failure> {
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
