//! A connection to the source or the destination, and what that cluster is.

use crate::{distance, error, privileges::Privileges, raw};
use bson::{Document, Timestamp, doc};
use limosa_model::{DeploymentId, ErrorCode, Failure, Secret, protocol};
use mongodb::{Client, Database, options::ClientOptions};
use std::{fmt, time::Duration};

/// How long to look for a server before the first contact counts as failed.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// A server that has no such command.
const COMMAND_NOT_FOUND: i32 = 59;

/// Which end of the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

impl Side {
    pub fn unreachable(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceUnreachable,
            Self::Destination => ErrorCode::DestinationUnreachable,
        }
    }

    pub fn authentication_failed(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceAuthenticationFailed,
            Self::Destination => ErrorCode::DestinationAuthenticationFailed,
        }
    }

    fn standalone(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceStandalone,
            Self::Destination => ErrorCode::DestinationStandalone,
        }
    }
}

/// A replica set that answered.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub side: Side,
    pub client: Client,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// The replica set's own id: equal for two URIs that lead to one cluster.
    pub set_id: String,
    /// In another region, by the time that an answer takes.
    pub is_far: bool,
    /// Who holds the migration; goes with every definition that is given to it.
    pub holder: Option<Document>,
}

impl Cluster {
    /// Connects and refuses what can't take part in a migration.
    pub async fn connect(side: Side, uri: &Secret) -> Result<Self, Failure> {
        let malformed =
            |e: &dyn fmt::Display| Failure::new(ErrorCode::MalformedUri, format!("the {side} URI can't be read: {e}"));
        if !uri.expose().starts_with("mongodb://") && !uri.expose().starts_with("mongodb+srv://") {
            return Err(malformed(&"it must begin with mongodb:// or mongodb+srv://"));
        }
        let mut options = ClientOptions::parse(uri.expose()).await.map_err(|e| malformed(&e))?;
        options.app_name = Some("limosa".to_owned());
        options.retry_writes = Some(false);
        options.server_selection_timeout.get_or_insert(FIRST_CONTACT);
        options.connect_timeout.get_or_insert(FIRST_CONTACT);
        let client = Client::with_options(options.clone()).map_err(|e| malformed(&e))?;
        let admin = client.database("admin");
        let hello = admin.run_command(doc! {"hello": 1}).await.map_err(|e| error::failure(side, &e))?;
        if let Some(what) = part_of_a_sharded_cluster(&hello) {
            return Err(Failure::new(ErrorCode::ShardedUnsupported, format!("the {side} is {what}")));
        }
        let Ok(set_name) = hello.get_str("setName") else {
            return Err(Failure::new(
                side.standalone(),
                format!("the {side} is a standalone server, not a replica set"),
            ));
        };
        let denied = |command: &str| {
            let message =
                format!("the user of the {side} may not run {command}; grant it the role clusterMonitor on admin");
            Failure::new(ErrorCode::InsufficientPrivileges, message)
        };
        match admin.run_command(doc! {"shardingState": 1}).await {
            Ok(state) if state.get_bool("enabled").unwrap_or(false) => {
                let shard = state.get_str("shardName").unwrap_or_default();
                let message = format!("the {side} is the shard {shard} of a sharded cluster, a part of its data");
                return Err(Failure::new(ErrorCode::ShardedUnsupported, message));
            }
            // One that was started for a shard and never added holds all of its data.
            Ok(_) => {}
            Err(e) if error::code(&e) == Some(13) => return Err(denied("shardingState")),
            Err(e) if error::code(&e) == Some(COMMAND_NOT_FOUND) => {}
            Err(e) => return Err(error::failure(side, &e)),
        }
        let info = admin.run_command(doc! {"buildInfo": 1}).await.map_err(|e| error::failure(side, &e))?;
        let parts: Vec<u32> =
            info.get_str("version").unwrap_or("").split(['.', '-']).filter_map(|p| p.parse().ok()).collect();
        let version = (
            parts.first().copied().unwrap_or(0),
            parts.get(1).copied().unwrap_or(0),
            parts.get(2).copied().unwrap_or(0),
        );
        let set_id = match admin.run_command(doc! {"replSetGetConfig": 1}).await {
            Ok(reply) => reply
                .get_document("config")
                .and_then(|c| c.get_document("settings"))
                .and_then(|s| s.get_object_id("replicaSetId"))
                .map(|id| id.to_hex())
                .unwrap_or_else(|_| set_name.to_owned()),
            Err(e) if error::code(&e) == Some(13) => return Err(denied("replSetGetConfig")),
            Err(e) => return Err(error::failure(side, &e)),
        };
        let is_far = distance::is_far(side, &client).await;
        let client = match is_far && distance::compress(&mut options) {
            true => Client::with_options(options).map_err(|e| malformed(&e))?,
            false => client,
        };
        Ok(Self { side, client, version, set_id, is_far, holder: None })
    }

    /// The same, for the holder of a migration's lease; its definitions carry this, so that a successor can end them.
    pub fn held_by(mut self, migration: impl fmt::Display, epoch: i64) -> Self {
        self.holder = Some(doc! {"limosa": migration.to_string(), "epoch": epoch});
        self
    }

