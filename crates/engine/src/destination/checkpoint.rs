//! What a new agent needs to continue, kept on the destination in `__limosa` and written with majority, so that what it
//! says outlives any single server.

use crate::{
    mongo::{catalog::Uuid, cluster::Cluster, codes, error, raw_bson::as_i64, refused_writes::refused_writes},
    retry::Backoff,
    source::position::Position,
};
use bson::{Binary, Document, Timestamp, doc, oid::ObjectId, spec::BinarySubtype};
use limosa_model::{Epoch, ErrorCode, Failure, MigrationId};
use mongodb::ClientSession;
use mongodb::error::Error;
use mongodb::options::WriteConcern;
use std::collections::HashMap;

/// An epoch that no holder has: what carries it is written by nobody any more.
const CLOSED: i64 = i64::MAX;

/// The database that belongs to Limosa on every destination.
pub(crate) const DATABASE: &str = "__limosa";

/// All collections in it: what else is there was put there by somebody else.
pub(crate) const COLLECTIONS: &[&str] = &["claims", "collections", "fences", "migrations", "ranges", "reversible"];

/// How far a migration is, as far as a resume is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// T0 is noted; collections and ranges may be there in part.
    Begun,
    /// All collections exist and all ranges are written down.
    Planned,
    /// All ranges are copied.
    Copied,
    /// Indexes are built, properties deferred.
    Indexed,
    /// The cutover made everything final.
    Complete,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Planned => "planned",
            Self::Copied => "copied",
            Self::Indexed => "indexed",
            Self::Complete => "complete",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Begun, Self::Planned, Self::Copied, Self::Indexed, Self::Complete].into_iter().find(|s| s.name() == name)
    }
}

/// Which election made the primary that answered. A write that was acknowledged in one term and isn't known to the
/// majority may be rolled back by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ElectionId(ObjectId);

impl ElectionId {
    pub fn of(reply: &Document) -> Option<Self> {
        reply.get_object_id("electionId").ok().map(Self)
    }
}

/// The stored state of one migration.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub stage: Stage,
    pub t0: Timestamp,
    pub position: Position,
    pub filter: Document,
    /// A DDL event that was about to be applied at `position`, with what it acted on.
    pub intent: Option<Document>,
    /// The verifier's notes that know of every event applied since they were begun.
    pub verifier: Option<String>,
    /// The number of the cutover's step that was begun last, if a cutover is under way.
    pub cutover: Option<i32>,
    /// Whether a cutover made the source refuse its users' writes.
    pub writes_blocked: bool,
    /// How often the copy was made again.
    pub recopies: i64,
    /// A write of the source that its majority had: a source without it has another history.
    pub source_seen: Option<Timestamp>,
}

/// The store of one migration's state.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointStore {
    destination: Cluster,
    id: String,
    epoch: Epoch,
}

fn binary(uuid: Uuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: uuid.to_vec() }
}

impl CheckpointStore {
    pub fn new(destination: &Cluster, id: MigrationId, epoch: Epoch) -> Self {
        Self { destination: destination.clone(), id: id.to_string(), epoch }
    }

    pub fn destination(&self) -> &Cluster {
        &self.destination
    }

    pub async fn run(&self, mut command: Document) -> Result<Document, Failure> {
        command.insert("writeConcern", doc! {"w": "majority"});
        let db = self.destination.db(DATABASE);
        let mut pause = Backoff::default();
        let reply = loop {
            match db.run_command(command.clone()).await.and_then(error::confirmed) {
                Ok(reply) => break reply,
                Err(e) if error::is_transient(&e) && pause.wait().await => {}
                Err(e) => return Err(self.destination.failure(&e)),
            }
        };
        if let Some(first) = refused_writes(&reply).next()
            && first.code != codes::DUPLICATE_KEY
        {
            return Err(error::refused(first.code, format!("destination: {}", first.message)));
        }
        Ok(reply)
    }

    pub async fn read(&self, collection: &str, filter: Document) -> Result<Vec<Document>, Failure> {
        let command = doc! {"find": collection, "filter": filter, "readConcern": {"level": "majority"}};
        let mut pause = Backoff::default();
        loop {
            let db = self.destination.db(DATABASE);
            let read = async { db.run_cursor_command(command.clone()).await?.try_collect::<Vec<Document>>().await };
            match read.await {
                Ok(found) => return Ok(found),
                Err(e) if error::is_transient(&e) && pause.wait().await => {}
                Err(e) => return Err(self.destination.failure(&e)),
            }
        }
    }

