//! Whether both clusters can be reached and used: files of a URI, its options, privileges, and what the destination holds.

use crate::{
    Settings,
    destination::{
        checkpoint::{COLLECTIONS, CheckpointStore},
        claims,
    },
    mongo::{catalog, cluster::Cluster, codes, connect, error, privileges, side::Side},
    source::left_behind,
};
use bson::doc;
use limosa_model::{ErrorCode, Failure, Finding, Secret, Uri, filter::OWN_DATABASE};

/// The files that a URI names can be read on this host.
pub(super) fn files(side: Side, uri: &Secret) -> Vec<Finding> {
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
pub(super) fn overridden(side: Side, uri: &Secret) -> Option<Finding> {
    let given = connect::read(side, uri).ok().filter(|given| !given.overridden.is_empty())?;
    let evidence = format!(
        "the {side} URI says {}: Limosa reads from the primary and writes with a majority, within time limits of its own, \
         whatever these options say",
        given.overridden.join(", ")
    );
    Some(Finding::warning(ErrorCode::UriOptionOverridden, side.to_string(), evidence))
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
pub(super) async fn source_readable(source: &Cluster) -> Result<(), Failure> {
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
pub(super) async fn destination_writable(destination: &Cluster) -> Result<(), Failure> {
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
pub(super) async fn destination_free(settings: &Settings, destination: &Cluster) -> Result<Option<Finding>, Failure> {
    let store = CheckpointStore::new(destination, settings.migration_id, settings.epoch);
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

/// What somebody else put into Limosa's own database.
pub(super) async fn foreign(cluster: &Cluster) -> Result<Option<Finding>, Failure> {
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

    #[test]
    fn files_of_a_uri_are_found_whatever_their_writing() {
        let uri = Secret::new("mongodb://u:p@h/?tls=true&tlsCAFile=%2Fno%20where%2Fca.pem&w=1");
        let found = files(Side::Source, &uri);
        assert!(found[0].evidence.contains("/no where/ca.pem") && found.len() == 1, "{found:?}");
        assert!(files(Side::Source, &Secret::new("mongodb://u:p@h/?tls=true")).is_empty());
    }
}
