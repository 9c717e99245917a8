//! A connection to the source or the destination, and what that cluster is.

use crate::{
    mongo::{
        calls::{self, Calls, Db, Release},
        capabilities::{Capabilities, Version},
        codes, connect, diagnose, error, latency,
        privileges::Privileges,
        raw_bson,
        side::Side,
    },
    retry::Backoff,
    throttle::Reads,
};
use bson::{Document, Timestamp, doc};
use limosa_model::{ClusterIdentity, DeploymentId, ErrorCode, Failure, Secret, protocol};
use mongodb::{
    Client, ClientSession,
    error::Error,
    options::{ClientOptions, Tls},
};
use std::fmt;

/// How long a primary has to prove that it is one.
const PROOF_MILLIS: i32 = 10_000;

/// A replica set that answered.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub side: Side,
    client: Client,
    calls: Calls,
    options: ClientOptions,
    /// Major, minor, patch of the server's program.
    pub version: Version,
    /// Major and minor of what it can do: the feature compatibility version, which is lower than the program's while an
    /// upgrade isn't finished. It stays what it was when it was connected to: when it changes, the run begins again.
    pub level: Release,
    /// The replica set's own id: equal for two URIs that lead to one cluster.
    pub set_id: String,
    /// The replica set's name.
    pub set_name: String,
    /// In another region, by the time that an answer takes.
    pub is_far: bool,
    /// Who holds the migration; goes with every definition that is given to it.
    pub holder: Option<Document>,
    /// How documents are read in bulk.
    pub reads: Reads,
}

impl Cluster {
    /// Connects and refuses what can't take part in a migration: also a member that isn't the primary, whose time isn't the
    /// set's. A direct connection to the primary stays one, for members whose names can't be resolved here.
    pub async fn connect(side: Side, uri: &Secret) -> Result<Self, Failure> {
        let given = connect::read(side, uri)?;
        let mut options = connect::options(side, &given).await?;
        let unusable = |e: Error| error::failure(side, &e);
        let mut client = Client::with_options(options.clone()).map_err(unusable)?;
        let first = Calls::new(side, client.clone(), calls::UNKNOWN);
        let admin = Db::new(&first, "admin");
        let hello = match admin.run_command(doc! {"hello": 1}).await {
            Ok(hello) => hello,
            Err(error) => return Err(diagnose::why(side, &options, &error).await),
        };
        let set_name = replica_set(side, &options, &hello)?;
        if let Some(failure) = diagnose::foreign_hosts(side, &options, &hello).await {
            return Err(failure);
        }
        refuse_a_shard(side, &admin).await?;
        let version = version(side, &admin).await?;
        let binary = (version.0, version.1);
        let level = calls::compatibility(&client).await.map_err(unusable)?.map_or(binary, |level| level.min(binary));
        let set_id = set_id(side, &admin, set_name).await?;
        let is_far = latency::is_far(side, &admin).await;
        if is_far && latency::compress(&mut options) {
            client = Client::with_options(options.clone()).map_err(unusable)?;
        }
        if !given.overridden.is_empty() {
            tracing::info!(%side, options = given.overridden.join(", "), "set by Limosa, whatever the URI says");
        }
        let set_name = set_name.to_owned();
        let calls = Calls::new(side, client.clone(), level);
        let reads = Reads::default();
        Ok(Self { side, client, calls, options, version, level, set_id, set_name, is_far, holder: None, reads })
    }

    /// What it is, whatever URI leads to it.
    pub fn identity(&self) -> ClusterIdentity {
        ClusterIdentity { set_id: self.set_id.clone(), set_name: self.set_name.clone() }
    }

    /// The same, for the holder of a migration's lease; its definitions carry this, so that a successor can end them.
    pub fn held_by(mut self, migration: impl fmt::Display, epoch: i64) -> Self {
        self.holder = Some(doc! {"limosa": migration.to_string(), "epoch": epoch});
        self
    }

