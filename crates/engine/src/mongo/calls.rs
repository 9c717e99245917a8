//! Every command to a server goes through here, so that none waits for ever. A connection may be open and silent: a
//! firewall has forgotten it, a host is gone without a word. So what takes long is looked for on the server, by the comment
//! that it carries: while the server works on it, it is waited for, however long; when the server knows nothing of it, its
//! connection is given up, and what failed is tried again on another one.
//!
//! Reads say how long they may take. Else a server's own default would end them (`defaultMaxTimeMS`).

use crate::{
    component::Component,
    mongo::{
        codes,
        error::{self, Changed},
        side::Side,
    },
    progress::ProgressTracker,
};
use bson::{Bson, Document, RawBsonRef, RawDocumentBuf, doc, raw::cstr};
use futures::future::BoxFuture;
use limosa_model::Failure;
use mongodb::{
    Client, ClientSession, Database,
    error::Error,
    options::{CursorType, SelectionCriteria},
    raw_batch_cursor::{RawBatch, RawBatchCursor},
};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// When a call that has no answer is looked for on the server.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// And how soon again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// How long the look itself may take.
const LOOK_FOR: Duration = Duration::from_secs(4);

/// Looks in a row that don't find it: one may come between the server's end of it and the answer.
const UNSEEN: u32 = 3;

/// How long a server that answers nothing at all is waited for.
const SILENT_FOR: Duration = Duration::from_secs(45);

/// How long is waited where the server doesn't show what it does.
const UNSHOWN_FOR: Duration = Duration::from_secs(600);

/// As good as for ever: 24 days.
const MOST_MILLIS: i32 = i32::MAX;

/// Reads that a server may end by a default of its own.
const READS: [&str; 5] = ["find", "aggregate", "count", "distinct", "listIndexes"];

/// How often the feature compatibility version is asked for.
const ASK_COMPATIBILITY_EVERY: Duration = Duration::from_secs(20);

/// Major and minor.
pub(crate) type Release = (u32, u32);

/// Before it was asked.
pub(crate) const UNKNOWN: Release = (u32::MAX, 0);

/// The calls of one cluster.
#[derive(Clone)]
pub(crate) struct Calls(Arc<Inner>);

struct Inner {
    side: Side,
    client: Client,
    /// What the server could do when it was connected to.
    level: Release,
    /// Unlike any other process's.
    prefix: String,
    next: AtomicU64,
    /// Calls that have no answer and that the server wasn't seen to work on: since when, and their names.
    lost: Mutex<BTreeMap<u64, (Instant, String)>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calls({})", self.0.side)
    }
}

/// By what a call is found on the server.
enum Mark {
    Comment(Bson),
    Session(Document),
    /// It isn't with the primary, where would be looked.
    Elsewhere,
}

enum Seen {
    Running,
    Absent,
    /// The server doesn't show it.
    Unshown,
    /// The server doesn't answer.
    Silent,
}

/// One call, for as long as it is waited for.
struct Open<'a> {
    calls: &'a Calls,
    number: u64,
    name: &'a str,
    began: Instant,
}

impl Open<'_> {
    fn note(&self, is_lost: bool) {
        let mut lost = self.calls.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if is_lost {
            lost.insert(self.number, (self.began, self.name.to_owned()));
        } else {
            lost.remove(&self.number);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.note(false);
    }
}

impl Calls {
    pub fn new(side: Side, client: Client, level: Release) -> Self {
        let prefix = format!("limosa {:016x}", rand::random::<u64>());
        Self(Arc::new(Inner { side, client, level, prefix, next: AtomicU64::new(0), lost: Mutex::default() }))
    }

