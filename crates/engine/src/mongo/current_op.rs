//! What a server is doing for its other clients, by `$currentOp`.

use crate::mongo::{cluster::Cluster, codes, error};
use bson::{Document, doc};
use limosa_model::Failure;
use std::collections::BTreeSet;

/// How many operations are named.
const NAMED: usize = 5;

/// What was found, or why it can't be known.
pub(crate) type Seen<T> = Result<T, String>;

/// Operations and open transactions of others that fit `wanted`. `idle`: connections that do nothing too.
pub(crate) async fn operations(
    cluster: &Cluster,
    wanted: Document,
    idle: bool,
) -> Result<Seen<Vec<Document>>, Failure> {
    let look = doc! {"$currentOp": {"allUsers": true, "idleSessions": true, "idleConnections": idle}};
    let others = doc! {"$match": {"appName": {"$ne": "limosa"}}};
    let pipeline = vec![look, others, doc! {"$match": wanted}];
    let command = doc! {"aggregate": 1, "pipeline": pipeline, "cursor": {}, "maxTimeMS": 5_000};
    let read = async {
        let cursor = cluster.db("admin").run_cursor_command(command).await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    match read.await {
        Ok(found) => Ok(Ok(found)),
        Err(e) if error::code(&e) == Some(codes::UNAUTHORIZED) => {
            Ok(Err(format!("the user of the {} may not see it (privilege inprog, role clusterMonitor)", cluster.side)))
        }
        Err(e) if error::code(&e).is_some() => Ok(Err(format!("$currentOp answers: {}", error::words(&e)))),
        Err(e) => Err(cluster.failure(&e)),
    }
}

/// Whose operation it is: `shop at 10.0.0.7:51234`.
pub(crate) fn client_of(operation: &Document) -> String {
    let driver = || {
        let driver = operation.get_document("clientMetadata").ok()?.get_document("driver").ok()?;
        Some(format!("a client without appName (driver {})", driver.get_str("name").ok()?))
    };
    let name = operation.get_str("appName").ok().filter(|name| !name.is_empty()).map(str::to_owned);
    let name = name.or_else(driver).unwrap_or_else(|| "a client without appName".to_owned());
    let address =
        operation.get_str("client").or_else(|_| operation.get_str("client_s")).unwrap_or("an unknown address");
    format!("{name} at {address}")
}

/// The first few, and how many more there are.
pub(crate) fn listed(all: &BTreeSet<String>) -> String {
    let named: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
    let more = all.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// Transactions that have been open for at least `millis`, in words.
pub(crate) async fn open_transactions(cluster: &Cluster, millis: i64) -> Result<Seen<BTreeSet<String>>, Failure> {
    let wanted = doc! {"transaction.timeOpenMicros": {"$gte": millis * 1_000}};
    let found = operations(cluster, wanted, false).await?;
    Ok(found.map(|found| found.iter().map(transaction).collect()))
}

fn transaction(operation: &Document) -> String {
    let micros = operation
        .get_document("transaction")
        .ok()
        .and_then(|t| crate::mongo::raw_bson::as_i64(t.get("timeOpenMicros")));
    let seconds = micros.unwrap_or(0) / 1_000_000;
    format!("a transaction of {}, open for {seconds} s", client_of(operation))
}

/// Index builds in progress, in words.
pub(crate) async fn index_builds(cluster: &Cluster) -> Result<Seen<BTreeSet<String>>, Failure> {
    let wanted = doc! {"$or": [{"msg": {"$regex": "^Index Build"}}, {"command.createIndexes": {"$exists": true}}]};
    let found = operations(cluster, wanted, false).await?;
    let words = |operation: &Document| {
        let command = operation.get_document("command").cloned().unwrap_or_default();
        let ns = match (operation.get_str("ns"), command.get_str("$db"), command.get_str("createIndexes")) {
            (_, Ok(db), Ok(coll)) => format!("{db}.{coll}"),
            (Ok(ns), ..) => ns.to_owned(),
            _ => "a collection".to_owned(),
        };
        format!("an index build on {ns}")
    };
    Ok(found.map(|found| found.iter().map(words).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_by_its_application_or_its_driver() {
        let named = doc! {"appName": "shop", "client": "10.0.0.7:51234"};
        assert_eq!(client_of(&named), "shop at 10.0.0.7:51234");
        let driver = doc! {"client": "10.0.0.7:1", "clientMetadata": {"driver": {"name": "nodejs"}}};
        assert_eq!(client_of(&driver), "a client without appName (driver nodejs) at 10.0.0.7:1");
        let all: BTreeSet<String> = (0..7).map(|n| format!("c{n}")).collect();
        assert_eq!(listed(&all), "c0, c1, c2, c3, c4 and 2 more");
    }
}