    /// The same, whose documents are read so.
    pub fn read_as(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// What it can do: questions about its release.
    pub fn can(&self) -> Capabilities {
        Capabilities { version: self.version, level: self.level }
    }

    pub fn db(&self, name: &str) -> Db {
        Db::new(&self.calls, name)
    }

    /// What is under way.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    pub async fn start_session(&self) -> Result<ClientSession, Error> {
        self.client.start_session().await
    }

    /// A failure that names this cluster.
    pub fn failure(&self, error: &mongodb::error::Error) -> Failure {
        error::failure(self.side, error)
    }

    /// The newest write and the newest majority-committed one, by the primary: no other member knows.
    pub async fn optimes(&self) -> Result<(Timestamp, Timestamp), Failure> {
        let mut pause = Backoff::default();
        let hello = loop {
            let hello = self.db("admin").run_command(doc! {"hello": 1}).await.map_err(|e| self.failure(&e))?;
            if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                break hello;
            }
            // An election; a direct connection doesn't follow it.
            if self.options.direct_connection == Some(true) || !pause.wait().await {
                return Err(diagnose::not_primary(self.side, &self.options, &hello));
            }
        };
        let read = |name: &str| {
            hello.get_document("lastWrite").and_then(|w| w.get_document(name)).and_then(|o| o.get_timestamp("ts"))
        };
        match (read("opTime"), read("majorityOpTime")) {
            (Ok(newest), Ok(majority)) => Ok((newest, majority)),
            _ => Err(Failure::new(ErrorCode::ServerError, format!("{}: hello has no lastWrite", self.side))),
        }
    }

    /// Proves that the server that answers is the set's primary now, not one that the majority has left behind: a
    /// linearizable read waits for a majority.
    pub async fn prove_primary(&self) -> Result<(), Failure> {
        let command = doc! {
            "find": "limosa.primary", "limit": 1, "singleBatch": true, "readConcern": {"level": "linearizable"},
            "maxTimeMS": PROOF_MILLIS,
        };
        let unproven = |why: &str| {
            let message = format!(
                "{}: the primary can't prove that it still is the replica set's primary: {why}; look at the state of its members",
                self.side
            );
            Failure::new(self.side.not_primary(), message)
        };
        match self.db("limosa").run_command(command).await {
            Ok(_) => Ok(()),
            Err(e) if error::code(&e).is_some_and(codes::is_time_limit) => {
                Err(unproven("no majority of the members confirmed a read within ten seconds"))
            }
            Err(e) if error::is_not_primary(&e) => Err(unproven("it stepped down")),
            Err(e) => Err(self.failure(&e)),
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
        let mut all = self.all_databases().await?;
        all.retain(|name| !limosa_model::filter::is_internal(name));
        Ok(all)
    }

    /// Names of all databases that the user may see.
    pub async fn all_databases(&self) -> Result<Vec<String>, Failure> {
        let reply = self
            .db("admin")
            .run_command(doc! {"listDatabases": 1, "nameOnly": true, "authorizedDatabases": true})
            .await
            .map_err(|e| self.failure(&e))?;
        let databases = reply.get_array("databases").map(Vec::as_slice).unwrap_or_default();
        Ok(databases.iter().filter_map(|d| d.as_document()?.get_str("name").ok().map(str::to_owned)).collect())
    }
}

/// The name of the replica set that the server is the primary of.
fn replica_set<'a>(side: Side, options: &ClientOptions, hello: &'a Document) -> Result<&'a str, Failure> {
    if let Some(what) = part_of_a_sharded_cluster(hello) {
        return Err(Failure::new(ErrorCode::ShardedUnsupported, format!("the {side} is {what}")));
    }
    let Ok(set_name) = hello.get_str("setName") else {
        let message = format!("the {side} is a standalone server, not a replica set");
        return Err(Failure::new(side.standalone(), message));
    };
    match hello.get_bool("isWritablePrimary") {
        Ok(true) => Ok(set_name),
        _ => Err(diagnose::not_primary(side, options, hello)),
    }
}

fn denied(side: Side, command: &str) -> Failure {
    let message = format!("the user of the {side} may not run {command}; grant it the role clusterMonitor on admin");
    Failure::new(ErrorCode::InsufficientPrivileges, message)
}

