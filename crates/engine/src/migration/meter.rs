//! Asks both ends all the time whether they answer and how far they are, whatever else waits for them: the lag, and who is
//! to blame for it, are known also while everything else stands still.

use crate::{
    component::Component,
    destination::checkpoint::{Checkpoint, CheckpointStore},
    mongo::cluster::Cluster,
    progress::ProgressTracker,
    source::{event, oplog_window, spool::Spool},
};
use bson::{RawDocumentBuf, Timestamp, doc};
use limosa_model::{ErrorCode, Failure, protocol::Directive};
use std::{convert::Infallible, future::Future, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// How often the source is asked, and the order looked at.
const ASK_SOURCE_EVERY: Duration = Duration::from_millis(500);

/// How often the destination is asked.
const ASK_DESTINATION_EVERY: Duration = Duration::from_secs(1);

/// A server that takes longer for the smallest of answers doesn't answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How often it is noted what was seen of the source's history.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// A primary that was cut off from its set is one for no longer than an election takes; until then it may lack what the
/// majority has. What is missing for longer than this is missing for good.
const NO_PRIMARY_FOR_SO_LONG: Duration = Duration::from_secs(12);

/// What is asked, and of whom.
pub(crate) struct Meter<'a> {
    pub source: &'a Cluster,
    pub destination: &'a Cluster,
    pub spool: &'a Spool,
    pub store: &'a CheckpointStore,
    pub tracker: &'a ProgressTracker,
    pub orders: watch::Receiver<Directive>,
    /// A write of the source that its majority had.
    pub seen: Option<Timestamp>,
}

impl Meter<'_> {
    /// For ever, or until the source turns out to have another history than the one that was read, or either end another
    /// feature compatibility version.
    pub async fn watch(self) -> Failure {
        let Self { source, destination, spool, store, tracker, orders, seen } = self;
        let reading = Source { cluster: source, store, tracker, seen, missing: None, noted: Instant::now() };
        tokio::select! {
            failure = reading.watch(spool, &orders) => failure,
            never = watch_destination(destination, tracker) => match never {},
            changed = source.calls().watch_compatibility() => changed,
            changed = destination.calls().watch_compatibility() => changed,
        }
    }
}

async fn watch_destination(destination: &Cluster, tracker: &ProgressTracker) -> Infallible {
    let mut answered = Instant::now();
    loop {
        let asked = Instant::now();
        let hello = async {
            let answer = destination.db("admin").run_command(doc! {"hello": 1}).await;
            answer.map(drop).map_err(|e| destination.failure(&e))
        };
        match in_time(destination, answered, hello).await {
            Ok(()) => {
                answered = Instant::now();
                tracker.clear_failure(Component::Destination);
            }
            Err(failure) => drop(tracker.record_failure_since(Component::Destination, answered, &failure)),
        }
        tokio::time::sleep_until(asked + ASK_DESTINATION_EVERY).await;
    }
}

/// An answer, or that none came.
async fn in_time<T>(
    cluster: &Cluster,
    answered: Instant,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let silent = |_| {
        let (side, seconds) = (cluster.side, answered.elapsed().as_secs());
        Failure::new(side.unreachable(), format!("{side}: it has given no answer for {seconds} s"))
    };
    timeout(ANSWER_WITHIN, answer).await.map_err(silent)?
}

/// The source over time.
struct Source<'a> {
    cluster: &'a Cluster,
    store: &'a CheckpointStore,
    tracker: &'a ProgressTracker,
    /// A write that its majority had, the newest that is known to be of one history with all before.
    seen: Option<Timestamp>,
    /// Since when it isn't there.
    missing: Option<Instant>,
    noted: Instant,
}

