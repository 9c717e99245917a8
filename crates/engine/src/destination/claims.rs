//! Who writes to a destination. Each migration has a document in `__limosa.claims` there, from before its first write on.
//! A migration whose namespaces overlap with those of one that isn't over is refused, or replaces it when it names its id:
//! the other's fences are then closed for good. A complete migration closes its own.
//!
//! Claims are taken in transactions that all change one document, so that of two at once only one succeeds.

use crate::{
    Settings,
    destination::{
        checkpoint::{CheckpointStore, DATABASE, Stage},
        definition,
    },
    local_state,
    mongo::{cluster::Cluster, error, side::Side},
    retry::Backoff,
};
use bson::{DateTime, Document, Timestamp, doc, oid::ObjectId};
use limosa_model::{
    ErrorCode, Failure, Finding, Identities, MigrationId, NamespaceFilter, cutover::CutoverTime, report::Record,
};
use mongodb::{ClientSession, error::Error, options::WriteConcern};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(crate) const CLAIMS: &str = "claims";

/// The document that every transaction which takes a claim changes.
const LOCK: &str = "lock";

/// How often a running migration looks whether it still holds its claim.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a migration that replaces another waits for it to say that it has stopped. One that can't say so is kept from
/// writing by its fences.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// How long an ended migration tries to give its claim back.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(15);

/// More than any destination has had migrations.
const MOST_CLAIMS: i32 = 100_000;

/// A record larger than this is kept without its namespaces: a document of the server holds 16 MiB.
const LARGEST_RECORD: usize = 12 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// It writes, or will after a pause or a failure.
    Live,
    /// Cut over; it never writes again.
    Complete,
    /// Cancelled or expired.
    Ended,
    /// Another took its place.
    Replaced,
}

/// One migration's document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim {
    #[serde(rename = "_id")]
    pub id: String,
    pub state: State,
    /// When it was taken.
    pub since: DateTime,
    /// When it came into `state`.
    pub state_since: DateTime,
    #[serde(default)]
    pub identities: Identities,
    #[serde(default)]
    pub filter: NamespaceFilter,
    /// Whether the destination's data was to be dropped.
    #[serde(default)]
    pub drops: bool,
    /// The host that took it, and the data directory there.
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub kept_in: String,
    /// The migrations that it replaces.
    #[serde(default)]
    pub replaces: Vec<String>,
    /// The migration that replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// Of a replaced one: whether it has stopped.
    #[serde(default)]
    pub stopped: bool,
    /// Of a complete one: its report's record as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Of a complete one: the source's newest write then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_time: Option<Timestamp>,
}

impl Claim {
    /// What its report is made of, if it is complete.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_str(self.record.as_deref()?).ok()
    }

    pub fn state_since(&self) -> String {
        self.state_since.try_to_rfc3339_string().unwrap_or_default()
    }

    fn words(&self) -> String {
        let since = self.since.try_to_rfc3339_string().unwrap_or_default();
        let Self { id, host, kept_in, .. } = self;
        format!("migration {id}, begun at {since} on host {host} with its files in {kept_in}")
    }
}

/// Where a migration stands when it is started.
pub(crate) enum Standing {
    /// Its claim was taken just now.
    Begins,
    GoesOn,
    Complete(Box<Claim>),
}

/// What both clusters are now.
pub(crate) fn identities(source: &Cluster, destination: &Cluster) -> Identities {
    Identities { source: source.identity(), destination: destination.identity() }
}

/// A migration's own claim.
pub(crate) async fn own(store: &CheckpointStore) -> Result<Option<Claim>, Failure> {
    let found = store.read(CLAIMS, doc! {"_id": store.id()}).await?.pop();
    found.map(parse).transpose()
}

fn parse(document: Document) -> Result<Claim, Failure> {
    let unreadable = |e| Failure::new(ErrorCode::Internal, format!("a claim on the destination can't be read: {e}"));
    bson::deserialize_from_document(document).map_err(unreadable)
}