    /// That a call has no answer though the server doesn't work on it, for as long as that is so.
    pub fn silence(&self) -> Option<(Instant, Failure)> {
        let lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, name) = lost.values().min_by_key(|(since, _)| *since)?;
        let message = format!("{}: no answer to {name} for {} s", self.0.side, since.elapsed().as_secs());
        Some((*since, Failure::new(self.0.side.unreachable(), message)))
    }

    fn comment(&self) -> String {
        format!("{} {}", self.0.prefix, self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits for `call` for as long as the server works on it.
    async fn watch<T>(
        &self,
        name: &str,
        mark: &Mark,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let open = Open { calls: self, number: self.0.next.fetch_add(1, Ordering::Relaxed), name, began };
        let mut call = pin!(call);
        let (mut seen_at, mut unseen, mut pause) = (began, 0, LOOK_AFTER);
        loop {
            tokio::select! {
                biased;
                done = &mut call => return self.judge(done).await,
                () = tokio::time::sleep(pause) => pause = LOOK_AGAIN,
            }
            let seen = tokio::select! {
                biased;
                done = &mut call => return self.judge(done).await,
                seen = self.look_for(mark) => seen,
            };
            open.note(matches!(seen, Seen::Absent | Seen::Silent));
            let most = match seen {
                Seen::Running => {
                    (seen_at, unseen) = (Instant::now(), 0);
                    continue;
                }
                Seen::Absent => {
                    unseen += 1;
                    if unseen >= UNSEEN { Duration::ZERO } else { SILENT_FOR }
                }
                Seen::Silent => SILENT_FOR,
                Seen::Unshown => UNSHOWN_FOR,
            };
            if seen_at.elapsed() >= most {
                let after = began.elapsed().as_secs();
                tracing::warn!(side = %self.0.side, name, after, "a connection is silent and is given up");
                let message = format!("no answer to {name} for {after} s; its connection was given up");
                return Err(Error::from(std::io::Error::new(std::io::ErrorKind::TimedOut, message)));
            }
        }
    }

    async fn look_for(&self, mark: &Mark) -> Seen {
        let filter = match mark {
            Mark::Comment(comment) => {
                doc! {"$or": [{"command.comment": comment}, {"cursor.originatingCommand.comment": comment}]}
            }
            Mark::Session(id) => doc! {"lsid.id": id.get("id").cloned()},
            Mark::Elsewhere => return Seen::Silent,
        };
        let shown = doc! {"$currentOp": {"allUsers": false, "truncateOps": true, "idleSessions": false}};
        let command = doc! {
            "aggregate": 1, "pipeline": [shown, {"$match": filter}, {"$limit": 1}, {"$project": {"opid": 1}}],
            "cursor": {}, "maxTimeMS": LOOK_FOR.as_millis() as i32,
        };
        let admin = self.0.client.database("admin");
        match tokio::time::timeout(LOOK_FOR, admin.run_command(command)).await {
            Err(_) => Seen::Silent,
            Ok(Err(error)) if error::is_transient(&error) => Seen::Silent,
            Ok(Err(_)) => Seen::Unshown,
            Ok(Ok(reply)) => {
                let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
                if batch.is_ok_and(|batch| !batch.is_empty()) { Seen::Running } else { Seen::Absent }
            }
        }
    }

    /// A server that suddenly doesn't know an option may have another feature compatibility version than before.
    async fn judge<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &done
            && self.0.level != UNKNOWN
            && error::code(error).is_some_and(codes::is_unknown_option)
            && let Ok(Some(now)) = compatibility(&self.0.client).await
            && now.min(self.0.level) != self.0.level
        {
            return Err(Error::custom(Changed { side: self.0.side, from: self.0.level, to: now }));
        }
        done
    }

    /// Asks until the feature compatibility version isn't what it was when the cluster was connected to; what failed, or
    /// changed, between that and the first answer is noticed too.
    pub async fn watch_compatibility(&self) -> Failure {
        let from = self.0.level;
        loop {
            if let Ok(Some(now)) = compatibility(&self.0.client).await
                && now != from
            {
                return Changed { side: self.0.side, from, to: now }.failure();
            }
            tokio::time::sleep(ASK_COMPATIBILITY_EVERY).await;
        }
    }

    /// Commits the session's transaction.
    pub async fn commit(&self, session: &mut ClientSession) -> Result<(), Error> {
        let mark = Mark::Session(session.id().clone());
        self.watch("commitTransaction", &mark, async { session.commit_transaction().await }).await
    }

    /// Ends the session's transaction without it.
    pub async fn abort(&self, session: &mut ClientSession) -> Result<(), Error> {
        let mark = Mark::Session(session.id().clone());
        self.watch("abortTransaction", &mark, async { session.abort_transaction().await }).await
    }

    /// A command of its own for `command`: with a comment to find it by, and for a read how long it may take.
    fn marked(&self, command: RawDocumentBuf) -> (String, Mark, RawDocumentBuf) {
        let mut command = command;
        let (mut name, mut comment, mut is_timed) = (String::new(), None, false);
        for (key, value) in command.iter().flatten() {
            if name.is_empty() {
                key.as_str().clone_into(&mut name);
            }
            match (key.as_str(), value) {
                ("comment", own) => comment = Bson::try_from(own).ok(),
                ("maxTimeMS", _) => is_timed = true,
                _ => {}
            }
        }
        if !is_timed && READS.contains(&name.as_str()) {
            command.append(cstr!("maxTimeMS"), MOST_MILLIS);
        }
        let comment = comment.unwrap_or_else(|| {
            let own = self.comment();
            command.append(cstr!("comment"), own.as_str());
            Bson::String(own)
        });
        (name, Mark::Comment(comment), command)
    }
}