async fn refuse_a_shard(side: Side, admin: &Db) -> Result<(), Failure> {
    match admin.run_command(doc! {"shardingState": 1}).await {
        Ok(state) if state.get_bool("enabled").unwrap_or(false) => {
            let shard = state.get_str("shardName").unwrap_or_default();
            let message = format!("the {side} is the shard {shard} of a sharded cluster, a part of its data");
            Err(Failure::new(ErrorCode::ShardedUnsupported, message))
        }
        // One that was started for a shard and never added holds all of its data.
        Ok(_) => Ok(()),
        Err(e) if error::code(&e) == Some(codes::UNAUTHORIZED) => Err(denied(side, "shardingState")),
        Err(e) if error::code(&e) == Some(codes::COMMAND_NOT_FOUND) => Ok(()),
        Err(e) => Err(error::failure(side, &e)),
    }
}

async fn version(side: Side, admin: &Db) -> Result<Version, Failure> {
    let info = admin.run_command(doc! {"buildInfo": 1}).await.map_err(|e| error::failure(side, &e))?;
    let mut parts = info.get_str("version").unwrap_or("").split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    Ok((next(), next(), next()))
}

async fn set_id(side: Side, admin: &Db, set_name: &str) -> Result<String, Failure> {
    match admin.run_command(doc! {"replSetGetConfig": 1}).await {
        Ok(reply) => {
            let settings = reply.get_document("config").and_then(|config| config.get_document("settings"));
            let id = settings.and_then(|settings| settings.get_object_id("replicaSetId"));
            Ok(id.map_or_else(|_| set_name.to_owned(), |id| id.to_hex()))
        }
        Err(e) if error::code(&e) == Some(codes::UNAUTHORIZED) => Err(denied(side, "replSetGetConfig")),
        Err(e) => Err(error::failure(side, &e)),
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
    let oplog = run("local", doc! {"collStats": "oplog.rs"}).await.ok();
    let (major, minor, patch) = cluster.version;
    let size = |d: &Document| {
        let internal = d.get_str("name").is_ok_and(limosa_model::filter::is_internal);
        if internal { 0 } else { raw_bson::as_i64(d.get("sizeOnDisk")).unwrap_or(0) }
    };
    Ok(protocol::Deployment {
        name: name.to_owned(),
        cluster_id: cluster.set_id.parse().unwrap_or_else(|_| DeploymentId::generate()),
        db_size_bytes: listed
            .get_array("databases")
            .map(|all| all.iter().filter_map(|d| d.as_document()).map(size).sum())
            .unwrap_or(0),
        feature_compatibility_version: format!("{}.{}", cluster.level.0, cluster.level.1),
        mongo_db_version: format!("{major}.{minor}.{patch}"),
        oplog_size_mb: oplog
            .and_then(|o| raw_bson::as_i64(o.get("maxSize")))
            .map_or(0, |bytes| (bytes / 1_048_576) as i32),
        sharded: false,
        shards_size: 1,
        tls_enabled: matches!(cluster.options.tls, Some(Tls::Enabled(_))),
        managed: cluster.options.credential.is_some(),
    })
}

/// What there is to show of a destination.
pub(crate) async fn facts(uri: &Secret) -> Result<protocol::ClusterFacts, Failure> {
    let cluster = Cluster::connect(Side::Destination, uri).await?;
    let hello = cluster.db("admin").run_command(doc! {"hello": 1}).await.map_err(|e| cluster.failure(&e))?;
    let (major, minor, patch) = cluster.version;
    let hosts = hello.get_array("hosts").into_iter().flatten().filter_map(|host| Some(host.as_str()?.to_owned()));
    Ok(protocol::ClusterFacts {
        mongo_db_version: format!("{major}.{minor}.{patch}"),
        replica_set: hello.get_str("setName").unwrap_or_default().to_owned(),
        hosts: hosts.collect(),
    })
}

/// Both must not lead to one cluster.
pub(crate) fn same_cluster(source: &Cluster, destination: &Cluster) -> Option<Failure> {
    (source.set_id == destination.set_id)
        .then(|| Failure::new(ErrorCode::SameCluster, "source and destination are the same cluster"))
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