/// Takes the claim, or finds that this migration has it. Everything that was pinned before must still be true.
pub(crate) async fn take(
    settings: &Settings,
    source: &Cluster,
    destination: &Cluster,
    store: &CheckpointStore,
) -> Result<Standing, Failure> {
    let now = identities(source, destination);
    let changed = |text| Failure::new(ErrorCode::ConfigurationChanged, text);
    if let Some(departure) = settings.claim.pinned.as_ref().and_then(|pinned| pinned.departure(&now)) {
        return Err(changed(departure));
    }
    if let Some(claim) = own(store).await? {
        // A backup of one destination may have been restored to another.
        if let Some(departure) = claim.identities.departure(&now) {
            return Err(changed(departure));
        }
        return match claim.state {
            State::Live => Ok(Standing::GoesOn),
            State::Complete => Ok(Standing::Complete(Box::new(claim))),
            State::Ended | State::Replaced => Err(lost(Some(&claim)).unwrap_or_else(|| store.fenced())),
        };
    }
    let begun = store.load().await?.is_some();
    // A reverse migration's clusters are known before it begins: only what this host noted of it says that it did.
    let was_begun = match settings.reversal_from {
        None => settings.claim.pinned.is_some(),
        Some(_) => local_state::known(&settings.data_dir, store.id())?.is_some(),
    };
    if !begun && was_begun {
        return Err(checkpoint_lost());
    }
    let claim = Claim {
        id: store.id().to_owned(),
        state: State::Live,
        since: DateTime::now(),
        state_since: DateTime::now(),
        identities: now,
        filter: settings.filter.clone(),
        drops: settings.drop_destination_data,
        host: settings.claim.host.clone(),
        kept_in: settings.data_dir.display().to_string(),
        replaces: settings.claim.replaces.iter().map(MigrationId::to_string).collect(),
        replaced_by: None,
        stopped: false,
        record: None,
        source_time: None,
    };
    insert(store, &claim, begun).await?;
    // One that the version before began has its checkpoint and continues.
    Ok(if begun { Standing::GoesOn } else { Standing::Begins })
}

/// That the migration's record isn't there any more.
pub(crate) fn checkpoint_lost() -> Failure {
    let message = "the destination has no record of this migration any more: the database __limosa was dropped there, or \
                   the destination was restored or made again";
    Failure::new(ErrorCode::CheckpointLost, message)
}

/// Why `claim` is no place to write from, if so.
fn lost(claim: Option<&Claim>) -> Option<Failure> {
    let Some(claim) = claim else { return Some(checkpoint_lost()) };
    match claim.state {
        State::Live | State::Complete => None,
        State::Ended => {
            let message = format!("this migration ended at {}: it was cancelled or expired", claim.state_since());
            Some(Failure::new(ErrorCode::DestinationTaken, message))
        }
        State::Replaced => {
            let by = claim.replaced_by.as_deref().unwrap_or_default();
            let message = format!(
                "migration {by} took the destination at {}: this one has stopped and writes nothing any more",
                claim.state_since()
            );
            Some(Failure::new(ErrorCode::DestinationTaken, message))
        }
    }
}

/// What stands in the way of a migration of `filter`, seen without taking anything.
pub(crate) async fn in_the_way(
    store: &CheckpointStore,
    filter: &NamespaceFilter,
    replaces: &[MigrationId],
) -> Result<Option<Finding>, Failure> {
    if let Some(failure) = own(store).await?.and_then(|claim| lost(Some(&claim))) {
        return Ok(Some(Finding::error(failure.code, "destination", failure.message)));
    }
    let (claims, checkpoints) = (store.read(CLAIMS, doc! {}).await?, store.read("migrations", doc! {}).await?);
    let replaces: Vec<String> = replaces.iter().map(MigrationId::to_string).collect();
    let holders = holders(claims, &checkpoints)?;
    Ok(refusal(store.id(), filter, &replaces, &holders)
        .map(|failure| Finding::error(failure.code, "destination", failure.message)))
}

/// All migrations that may write: live claims, and checkpoints that the version before left without one.
fn holders(claims: Vec<Document>, checkpoints: &[Document]) -> Result<Vec<Claim>, Failure> {
    let claims = claims.into_iter().filter(|claim| claim.get_str("_id").is_ok_and(|id| id != LOCK)).map(parse);
    let mut claims = claims.collect::<Result<Vec<_>, _>>()?;
    let older = checkpoints.iter().filter_map(|checkpoint| {
        let id = checkpoint.get_str("_id").ok()?;
        let over = checkpoint.get_str("stage").is_ok_and(|stage| stage == Stage::Complete.name());
        if over || claims.iter().any(|claim| claim.id == id) {
            return None;
        }
        let since = ObjectId::parse_str(id).map_or_else(|_| DateTime::now(), |id| id.timestamp());
        let filter = checkpoint.get_document("filter").ok().cloned();
        Some(Claim {
            id: id.to_owned(),
            state: State::Live,
            since,
            state_since: since,
            identities: Identities::default(),
            filter: filter.and_then(|f| bson::deserialize_from_document(f).ok()).unwrap_or_default(),
            drops: false,
            host: "unknown".to_owned(),
            kept_in: "an unknown directory".to_owned(),
            replaces: Vec::new(),
            replaced_by: None,
            stopped: false,
            record: None,
            source_time: None,
        })
    });
    let older: Vec<Claim> = older.collect();
    claims.extend(older);
    claims.retain(|claim| claim.state == State::Live);
    Ok(claims)
}

