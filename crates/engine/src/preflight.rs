//! Every reason not to start, before anything is written.

use crate::{
    Settings, catalog,
    checkpoint::Store,
    cluster::{Cluster, Side},
    error,
};
use bson::doc;
use limosa_model::{ErrorCode, Failure};

/// The oldest version that a change stream of this engine can be opened on.
const OLDEST: (u32, u32, u32) = (4, 4, 0);

/// All findings; empty when the migration can start.
pub(crate) async fn preflight(settings: &Settings) -> Vec<Failure> {
    let (source, destination) = tokio::join!(
        Cluster::connect(Side::Source, &settings.source_uri),
        Cluster::connect(Side::Destination, &settings.destination_uri)
    );
    let (source, destination) = match (source, destination) {
        (Ok(source), Ok(destination)) => (source, destination),
        (a, b) => return a.err().into_iter().chain(b.err()).collect(),
    };
    let mut findings: Vec<Failure> = same_cluster(&source, &destination).into_iter().collect();
    if findings.is_empty() {
        findings.extend(versions(&source, &destination));
        findings.extend(source_readable(&source).await.err());
        findings.extend(destination_writable(&destination).await.err());
        findings.extend(destination_free(settings, &destination).await.err());
    }
    findings
}

/// Both must not lead to one cluster.
pub(crate) fn same_cluster(source: &Cluster, destination: &Cluster) -> Option<Failure> {
    (source.set_id == destination.set_id)
        .then(|| Failure::new(ErrorCode::SameCluster, "source and destination are the same cluster"))
}

fn versions(source: &Cluster, destination: &Cluster) -> Vec<Failure> {
    let show = |v: (u32, u32, u32)| format!("{}.{}.{}", v.0, v.1, v.2);
    let mut findings = Vec::new();
    for cluster in [source, destination] {
        if cluster.version < OLDEST {
            let message =
                format!("the {} is MongoDB {}; the oldest supported is 4.4", cluster.side, show(cluster.version));
            findings.push(Failure::new(ErrorCode::UnsupportedVersion, message));
        }
    }
    let release = |v: (u32, u32, u32)| (v.0, v.1);
    if release(destination.version) < release(source.version) {
        let message = format!(
            "the destination ({}) is older than the source ({})",
            show(destination.version),
            show(source.version)
        );
        findings.push(Failure::new(ErrorCode::UnsupportedVersion, message));
    }
    findings
}

fn denied(cluster: &Cluster, e: &mongodb::error::Error, needs: &str) -> Failure {
    match error::code(e) {
        Some(13) => {
            Failure::new(ErrorCode::InsufficientPrivileges, format!("the user of the {} {needs}", cluster.side))
        }
        _ => cluster.failure(e),
    }
}

/// The whole cluster's change stream can be opened.
async fn source_readable(source: &Cluster) -> Result<(), Failure> {
    let command = doc! {"aggregate": 1, "pipeline": [{"$changeStream": {"allChangesForCluster": true}}], "cursor": {}};
    let needs = "can't read the change stream of the cluster; grant it the role readAnyDatabase on admin";
    source.db("admin").run_cursor_command(command).batch().await.map(drop).map_err(|e| denied(source, &e, needs))
}

/// The user may create and fill collections in every database; read from its privileges, nothing is written.
async fn destination_writable(destination: &Cluster) -> Result<(), Failure> {
    let status = destination.db("admin").run_command(doc! {"connectionStatus": 1, "showPrivileges": true}).await;
    let status = status.map_err(|e| destination.failure(&e))?;
    let info = status.get_document("authInfo").cloned().unwrap_or_default();
    if info.get_array("authenticatedUsers").is_ok_and(Vec::is_empty) {
        return match destination.db("admin").run_command(doc! {"listDatabases": 1, "nameOnly": true}).await {
            Ok(_) => Ok(()), // no access control
            Err(e) => Err(denied(destination, &e, "is missing: put user and password into the URI")),
        };
    }
    let privileges = info.get_array("authenticatedUserPrivileges").cloned().unwrap_or_default();
    let may_write = privileges.iter().filter_map(|p| p.as_document()).any(|privilege| {
        let everywhere = privilege.get_document("resource").is_ok_and(|r| {
            r.get_bool("anyResource").unwrap_or(false)
                || ["db", "collection"].iter().all(|part| r.get_str(part).is_ok_and(str::is_empty))
        });
        let actions = privilege.get_array("actions").map(Vec::as_slice).unwrap_or_default();
        everywhere
            && ["insert", "update", "remove", "createCollection"]
                .iter()
                .all(|a| actions.iter().any(|own| own.as_str() == Some(a)))
    });
    if may_write {
        return Ok(());
    }
    let message = "the user of the destination can't write to every database; grant it the roles readWriteAnyDatabase, \
                   dbAdminAnyDatabase and clusterMonitor on admin";
    Err(Failure::new(ErrorCode::InsufficientPrivileges, message))
}

/// Nothing is in the way on the destination, unless it is to be dropped or this migration put it there.
async fn destination_free(settings: &Settings, destination: &Cluster) -> Result<(), Failure> {
    let store = Store::new(destination, settings.migration_id, settings.epoch);
    if settings.drop_destination_data || store.load().await?.is_some() {
        return Ok(());
    }
    let present = catalog::list(destination, &settings.filter).await?;
    match present.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            ErrorCode::DestinationNotEmpty,
            format!(
                "the destination already has {} of the namespaces to be migrated, {} for one",
                present.len(),
                first.ns
            ),
        )),
    }
}