    /// Keeps every holder of `migration`, now and later, from changing the checkpoint and the data.
    pub async fn close(&self, migration: &str) -> Result<(), Failure> {
        let fences = self.read("fences", doc! {"_id.migration": migration}).await?;
        self.end_sessions(&fences).await?;
        let close = |q: Document| doc! {"q": q, "u": {"$set": {"epoch": CLOSED}}, "multi": true};
        self.run(doc! {"update": "fences", "updates": [close(doc! {"_id.migration": migration})]}).await?;
        self.run(doc! {"update": "migrations", "updates": [close(doc! {"_id": migration})]}).await?;
        self.end_sessions(&fences).await
    }

    /// A holder that was killed in a transaction leaves it open, and it would block its documents for a minute.
    pub async fn end_sessions(&self, fences: &[Document]) -> Result<(), Failure> {
        let former: Vec<&Document> = fences.iter().filter_map(|fence| fence.get_document("session").ok()).collect();
        if !former.is_empty()
            && let Err(error) = self.destination.db("admin").run_command(doc! {"killSessions": former}).await
        {
            tracing::warn!(%error, "the former holder's sessions can't be ended; they end with the server's session timeout");
        }
        Ok(())
    }

    /// The `_id` of a worker's fence.
    pub fn fence(&self, worker: usize) -> Document {
        doc! {"migration": &self.id, "worker": worker as i32}
    }

    /// Which migration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether no other holder has raised the fence of `worker`; for what can't be written in a transaction with it.
    pub async fn holds(&self, worker: usize) -> Result<bool, Failure> {
        let own = doc! {"_id": self.fence(worker), "epoch": self.epoch.0};
        Ok(!self.read("fences", own).await?.is_empty())
    }

    /// The epoch of this holder.
    pub fn epoch(&self) -> i64 {
        self.epoch.0
    }

    /// That another has taken over.
    pub fn fenced(&self) -> Failure {
        error::Fenced.failure()
    }

    pub async fn load(&self) -> Result<Option<Checkpoint>, Failure> {
        let Some(found) = self.read("migrations", doc! {"_id": &self.id}).await?.pop() else { return Ok(None) };
        let stage = found.get_str("stage").ok().and_then(Stage::parse);
        match (stage, found.get_timestamp("t0")) {
            (Some(stage), Ok(t0)) => Ok(Some(Checkpoint {
                stage,
                t0,
                position: Position {
                    token: found.get_document("token").ok().cloned(),
                    spool: found.get_str("spool").unwrap_or_default().to_owned(),
                    seq: found.get_i64("seq").unwrap_or(0) as u64,
                    index: found.get_i64("index").unwrap_or(0) as u64,
                },
                filter: found.get_document("filter").cloned().unwrap_or_default(),
                intent: found.get_document("intent").ok().cloned(),
                verifier: found.get_str("verifier").ok().map(str::to_owned),
                cutover: found.get_i32("cutover").ok(),
                writes_blocked: found.get_bool("writesBlocked").unwrap_or(false),
                recopies: found.get_i64("recopies").unwrap_or(0),
                source_seen: found.get_timestamp("sourceSeen").ok(),
            })),
            _ => Err(Failure::new(ErrorCode::Internal, "the checkpoint on the destination can't be read")),
        }
    }

    /// The first checkpoint; one that exists already stays.
    pub async fn begin(&self, stage: Stage, t0: Timestamp, filter: Document) -> Result<(), Failure> {
        // Two transactions that make one collection at once would be in each other's way.
        for collection in ["ranges", "collections"] {
            match self.destination.define(DATABASE, doc! {"create": collection}).await {
                Err(e) if error::code(&e) != Some(codes::NAMESPACE_EXISTS) => return Err(self.destination.failure(&e)),
                Ok(_) | Err(_) => {}
            }
        }
        let document = doc! {"_id": &self.id, "epoch": self.epoch.0, "stage": stage.name(), "t0": t0, "filter": filter};
        self.run(doc! {"insert": "migrations", "documents": [document]}).await.map(drop)
    }

