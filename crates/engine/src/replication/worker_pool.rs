//! The writers at work side by side, each with a queue of its own: while a window is written the next ones wait in line
//! and another is gathered, and no writer waits for the slowest of a window.
//!
//! A document's changes always go to the same lane, which writes them in the order in which they came. A lane that fails
//! writes nothing more: what is behind the failure must not overtake it.

use crate::{
    destination::coalesce::{DocumentWrite, WriteKind},
    replication::writer::Writer,
};
use bson::Timestamp;
use limosa_model::{ErrorCode, Failure};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::Instrument;

/// What a lane says of a share: the source's time of the last re-fetch, if there was any.
type Answer = Result<Option<Timestamp>, Failure>;

/// All lanes; they end with it.
pub(crate) struct ApplyWorkerPool {
    first: Writer,
    queues: Vec<mpsc::UnboundedSender<WorkerBatch>>,
    _tasks: JoinSet<()>,
}

/// One lane's part of a window.
struct WorkerBatch {
    ops: Vec<(u32, DocumentWrite)>,
    /// The times of the oldest and the newest event of the window.
    since: Timestamp,
    until: Timestamp,
    answer: oneshot::Sender<Answer>,
}

impl ApplyWorkerPool {
    /// A lane for each of the writers, of which there is at least one.
    pub fn new(writers: Vec<Writer>) -> Self {
        let first = writers[0].clone();
        let mut tasks = JoinSet::new();
        let queues = writers.into_iter().map(|writer| {
            let (queue, shares) = mpsc::unbounded_channel();
            tasks.spawn(write(writer, shares).in_current_span());
            queue
        });
        Self { first, queues: queues.collect(), _tasks: tasks }
    }

    /// Who writes in the first lane.
    pub fn first(&self) -> &Writer {
        &self.first
    }

    /// Puts a window in line, given as what its lanes are to write.
    pub fn send(&self, shares: Vec<Vec<(u32, DocumentWrite)>>, since: Timestamp, until: Timestamp) -> PendingBatch {
        let mut answers = Vec::new();
        for (ops, queue) in shares.into_iter().zip(&self.queues).filter(|(ops, _)| !ops.is_empty()) {
            let (answer, answered) = oneshot::channel();
            // The queue of a lane that failed is gone: its answers then never come.
            let _ = queue.send(WorkerBatch { ops, since, until, answer });
            answers.push(answered);
        }
        PendingBatch { answers, refetched: None }
    }
}

/// A window that is being written.
pub(crate) struct PendingBatch {
    answers: Vec<oneshot::Receiver<Answer>>,
    refetched: Option<Timestamp>,
}

impl PendingBatch {
    /// Waits for all lanes; continues where it was if it is dropped and asked again. Returns the source's time of the last
    /// re-fetch, if there was any.
    pub async fn done(&mut self) -> Answer {
        while let Some(answered) = self.answers.last_mut() {
            let answer = answered.await;
            self.answers.pop();
            let refetched = answer.map_err(|_| Failure::new(ErrorCode::Internal, "a writer ended"))??;
            self.refetched = self.refetched.max(refetched);
        }
        Ok(self.refetched)
    }
}

async fn write(writer: Writer, mut shares: mpsc::UnboundedReceiver<WorkerBatch>) {
    // Up to when this lane may have seen the source in a re-fetch.
    let mut seen = None;
    while let Some(WorkerBatch { mut ops, since, until, answer }) = shares.recv().await {
        if seen >= Some(since) {
            force_refetch(&mut ops);
        }
        let result = writer.write(ops, until).await;
        let failed = result.is_err();
        if let Ok(refetched) = &result {
            seen = seen.max(*refetched);
        }
        let _ = answer.send(result);
        if failed {
            return;
        }
    }
}

/// What [`crate::replication::batch::ChangeBatch::push`] does with events whose document may be newer on the destination: these were
/// gathered before the re-fetch was known.
fn force_refetch(ops: &mut [(u32, DocumentWrite)]) {
    for (_, op) in ops {
        if matches!(&op.change, WriteKind::Update(delta) if delta.removes()) {
            op.change = WriteKind::Refetch;
        }
    }
}