/// Lets those who watch know while a connection of either side is silent, for ever.
pub(crate) async fn tell_of_silence(source: &Calls, destination: &Calls, tracker: &ProgressTracker) -> Infallible {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        for (calls, part) in [(source, Component::SourceCalls), (destination, Component::DestinationCalls)] {
            match calls.silence() {
                Some((since, failure)) => drop(tracker.record_failure_since(part, since.into(), &failure)),
                None => tracker.clear_failure(part),
            }
        }
    }
}

/// A server's feature compatibility version; `None` where the user may not see it.
pub(crate) async fn compatibility(client: &Client) -> Result<Option<Release>, Error> {
    let command = doc! {"getParameter": 1, "featureCompatibilityVersion": 1, "maxTimeMS": LOOK_FOR.as_millis() as i32};
    let asked = tokio::time::timeout(LOOK_FOR, client.database("admin").run_command(command)).await;
    let reply = match asked.map_err(|_| Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))? {
        Ok(reply) => reply,
        Err(e) if error::code(&e) == Some(codes::UNAUTHORIZED) => return Ok(None),
        Err(e) => return Err(e),
    };
    let own = reply.get_document("featureCompatibilityVersion").and_then(|own| own.get_str("version"));
    let mut parts = own.unwrap_or_default().split('.').map(|part| part.parse::<u32>().ok());
    Ok(parts.next().flatten().zip(parts.next().flatten()))
}

/// A database whose calls are watched.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    calls: Calls,
    inner: Database,
}

impl Db {
    pub fn new(calls: &Calls, name: &str) -> Self {
        Self { calls: calls.clone(), inner: calls.0.client.database(name) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the driver's method takes it")]
    pub fn run_command(&self, command: Document) -> Run<'_> {
        Run { db: self, command: RawDocumentBuf::try_from(&command).map_err(Error::custom), session: None }
    }

    pub fn run_raw_command(&self, command: RawDocumentBuf) -> Run<'_> {
        Run { db: self, command: Ok(command), session: None }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the driver's method takes it")]
    pub fn run_cursor_command(&self, command: Document) -> RunCursor<'_> {
        self.cursor(RawDocumentBuf::try_from(&command).map_err(Error::custom))
    }

    pub fn run_raw_cursor_command(&self, command: RawDocumentBuf) -> RunCursor<'_> {
        self.cursor(Ok(command))
    }

    fn cursor(&self, command: Result<RawDocumentBuf, Error>) -> RunCursor<'_> {
        RunCursor { db: self, command, batch_size: None, max_time: None, cursor_type: None, criteria: None }
    }

    /// The first document that `filter` finds, majority-committed.
    pub async fn find_one(&self, collection: &str, filter: Document) -> Result<Option<RawDocumentBuf>, Error> {
        let level = doc! {"level": "majority"};
        let command =
            doc! {"find": collection, "filter": filter, "limit": 1, "singleBatch": true, "readConcern": level};
        let mut batches = self.run_cursor_command(command).batch().await?;
        let Some(batch) = batches.next().await else { return Ok(None) };
        let batch = batch?;
        let first = batch.doc_slices()?.into_iter().next().and_then(Result::ok);
        Ok(first.and_then(RawBsonRef::as_document).map(ToOwned::to_owned))
    }
}

/// One command.
#[must_use]
pub(crate) struct Run<'a> {
    db: &'a Db,
    command: Result<RawDocumentBuf, Error>,
    session: Option<&'a mut ClientSession>,
}

impl<'a> Run<'a> {
    pub fn session(mut self, session: &'a mut ClientSession) -> Self {
        self.session = Some(session);
        self
    }

    async fn send(self) -> Result<Document, Error> {
        let Self { db, command, session } = self;
        let (name, mark, command) = db.calls.marked(command?);
        let run = db.inner.run_raw_command(command);
        let call = async {
            match session {
                Some(session) => run.session(session).await,
                None => run.await,
            }
        };
        db.calls.watch(&name, &mark, call).await
    }
}