    /// Begins again at `t0`, over what is there.
    pub async fn restart_copy(&self, t0: Timestamp, recopies: i64) -> Result<(), Failure> {
        let set = doc! {"stage": Stage::Begun.name(), "t0": t0, "recopies": recopies};
        let unset =
            doc! {"token": "", "spool": "", "seq": "", "index": "", "intent": "", "verifier": "", "sourceSeen": ""};
        self.set(doc! {"$set": set, "$unset": unset}).await
    }

    /// Writes nothing of any meaning. The term in which the majority has everything that was written before.
    pub async fn confirm(&self) -> Result<Option<ElectionId>, Failure> {
        let reply = self.change(doc! {"$inc": {"confirmed": 1_i64}}).await?;
        Ok(ElectionId::of(&reply))
    }

    async fn set(&self, update: Document) -> Result<(), Failure> {
        self.change(update).await.map(drop)
    }

    async fn change(&self, update: Document) -> Result<Document, Failure> {
        let q = doc! {"_id": &self.id, "epoch": {"$lte": self.epoch.0}};
        let mut u = update;
        let mut set = u.get_document("$set").cloned().unwrap_or_default();
        set.insert("epoch", self.epoch.0);
        u.insert("$set", set);
        let reply = self.run(doc! {"update": "migrations", "updates": [{"q": q, "u": u}]}).await?;
        if as_i64(reply.get("n")) == Some(1) { Ok(reply) } else { Err(self.fenced()) }
    }

    pub async fn set_stage(&self, stage: Stage) -> Result<(), Failure> {
        self.set(doc! {"$set": {"stage": stage.name()}}).await
    }

    /// Everything before `position` is applied.
    pub async fn set_position(&self, position: &Position) -> Result<(), Failure> {
        self.set(doc! {"$set": Self::position_fields(position)}).await
    }

    /// The source's majority had the write of this time.
    pub async fn set_source_seen(&self, seen: Timestamp) -> Result<(), Failure> {
        self.set(doc! {"$set": {"sourceSeen": seen}}).await
    }

    fn position_fields(position: &Position) -> Document {
        let mut set = doc! {"spool": &position.spool, "seq": position.seq as i64, "index": position.index as i64};
        if let Some(token) = &position.token {
            set.insert("token", token.clone());
        }
        set
    }

    /// Which notes the verifier continues with.
    pub async fn set_verifier(&self, notes: &str) -> Result<(), Failure> {
        self.set(doc! {"$set": {"verifier": notes}}).await
    }

    /// A step of the cutover is about to begin.
    pub async fn set_cutover(&self, step: i32) -> Result<(), Failure> {
        self.set(doc! {"$set": {"cutover": step}}).await
    }

    /// The source is about to refuse its users' writes, or doesn't any more.
    pub async fn set_writes_blocked(&self, blocked: bool) -> Result<(), Failure> {
        self.set(doc! {"$set": {"writesBlocked": blocked}}).await
    }

    /// No cutover is under way.
    pub async fn clear_cutover(&self) -> Result<(), Failure> {
        self.set(doc! {"$unset": {"cutover": ""}}).await
    }

    /// The DDL event at `position` is about to be applied.
    pub async fn set_intent(&self, position: &Position, intent: Document) -> Result<(), Failure> {
        let mut set = Self::position_fields(position);
        set.insert("intent", intent);
        self.set(doc! {"$set": set}).await
    }

    /// Notes which of the destination's collections, the second of each pair, is the source's, the first.
    pub async fn record_mapping(&self, pairs: &[(Uuid, Uuid)]) -> Result<(), Failure> {
        for command in self.mapping(pairs) {
            self.run_fenced(command).await?;
        }
        Ok(())
    }

    /// The same before there is a checkpoint: any holder of the migration notes the same.
    pub async fn record_first_mapping(&self, pairs: &[(Uuid, Uuid)]) -> Result<(), Failure> {
        for command in self.mapping(pairs) {
            self.run(command).await?;
        }
        Ok(())
    }

    fn mapping(&self, pairs: &[(Uuid, Uuid)]) -> impl Iterator<Item = Document> {
        let note = |(source, destination): &(Uuid, Uuid)| {
            let id = doc! {"migration": &self.id, "uuid": binary(*source)};
            doc! {"q": {"_id": id}, "u": {"$set": {"destination": binary(*destination)}}, "upsert": true}
        };
        pairs
            .chunks(1000)
            .map(move |some| doc! {"update": "collections", "updates": some.iter().map(note).collect::<Vec<_>>()})
    }