fn refusal(id: &str, filter: &NamespaceFilter, replaces: &[String], holders: &[Claim]) -> Option<Failure> {
    let stays = |holder: &&Claim| holder.id != id && !replaces.contains(&holder.id) && holder.filter.overlaps(filter);
    let holder = holders.iter().find(stays)?;
    let message = format!(
        "{} writes the same namespaces to this destination and isn't over; end it with 'limosa migrations cancel {}', or \
         take its place with '--replace-migration {}'",
        holder.words(),
        holder.id,
        holder.id
    );
    Some(Failure::new(ErrorCode::DestinationInUse, message))
}

/// Writes the claim down, unless another is in the way. `begun`: the migration holds its place already.
async fn insert(store: &CheckpointStore, claim: &Claim, begun: bool) -> Result<(), Failure> {
    // Made before, since a transaction that makes a collection is refused when another makes it at once.
    store.run(doc! {"insert": CLAIMS, "documents": [{"_id": LOCK, "taken": 0_i64}]}).await?;
    let destination = store.destination();
    let failed = |e: Error| destination.failure(&e);
    let mut session = destination.start_session().await.map_err(failed)?;
    let mut pause = Backoff::default();
    loop {
        session.start_transaction().write_concern(WriteConcern::majority()).await.map_err(failed)?;
        let refused = match insert_in(store, claim, begun, &mut session).await {
            Ok(None) => match destination.calls().commit(&mut session).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            },
            Ok(Some(failure)) => {
                let _ = destination.calls().abort(&mut session).await;
                return Err(failure);
            }
            Err(e) => {
                let _ = destination.calls().abort(&mut session).await;
                e
            }
        };
        // A commit whose answer was lost may have succeeded.
        if own(store).await?.is_some() {
            return Ok(());
        }
        if !(error::is_transient(&refused) && pause.wait().await) {
            return Err(failed(refused));
        }
    }
}

async fn insert_in(
    store: &CheckpointStore,
    claim: &Claim,
    begun: bool,
    session: &mut ClientSession,
) -> Result<Option<Failure>, Error> {
    let db = store.destination().db(DATABASE);
    let lock = doc! {"q": {"_id": LOCK}, "u": {"$inc": {"taken": 1_i64}}};
    db.run_command(doc! {"update": CLAIMS, "updates": [lock]}).session(&mut *session).await?;
    if !begun {
        let mut read = Vec::new();
        for collection in [CLAIMS, "migrations"] {
            let find = doc! {
                "find": collection, "projection": {"record": 0, "token": 0, "intent": 0}, "batchSize": MOST_CLAIMS,
                "singleBatch": true,
            };
            let reply = db.run_command(find).session(&mut *session).await?;
            let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
            let batch = batch.map_err(Error::custom)?;
            read.push(batch.iter().filter_map(|one| one.as_document().cloned()).collect::<Vec<_>>());
        }
        let checkpoints = read.pop().unwrap_or_default();
        let holders = match holders(read.pop().unwrap_or_default(), &checkpoints) {
            Ok(holders) => holders,
            Err(failure) => return Ok(Some(failure)),
        };
        if let Some(failure) = refusal(&claim.id, &claim.filter, &claim.replaces, &holders) {
            return Ok(Some(failure));
        }
    }
    if !claim.replaces.is_empty() {
        let set = doc! {"state": "replaced", "stateSince": DateTime::now(), "replacedBy": &claim.id};
        let replaced =
            doc! {"q": {"_id": {"$in": &claim.replaces}, "state": "live"}, "u": {"$set": set}, "multi": true};
        db.run_command(doc! {"update": CLAIMS, "updates": [replaced]}).session(&mut *session).await?;
    }
    let document = bson::serialize_to_document(claim).map_err(Error::custom)?;
    db.run_command(doc! {"insert": CLAIMS, "documents": [document]}).session(&mut *session).await?;
    Ok(None)
}

