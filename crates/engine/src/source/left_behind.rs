//! What a source has that is never carried over, named one by one: nobody is to find out later by its absence.

use crate::mongo::{catalog::BUCKETS, cluster::Cluster};
use bson::{Document, doc};
use limosa_model::{
    ErrorCode, Failure, Finding, NamespaceFilter,
    filter::{is_internal, tool_of},
};

/// `system.` collections of a database that hold nothing of an application's: the definitions of views, which are carried
/// over as views, and what the server writes on its own.
const OF_THE_SERVER: &[&str] = &["system.views", "system.profile", "system.indexes", "system.namespaces"];

/// One warning for each thing within the chosen namespaces.
pub(crate) async fn findings(source: &Cluster, filter: &NamespaceFilter) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for db in source.all_databases().await? {
        if let Some(tool) = tool_of(&db) {
            if filter.chooses(&db, "") {
                findings.push(told(&db, &format!("the database {db} belongs to {tool}")));
            }
        } else if db == "admin" {
            for (name, kind) in collections(source, &db, doc! {}).await? {
                if !name.starts_with("system.") && filter.chooses(&db, &name) {
                    let what = format!("the {kind} {db}.{name} is in a database of the server");
                    findings.push(told(&format!("{db}.{name}"), &what));
                }
            }
        } else if !is_internal(&db) {
            for (name, _) in collections(source, &db, doc! {"name": {"$gte": "system.", "$lt": "system/"}}).await? {
                let known = name.starts_with(BUCKETS) || OF_THE_SERVER.contains(&name.as_str());
                if !known && filter.chooses(&db, &name) {
                    let what =
                        if name == "system.js" { "stored functions" } else { "a collection of the server's kind" };
                    findings.push(told(&format!("{db}.{name}"), &format!("{db}.{name} holds {what}")));
                }
            }
        }
    }
    Ok(findings)
}

fn told(subject: &str, what: &str) -> Finding {
    Finding::warning(ErrorCode::NotCarriedOver, subject, format!("{what} and is not carried over"))
}

/// Name and kind, in words.
pub(crate) async fn collections(
    cluster: &Cluster,
    db: &str,
    filter: Document,
) -> Result<Vec<(String, &'static str)>, Failure> {
    let command = doc! {"listCollections": 1, "filter": filter, "nameOnly": true, "cursor": {}};
    let read = async { cluster.db(db).run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
    let found = read.await.map_err(|e| cluster.failure(&e))?;
    let named = found.into_iter().filter_map(|entry| {
        let kind = if entry.get_str("type").is_ok_and(|kind| kind == "view") { "view" } else { "collection" };
        Some((entry.get_str("name").ok()?.to_owned(), kind))
    });
    Ok(named.collect())
}