impl<'a> IntoFuture for Run<'a> {
    type Output = Result<Document, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A command with a cursor.
#[must_use]
pub(crate) struct RunCursor<'a> {
    db: &'a Db,
    command: Result<RawDocumentBuf, Error>,
    batch_size: Option<u32>,
    max_time: Option<Duration>,
    cursor_type: Option<CursorType>,
    criteria: Option<SelectionCriteria>,
}

impl<'a> RunCursor<'a> {
    /// Documents in each later reply.
    pub fn batch_size(mut self, documents: u32) -> Self {
        self.batch_size = Some(documents);
        self
    }

    /// How long the server waits for news.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    pub fn cursor_type(mut self, cursor_type: CursorType) -> Self {
        self.cursor_type = Some(cursor_type);
        self
    }

    pub fn selection_criteria(mut self, criteria: SelectionCriteria) -> Self {
        self.criteria = Some(criteria);
        self
    }

    /// Its replies.
    pub async fn batch(self) -> Result<Batches, Error> {
        let Self { db, command, batch_size, max_time, cursor_type, criteria } = self;
        let (name, mut mark, command) = db.calls.marked(command?);
        let is_primary = criteria.as_ref().is_none_or(|criteria| {
            *criteria == SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary)
        });
        if !is_primary {
            mark = Mark::Elsewhere;
        }
        let mut run = db.inner.run_raw_cursor_command(command);
        if let Some(documents) = batch_size {
            run = run.batch_size(documents);
        }
        if let Some(time) = max_time {
            run = run.max_time(time);
        }
        if let Some(cursor_type) = cursor_type {
            run = run.cursor_type(cursor_type);
        }
        if let Some(criteria) = criteria {
            run = run.selection_criteria(criteria);
        }
        let inner = db.calls.watch(&name, &mark, run.batch()).await?;
        Ok(Batches { calls: db.calls.clone(), mark, inner })
    }

    async fn documents(self) -> Result<Documents, Error> {
        self.batch().await.map(|batches| Documents { batches, try_next: VecDeque::new() })
    }
}

impl<'a> IntoFuture for RunCursor<'a> {
    type Output = Result<Documents, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.documents())
    }
}

/// The replies of a cursor.
pub(crate) struct Batches {
    calls: Calls,
    mark: Mark,
    inner: RawBatchCursor,
}

impl Batches {
    pub async fn next(&mut self) -> Option<Result<RawBatch, Error>> {
        let Self { calls, mark, inner } = self;
        let next = async { Ok(futures::StreamExt::next(inner).await) };
        match calls.watch("getMore", mark, next).await {
            Ok(Some(Err(error))) => Some(calls.judge(Err(error)).await),
            Ok(next) => next,
            Err(error) => Some(Err(error)),
        }
    }
}

/// The documents of a cursor.
pub(crate) struct Documents {
    batches: Batches,
    try_next: VecDeque<Document>,
}

impl Documents {
    pub async fn try_next(&mut self) -> Result<Option<Document>, Error> {
        while self.try_next.is_empty() {
            let Some(batch) = self.batches.next().await else { return Ok(None) };
            for value in batch?.doc_slices()? {
                let no_document = || Error::custom("a reply holds something that is no document".to_owned());
                let document = value.map_err(Error::custom)?.as_document().ok_or_else(no_document)?;
                self.try_next.push_back(Document::try_from(document).map_err(Error::custom)?);
            }
        }
        Ok(self.try_next.pop_front())
    }

    pub async fn try_collect<C: Default + Extend<Document>>(mut self) -> Result<C, Error> {
        let mut all = C::default();
        while let Some(document) = self.try_next().await? {
            all.extend([document]);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_default_of_a_server_ends_a_read() {
        let client = Client::with_uri_str("mongodb://127.0.0.1:1").await.expect("needs no server");
        let calls = Calls::new(Side::Source, client, (8, 0));
        let limit = |command: Document| {
            let command = RawDocumentBuf::try_from(&command).expect("is one");
            calls.marked(command).2.get_i32("maxTimeMS").ok()
        };
        for name in ["find", "aggregate", "count", "distinct", "listIndexes"] {
            assert_eq!(limit(doc! {name: "c"}), Some(MOST_MILLIS), "{name}");
            assert_eq!(limit(doc! {name: "c", "maxTimeMS": 5}), Some(5), "{name}");
        }
        assert_eq!(limit(doc! {"insert": "c"}), None);
    }
}