    /// All notes of [`Self::map`].
    pub async fn mapped(&self) -> Result<HashMap<Uuid, Uuid>, Failure> {
        let found = self.read("collections", doc! {"_id.migration": &self.id}).await?;
        let pair = |d: &Document| {
            let source = crate::mongo::catalog::uuid_of(d.get_document("_id").ok()?.get("uuid"))?;
            Some((source, crate::mongo::catalog::uuid_of(d.get("destination"))?))
        };
        Ok(found.iter().filter_map(pair).collect())
    }

    /// Writes the copy's plan, where there is none.
    pub async fn plan(&self, ranges: &[Document]) -> Result<(), Failure> {
        let note = |range: &Document| {
            let mut document = doc! {"_id": {"migration": &self.id, "n": range.get_i64("n").unwrap_or(0)}};
            document.extend(range.clone());
            document
        };
        for some in ranges.chunks(1000) {
            let documents: Vec<Document> = some.iter().map(note).collect();
            self.run_fenced(doc! {"insert": "ranges", "documents": documents}).await?;
        }
        Ok(())
    }

    /// Throws an unfinished plan away.
    pub async fn clear_plan(&self) -> Result<(), Failure> {
        self.run_fenced(doc! {"delete": "ranges", "deletes": [{"q": {"_id.migration": &self.id}, "limit": 0}]}).await
    }

    pub async fn ranges(&self) -> Result<Vec<Document>, Failure> {
        self.read("ranges", doc! {"_id.migration": &self.id}).await
    }

    /// The term in which the destination's majority has everything that was written before this on the same primary.
    pub async fn confirm_range(&self, n: i64) -> Result<Option<ElectionId>, Failure> {
        let q = doc! {"_id": {"migration": &self.id, "n": n}};
        let u = doc! {"$inc": {"confirmed": 1}};
        self.run(doc! {"update": "ranges", "updates": [{"q": q, "u": u}]}).await.map(|reply| ElectionId::of(&reply))
    }

    pub async fn range_done(&self, n: i64, documents: u64, bytes: u64) -> Result<(), Failure> {
        let q = doc! {"_id": {"migration": &self.id, "n": n}};
        let u = doc! {"$set": {"done": true, "documents": documents as i64, "bytes": bytes as i64}};
        self.run_fenced(doc! {"update": "ranges", "updates": [{"q": q, "u": u}]}).await
    }

    /// Runs a write of this migration's notes in a transaction that also touches the checkpoint: a holder of an older epoch
    /// that wakes up late notes nothing.
    async fn run_fenced(&self, command: Document) -> Result<(), Failure> {
        let failed = |e: Error| self.destination.failure(&e);
        let mut session = self.destination.start_session().await.map_err(failed)?;
        let mut pause = Backoff::default();
        loop {
            let done = self.try_fenced(&command, &mut session).await;
            let _ = self.destination.calls().abort(&mut session).await;
            match done {
                Err(refused) if error::is_transient(&refused) && pause.wait().await => {}
                done => return done.map_err(failed),
            }
        }
    }

    async fn try_fenced(&self, command: &Document, session: &mut ClientSession) -> Result<(), Error> {
        session.start_transaction().write_concern(WriteConcern::majority()).await?;
        let db = self.destination.db(DATABASE);
        let own = doc! {"q": {"_id": &self.id, "epoch": {"$lte": self.epoch.0}}, "u": {"$inc": {"noted": 1_i64}}};
        let touched = db.run_command(doc! {"update": "migrations", "updates": [own]}).session(&mut *session).await?;
        if as_i64(touched.get("n")) != Some(1) {
            return Err(Error::custom(error::Fenced));
        }
        let noted = db.run_command(command.clone()).session(&mut *session).await?;
        match refused_writes(&noted).next() {
            None => {}
            // All of it was committed before, and that answer was lost.
            Some(refused) if refused.code == codes::DUPLICATE_KEY => return Ok(()),
            Some(refused) => {
                return Err(Error::custom(format!("a note of the migration was refused: {}", refused.message)));
            }
        }
        self.destination.calls().commit(session).await
    }
}
