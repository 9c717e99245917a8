//! Definitions given to the destination: what a collection is called, whether it is there, its options.
//!
//! A name may be another collection's by the time a command arrives: after an answer that was lost, or when the command
//! is one of an engine that is dead. So a command says which collection it means, by UUID, where the server takes that:
//! from 6.0 on. Before, the name is looked up right before, and what a former holder of the migration left running is
//! ended before its successor begins.

use crate::{
    destination::checkpoint::DATABASE,
    mongo::{
        catalog::{self, Uuid},
        cluster::Cluster,
        codes, error,
    },
    retry::Backoff,
};
use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use futures::future::BoxFuture;
use limosa_model::{ErrorCode, Failure, Namespace};
use mongodb::error::Error;

/// How often a collection is followed to its new name, before somebody else must be at work.
const TRIES: usize = 3;

/// Commands that a former holder may have left running and that would do harm. An index build does none: it is joined.
const ENDED: [&str; 5] = ["drop", "renameCollection", "create", "collMod", "dropIndexes"];

/// A collection of the destination: its name and, where it is known, its UUID.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub ns: Namespace,
    pub uuid: Option<Uuid>,
}

impl From<&Namespace> for Place {
    fn from(ns: &Namespace) -> Self {
        Self { ns: ns.clone(), uuid: None }
    }
}

impl From<&Self> for Place {
    fn from(place: &Self) -> Self {
        place.clone()
    }
}

impl Place {
    /// Whether a command on it can carry its UUID. One on a time-series collection can't.
    fn is_held(&self, cluster: &Cluster) -> bool {
        cluster.can().check_uuid() && !self.ns.coll.starts_with(catalog::BUCKETS)
    }

    /// Makes `command` one on this collection alone, whatever has its name.
    pub fn hold(&self, cluster: &Cluster, command: &mut Document) {
        if let Some(uuid) = self.uuid.filter(|_| self.is_held(cluster)) {
            command.insert("collectionUUID", binary(uuid));
        }
    }

    /// Where it is now; `None`: it is gone.
    async fn now(&self, cluster: &Cluster) -> Result<Option<Self>, Failure> {
        let found = match self.uuid {
            Some(uuid) => catalog::find_by_uuid(cluster, &self.ns, uuid).await?,
            None => catalog::find(cluster, &self.ns).await?,
        };
        Ok(found.map(|entry| Self { ns: entry.ns, uuid: self.uuid }))
    }

    /// The same where no command can carry the UUID; else the command itself finds out.
    async fn before_a_command(&self, cluster: &Cluster) -> Result<Option<Self>, Failure> {
        if self.uuid.is_none() || self.is_held(cluster) { Ok(Some(self.clone())) } else { self.now(cluster).await }
    }
}

fn binary(uuid: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() })
}

/// That a collection of the destination isn't what was noted of it. The migration starts again from its checkpoint.
pub(crate) fn lost(message: String) -> Failure {
    Failure::new(ErrorCode::CollectionLost, message)
}

impl Cluster {
    /// Runs a definition that can be repeated; once this returns the majority has it.
    pub fn define<'a>(&'a self, db: &'a str, command: Document) -> BoxFuture<'a, Result<Document, Error>> {
        Box::pin(self.define_again(db, command))
    }

    async fn define_again(&self, db: &str, command: Document) -> Result<Document, Error> {
        let mut pause = Backoff::default();
        loop {
            match self.define_once(db, command.clone()).await {
                // A successor ends what its predecessors run; only the fence tells who that is.
                Err(e) if error::code(&e) == Some(codes::INTERRUPTED) => return Err(e),
                Err(e) if error::is_transient(&e) && pause.wait().await => {}
                ended => return ended,
            }
        }
    }

    /// The same for one that can't be repeated.
    pub fn define_once<'a>(&'a self, db: &'a str, mut command: Document) -> BoxFuture<'a, Result<Document, Error>> {
        command.insert("writeConcern", doc! {"w": "majority"});
        command.extend(self.holder.clone().map(|holder| ("comment".to_owned(), Bson::Document(holder))));
        Box::pin(async move {
            if self.is_fenced().await? {
                return Err(Error::custom(error::Fenced));
            }
            self.db(db).run_command(command).await.and_then(error::confirmed)
        })
    }

    /// Whether another agent has taken the migration over. No definition goes in a transaction with a fence: it is asked for
    /// instead, right before.
    async fn is_fenced(&self) -> Result<bool, Error> {
        let Some(holder) = &self.holder else { return Ok(false) };
        let later = doc! {"_id": holder.get("limosa"), "epoch": {"$gt": holder.get("epoch")}};
        Ok(self.db(DATABASE).find_one("migrations", later).await?.is_some())
    }
}