    pub fn db(&self, name: &str) -> Database {
        self.client.database(name)
    }

    /// A failure that names this cluster.
    pub fn failure(&self, error: &mongodb::error::Error) -> Failure {
        error::failure(self.side, error)
    }

    /// The newest write and the newest majority-committed one.
    pub async fn optimes(&self) -> Result<(Timestamp, Timestamp), Failure> {
        let hello = self.db("admin").run_command(doc! {"hello": 1}).await.map_err(|e| self.failure(&e))?;
        let read = |name: &str| {
            hello.get_document("lastWrite").and_then(|w| w.get_document(name)).and_then(|o| o.get_timestamp("ts"))
        };
        match (read("opTime"), read("majorityOpTime")) {
            (Ok(newest), Ok(majority)) => Ok((newest, majority)),
            _ => Err(Failure::new(ErrorCode::ServerError, format!("{}: hello has no lastWrite", self.side))),
        }
    }

    /// What the connection's user may do; `None` where there is no access control.
    pub async fn privileges(&self) -> Result<Option<Privileges>, Failure> {
        let command = doc! {"connectionStatus": 1, "showPrivileges": true};
        let status = self.db("admin").run_command(command).await.map_err(|e| self.failure(&e))?;
        let info = status.get_document("authInfo").cloned().unwrap_or_default();
        if info.get_array("authenticatedUsers").is_ok_and(Vec::is_empty) {
            return Ok(None);
        }
        let all = info.get_array("authenticatedUserPrivileges").cloned().unwrap_or_default();
        Ok(Some(Privileges(all.into_iter().filter_map(|p| p.as_document().cloned()).collect())))
    }

    /// Names of the databases with user data.
    pub async fn databases(&self) -> Result<Vec<String>, Failure> {
        let reply = self
            .db("admin")
            .run_command(doc! {"listDatabases": 1, "nameOnly": true, "authorizedDatabases": true})
            .await
            .map_err(|e| self.failure(&e))?;
        let databases = reply.get_array("databases").map(Vec::as_slice).unwrap_or_default();
        Ok(databases
            .iter()
            .filter_map(|d| d.as_document()?.get_str("name").ok().map(str::to_owned))
            .filter(|name| !limosa_model::filter::is_internal(name))
            .collect())
    }
}

/// What `hello` tells of a server that isn't a replica set of its own.
fn part_of_a_sharded_cluster(hello: &Document) -> Option<&'static str> {
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Some("a sharded cluster");
    }
    hello.contains_key("configsvr").then_some("the config servers of a sharded cluster")
}

/// See [`crate::describe`].
pub(crate) async fn describe(name: &str, uri: &Secret) -> Result<protocol::Deployment, Failure> {
    let cluster = Cluster::connect(Side::Source, uri).await?;
    let run = |db: &'static str, command: Document| {
        let cluster = &cluster;
        async move { cluster.db(db).run_command(command).await.map_err(|e| cluster.failure(&e)) }
    };
    let listed = run("admin", doc! {"listDatabases": 1}).await?;
    let fcv = run("admin", doc! {"getParameter": 1, "featureCompatibilityVersion": 1}).await.ok();
    let oplog = run("local", doc! {"collStats": "oplog.rs"}).await.ok();
    let options = ClientOptions::parse(uri.expose()).await.map_err(|e| error::failure(Side::Source, &e))?;
    let (major, minor, patch) = cluster.version;
    let size = |d: &Document| {
        let internal = d.get_str("name").is_ok_and(limosa_model::filter::is_internal);
        if internal { 0 } else { raw::as_i64(d.get("sizeOnDisk")).unwrap_or(0) }
    };
    Ok(protocol::Deployment {
        name: name.to_owned(),
        cluster_id: cluster.set_id.parse().unwrap_or_else(|_| DeploymentId::generate()),
        db_size_bytes: listed
            .get_array("databases")
            .map(|all| all.iter().filter_map(|d| d.as_document()).map(size).sum())
            .unwrap_or(0),
        feature_compatibility_version: fcv
            .as_ref()
            .and_then(|f| f.get_document("featureCompatibilityVersion").ok()?.get_str("version").ok())
            .map_or_else(|| format!("{major}.{minor}"), str::to_owned),
        mongo_db_version: format!("{major}.{minor}.{patch}"),
        oplog_size_mb: oplog.and_then(|o| raw::as_i64(o.get("maxSize"))).map_or(0, |bytes| (bytes / 1_048_576) as i32),
        sharded: false,
        shards_size: 1,
        tls_enabled: matches!(options.tls, Some(mongodb::options::Tls::Enabled(_))),
        managed: options.credential.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mongos_is_told_from_a_replica_set() {
        let mongos = doc! {"isWritablePrimary": true, "msg": "isdbgrid", "maxWireVersion": 17};
        assert_eq!(part_of_a_sharded_cluster(&mongos), Some("a sharded cluster"));
        assert_eq!(part_of_a_sharded_cluster(&doc! {"setName": "rs", "isWritablePrimary": true}), None);
    }
}