impl Source<'_> {
    async fn watch(mut self, spool: &Spool, orders: &watch::Receiver<Directive>) -> Failure {
        let mut answered = Instant::now();
        loop {
            let asked = Instant::now();
            match in_time(self.cluster, answered, self.cluster.optimes()).await {
                Ok((newest, majority)) => {
                    answered = Instant::now();
                    self.tracker.clear_failure(Component::Source);
                    if let Err(rewound) = self.take(newest, majority).await {
                        return rewound;
                    }
                }
                Err(failure) => {
                    self.tracker.record_failure_since(Component::Source, answered, &failure);
                }
            }
            self.tracker.take_pace(spool.read_until());
            self.tracker.hear_cutover(*orders.borrow() == Directive::CutOver);
            tokio::time::sleep_until(asked + ASK_SOURCE_EVERY).await;
        }
    }

    /// An answer counts only if the source that gave it still has what was seen before: a server can be replaced
    /// between two answers without a failed call, and its times would then pass for those of the history that was read.
    async fn take(&mut self, newest: Timestamp, majority: Timestamp) -> Result<(), Failure> {
        if !self.prove(newest).await? {
            return Ok(());
        }
        self.tracker.with_lag(|lag, now| lag.source_has(newest, majority, now));
        match self.tracker.with_lag(|lag, now| lag.majority_stands(now)) {
            Some(since) => drop(self.tracker.record_failure_since(Component::Majority, since, &stands(since))),
            None => self.tracker.clear_failure(Component::Majority),
        }
        self.seen = self.seen.max(Some(majority));
        if self.noted.elapsed() >= NOTE_EVERY
            && let Some(seen) = self.seen
        {
            self.noted = Instant::now();
            // One that can't be noted now is noted the next time.
            match timeout(ANSWER_WITHIN, self.store.set_source_seen(seen)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(failure)) => tracing::debug!(%failure, "the source's newest write isn't noted"),
            }
        }
        Ok(())
    }

    /// Whether it has one history with what was read; an error if it is certain that it doesn't.
    async fn prove(&mut self, newest: Timestamp) -> Result<bool, Failure> {
        let Some(seen) = self.seen else { return Ok(true) };
        let found = match timeout(ANSWER_WITHIN, oplog_window::still_has(self.cluster, seen)).await {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => {
                tracing::debug!(%failure, "the source's oplog can't be read");
                return Ok(false);
            }
            Err(_) => return Ok(false),
        };
        // Where the oplog may not be read, its newest time is all that there is.
        if found.unwrap_or(newest >= seen) {
            self.missing = None;
            return Ok(true);
        }
        if self.missing.get_or_insert_with(Instant::now).elapsed() < NO_PRIMARY_FOR_SO_LONG {
            return Ok(false);
        }
        Err(oplog_window::rewound(seen, newest))
    }
}

fn stands(since: Instant) -> Failure {
    let seconds = since.elapsed().as_secs();
    let message = format!(
        "source: for {seconds} s no majority of its members has confirmed a write, and what isn't confirmed can't be read"
    );
    Failure::new(ErrorCode::SourceMajorityStalled, message)
}

/// A history that the source has lost may be another one: then that is what is told.
pub(crate) async fn explained(source: &Cluster, seen: Option<Timestamp>, failure: Failure) -> Failure {
    let (ErrorCode::HistoryLost, Some(seen)) = (failure.code, seen) else { return failure };
    let began = Instant::now();
    loop {
        let looked =
            async { Ok::<_, Failure>((oplog_window::still_has(source, seen).await?, source.optimes().await?)) };
        match timeout(ANSWER_WITHIN, looked).await {
            Ok(Ok((Some(false), (newest, _)))) => return oplog_window::rewound(seen, newest),
            Ok(Ok(_)) => return failure,
            // A source that was put back has just been started.
            _ if began.elapsed() < NO_PRIMARY_FOR_SO_LONG => tokio::time::sleep(ASK_SOURCE_EVERY).await,
            _ => return failure,
        }
    }
}

/// Refuses to continue from a checkpoint that the source's history doesn't contain. Returns a write that it does.
pub(crate) async fn same_history(source: &Cluster, checkpoint: &Checkpoint) -> Result<Option<Timestamp>, Failure> {
    let began = Instant::now();
    let token = checkpoint.position.token.as_ref().and_then(|token| RawDocumentBuf::try_from(token).ok());
    // A way back begins at a time of its own; what was read since is later.
    let read = token.and_then(|token| event::token_time(&token)).max(Some(checkpoint.t0));
    loop {
        let (newest, _) = source.optimes().await?;
        let missing = match checkpoint.source_seen {
            Some(seen) if oplog_window::still_has(source, seen).await? == Some(false) => Some(seen),
            seen => seen.max(read).filter(|known| *known > newest),
        };
        match missing {
            None => return Ok(checkpoint.source_seen),
            Some(known) if began.elapsed() >= NO_PRIMARY_FOR_SO_LONG => {
                return Err(oplog_window::rewound(known, newest));
            }
            Some(_) => tokio::time::sleep(ASK_SOURCE_EVERY).await,
        }
    }
}