/// Drops a collection, wherever it is; gone already is success.
pub(crate) async fn drop_collection(cluster: &Cluster, place: &Place) -> Result<(), Failure> {
    let mut place = place.clone();
    for tried in 0..TRIES {
        let Some(now) = place.before_a_command(cluster).await? else { return Ok(()) };
        place = now;
        // Buckets go with their time-series collection, if that is whole.
        let plain = place.ns.coll.strip_prefix(catalog::BUCKETS).filter(|_| tried == 0);
        let mut command = doc! {"drop": plain.unwrap_or(&place.ns.coll)};
        place.hold(cluster, &mut command);
        match cluster.define(&place.ns.db, command).await {
            Ok(_) if plain.is_none() => return Ok(()),
            Ok(_) => {}
            Err(e) if error::is_gone(&e) => {}
            Err(e) => return Err(cluster.failure(&e)),
        }
        let Some(now) = place.now(cluster).await? else { return Ok(()) };
        place = now;
    }
    Err(lost(format!("{} is dropped {TRIES} times and still there", place.ns)))
}

/// Gives a collection the name `to`, wherever it is; what has that name is replaced.
pub(crate) async fn rename_collection(cluster: &Cluster, from: &Place, to: &Namespace) -> Result<(), Failure> {
    let gone = || lost(format!("{} is to be renamed to {to}, and isn't there", from.ns));
    let mut place = from.clone();
    for _ in 0..TRIES {
        place = place.before_a_command(cluster).await?.ok_or_else(gone)?;
        let mut command = doc! {"renameCollection": place.ns.to_string(), "to": to.to_string()};
        match catalog::find(cluster, to).await? {
            Some(own) if own.uuid.is_some() && own.uuid == place.uuid => return Ok(()),
            // A view, left by a cutover that was refused.
            Some(own) if own.uuid.is_none() => drop_collection(cluster, &Place::from(to)).await?,
            Some(own) => {
                let known = own.uuid.filter(|_| place.is_held(cluster)).map(binary);
                command.insert("dropTarget", known.unwrap_or(Bson::Boolean(true)));
            }
            None => {}
        }
        place.hold(cluster, &mut command);
        match cluster.define_once("admin", command).await {
            Ok(_) => return Ok(()),
            // The name is taken by a view, or by a collection that came meanwhile.
            Err(e) if error::is_gone(&e) || error::code(&e) == Some(codes::NAMESPACE_EXISTS) => {}
            Err(e) => return Err(cluster.failure(&e)),
        }
        place = place.now(cluster).await?.ok_or_else(gone)?;
    }
    Err(lost(format!("{} can't be renamed to {to}: something comes in between each time", place.ns)))
}

/// Ends definitions that earlier holders of the migration left running: they know nothing of what their successor does.
pub(crate) async fn end_former(destination: &Cluster, migration: &str, epoch: i64) -> Result<(), Failure> {
    let mut pause = Backoff::default();
    loop {
        let found = former(destination, migration, epoch).await?;
        let Some((what, _)) = found.first() else { return Ok(()) };
        for (what, id) in &found {
            tracing::info!(what, "ending a command of an earlier engine");
            let kill = doc! {"killOp": 1, "op": id.clone(), "comment": destination.holder.clone()};
            if let Err(error) = destination.db("admin").run_command(kill).await {
                tracing::warn!(%error, what, "a command of an earlier engine can't be ended");
            }
        }
        if !pause.wait().await {
            let message = format!("destination: a command of an earlier engine is still running: {what}");
            return Err(Failure::new(ErrorCode::DestinationUnreachable, message));
        }
    }
}

/// What of earlier holders runs on the destination: the command in words, and its operation's id. Releases before this
/// wrote no comment; theirs are known by the application's name.
async fn former(destination: &Cluster, migration: &str, epoch: i64) -> Result<Vec<(String, Bson)>, Failure> {
    let any = |names: &[&str]| -> Vec<Document> {
        names.iter().map(|name| doc! {format!("command.{name}"): {"$exists": true}}).collect()
    };
    let noted = doc! {"command.comment.limosa": migration, "command.comment.epoch": {"$lt": epoch}, "$or": any(&ENDED)};
    let unnoted = doc! {"appName": "limosa", "command.comment": {"$exists": false}, "$or": any(&ENDED[..2])};
    let list = async |all: bool| {
        let stages =
            [doc! {"$currentOp": {"allUsers": all}}, doc! {"$match": {"$or": [noted.clone(), unnoted.clone()]}}];
        let command = doc! {"aggregate": 1, "pipeline": stages.to_vec(), "cursor": {}};
        let cursor = destination.db("admin").run_cursor_command(command).await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let found = match list(true).await {
        // A user may always see its own.
        Err(e) if error::code(&e) == Some(codes::UNAUTHORIZED) => list(false).await,
        listed => listed,
    };
    let found = found.map_err(|e| destination.failure(&e))?;
    Ok(found
        .into_iter()
        .filter_map(|op| Some((told(op.get_document("command").ok()?), op.get("opid")?.clone())))
        .collect())
}

/// Such as `drop c`.
fn told(command: &Document) -> String {
    let first = command.iter().next();
    first.map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default())).unwrap_or_default()
}

/// Drops a collection or a view; gone already is success.
pub(crate) async fn drop_namespace(cluster: &Cluster, ns: &Namespace) -> Result<(), Failure> {
    match cluster.define(&ns.db, doc! {"drop": &ns.coll}).await {
        Ok(_) => Ok(()),
        Err(e) if error::is_gone(&e) => Ok(()),
        Err(e) => Err(cluster.failure(&e)),
    }
}