/// Keeps every migration that this one replaces from writing ever again, and waits until they have stopped.
pub(crate) async fn evict(store: &CheckpointStore) -> Result<(), Failure> {
    let Some(claim) = own(store).await? else { return Ok(()) };
    for replaced in claim.replaces.iter().filter(|id| **id != claim.id) {
        store.close(replaced).await?;
        definition::end_former(store.destination(), replaced, i64::MAX).await?;
        let waited = tokio::time::Instant::now();
        let running = doc! {"_id": replaced, "state": "replaced", "stopped": false};
        while waited.elapsed() < STOPS_WITHIN && !store.read(CLAIMS, running.clone()).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Ends when the claim is lost.
pub(crate) async fn watch(store: &CheckpointStore) -> Failure {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // A destination that can't be asked is others' to tell of.
        if let Ok(claim) = own(store).await
            && let Some(failure) = lost(claim.as_ref())
        {
            return failure;
        }
    }
}

/// What fenced a migration out: more than that another agent holds it, if its claim says more.
pub(crate) async fn why_fenced(store: &CheckpointStore, fenced: Failure) -> Failure {
    match own(store).await {
        Ok(claim) => lost(claim.as_ref()).unwrap_or(fenced),
        Err(_) => fenced,
    }
}

/// Says that a replaced migration has stopped.
pub(crate) async fn say_stopped(settings: &Settings) {
    let said = async {
        let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
        let store = CheckpointStore::new(&destination, settings.migration_id, settings.epoch);
        set(&store, "replaced", doc! {"stopped": true}).await
    };
    if let Ok(Err(failure)) = tokio::time::timeout(GIVE_BACK_WITHIN, said).await {
        tracing::warn!(%failure, "that this migration has stopped can't be written down");
    }
}

/// From here on no holder of an older epoch can change the claim: one that wakes up late doesn't complete what its
/// successor has rolled back.
pub(crate) async fn raise(store: &CheckpointStore) -> Result<(), Failure> {
    let older = doc! {"_id": store.id(), "epoch": {"$not": {"$gte": store.epoch()}}};
    let update = doc! {"q": older, "u": {"$set": {"epoch": store.epoch()}}};
    store.run(doc! {"update": CLAIMS, "updates": [update]}).await.map(drop)
}

/// Sets fields of the own claim where it is in `state` and no later holder has raised its epoch; whether it was.
async fn set(store: &CheckpointStore, state: &str, fields: Document) -> Result<bool, Failure> {
    let own = doc! {"_id": store.id(), "state": state, "epoch": {"$not": {"$gt": store.epoch()}}};
    let update = doc! {"q": own, "u": {"$set": fields}};
    let reply = store.run(doc! {"update": CLAIMS, "updates": [update]}).await?;
    Ok(crate::mongo::raw_bson::as_i64(reply.get("n")) == Some(1))
}

/// Makes the migration complete, with its record, and closes its fences: an agent that runs it again finds it so.
pub(crate) async fn complete(store: &CheckpointStore, record: &Record, source_time: Timestamp) -> Result<(), Failure> {
    let json = |record: &Record| serde_json::to_string(record).unwrap_or_default();
    let mut text = json(record);
    if text.len() > LARGEST_RECORD {
        text = json(&Record { namespaces: Vec::new(), brought_over: Vec::new(), ..record.clone() });
    }
    let mut fields =
        doc! {"state": "complete", "stateSince": DateTime::now(), "record": text, "sourceTime": source_time};
    if let Some(CutoverTime { time, increment }) = record.turning_point {
        fields.insert("turningPoint", Timestamp { time, increment });
    }
    if !set(store, "live", fields).await? {
        return Err(why_fenced(store, store.fenced()).await);
    }
    finish(store).await
}

/// What is left to do once the claim says that it is complete.
pub(crate) async fn finish(store: &CheckpointStore) -> Result<(), Failure> {
    let stage = doc! {"q": {"_id": store.id()}, "u": {"$set": {"stage": Stage::Complete.name()}}};
    store.run(doc! {"update": "migrations", "updates": [stage]}).await?;
    store.close(store.id()).await
}

/// Gives the claim back after the migration was cancelled or has expired. `false` if it isn't this migration's any more.
pub(crate) async fn end(store: &CheckpointStore) -> Result<bool, Failure> {
    set(store, "live", doc! {"state": "ended", "stateSince": DateTime::now()}).await
}

/// The same where nothing else is left to do; it is not waited for long.
pub(crate) async fn end_soon(settings: &Settings) {
    let ended = async {
        let destination = Cluster::connect(Side::Destination, &settings.destination_uri).await?;
        end(&CheckpointStore::new(&destination, settings.migration_id, settings.epoch)).await
    };
    let told = match tokio::time::timeout(GIVE_BACK_WITHIN, ended).await {
        Ok(Ok(_)) => return,
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => "it doesn't answer".to_owned(),
    };
    tracing::warn!(%told, "the destination still counts as in use: the next migration has to say --replace-migration");
}

/// Forgets a claim with which nothing was begun.
pub(crate) async fn release(store: &CheckpointStore) -> Result<(), Failure> {
    if store.load().await?.is_some() {
        return Ok(());
    }
    let delete = doc! {"q": {"_id": store.id(), "state": "live"}, "limit": 1};
    store.run(doc! {"delete": CLAIMS, "deletes": [delete]}).await.map(drop)
}
