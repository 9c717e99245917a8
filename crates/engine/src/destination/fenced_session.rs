//! Transactions that touch their writer's fence before anything else, so that an agent that was replaced, and wakes up with
//! a write in its hands, commits nothing any more. The copy and change replication write through this alone.
//!
//! A transaction is tried once here: what is done between two tries differs. [`WriteError`] says whether another is worth it.

use crate::{
    destination::checkpoint::{CheckpointStore, DATABASE},
    mongo::{cluster::Cluster, error, raw_bson::as_i64, refused_writes::refused_writes},
};
use bson::{Document, RawDocumentBuf, doc};
use limosa_model::{Failure, Namespace};
use mongodb::{ClientSession, error::Error, options::WriteConcern};
use std::sync::Arc;
use tokio::sync::Mutex;

/// One worker's fence, and the session in which it writes; one transaction at a time.
#[derive(Clone)]
pub(crate) struct FencedSession {
    store: CheckpointStore,
    /// Which fence is its own.
    worker: usize,
    /// Noted at the fence, so that a successor can end what this one left open.
    session: Arc<Mutex<ClientSession>>,
}

/// Why a transaction wasn't committed. Nothing of it is written, unless the answer to its commit was lost.
pub(crate) enum WriteError {
    /// A transient error: the whole transaction is worth another try.
    Transient(Error),
    /// The server refused a command as a whole, or the commit, with this code.
    Command(i32, Error),
    /// The server refused some of a command's writes: its reply, with `writeErrors`.
    Writes(Document),
    /// What was refused is quoted in a reply that can't be read: there is text in it that isn't UTF-8.
    Unreadable(Error),
    /// The fence is a successor's, or it isn't known what happened.
    Failed(Failure),
}

impl FencedSession {
    pub fn new(store: &CheckpointStore, worker: usize, session: ClientSession) -> Self {
        Self { store: store.clone(), worker, session: Arc::new(Mutex::new(session)) }
    }

    /// The cluster that it writes to.
    pub fn destination(&self) -> &Cluster {
        self.store.destination()
    }

    /// Runs `commands`, each in the database of its namespace, in their order in one transaction with the fence. Returns
    /// their replies. What is acknowledged is as safe as `concern` says.
    pub async fn transact(
        &self,
        commands: Vec<(Namespace, RawDocumentBuf)>,
        concern: WriteConcern,
    ) -> Result<Vec<Document>, WriteError> {
        let calls = self.destination().calls();
        let mut session = self.session.lock().await;
        // A run that was ended in the middle of a transaction left it open.
        let _ = calls.abort(&mut session).await;
        session.start_transaction().write_concern(concern).await.map_err(|e| self.sort(e))?;
        match self.send_all(commands, &mut session).await {
            Ok(replies) => calls.commit(&mut session).await.map(|()| replies).map_err(|e| self.sort(e)),
            Err(refused) => {
                // The server ends a failed transaction automatically; this only ends it sooner.
                let _ = calls.abort(&mut session).await;
                Err(refused)
            }
        }
    }

    /// Fails if the fence is a successor's by now. For what no transaction can write; it leaves a moment in between.
    pub async fn check(&self) -> Result<(), Failure> {
        if self.store.holds(self.worker).await? { Ok(()) } else { Err(self.store.fenced()) }
    }

    async fn send_all(
        &self,
        commands: Vec<(Namespace, RawDocumentBuf)>,
        session: &mut ClientSession,
    ) -> Result<Vec<Document>, WriteError> {
        self.touch_fence(session).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for (ns, command) in commands {
            let reply = self.destination().db(&ns.db).run_raw_command(command).session(&mut *session).await;
            let reply = reply.map_err(|e| self.sort(e))?;
            if refused_writes(&reply).next().is_some() {
                return Err(WriteError::Writes(reply));
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    /// The statement that makes the transaction conflict with a successor's raising of the fence, and that finds no fence
    /// once it is raised.
    async fn touch_fence(&self, session: &mut ClientSession) -> Result<(), WriteError> {
        let touch = doc! {"update": "fences", "updates": [{
            "q": {"_id": self.store.fence(self.worker), "epoch": self.store.epoch()}, "u": {"$inc": {"writes": 1_i64}},
        }]};
        let reply = self.destination().db(DATABASE).run_command(touch).session(session).await;
        let reply = reply.map_err(|e| match self.sort(e) {
            // It is no answer to what is written.
            WriteError::Command(_, e) => WriteError::Failed(self.destination().failure(&e)),
            other => other,
        })?;
        if as_i64(reply.get("n")) == Some(1) {
            return Ok(());
        }
        Err(WriteError::Failed(match refused_writes(&reply).next() {
            None => self.store.fenced(),
            Some(refused) => error::refused(refused.code, refused.message.to_owned()),
        }))
    }

    fn sort(&self, error: Error) -> WriteError {
        match error::code(&error) {
            _ if error::is_transient(&error) => WriteError::Transient(error),
            Some(code) => WriteError::Command(code, error),
            None if error::is_unreadable(&error) => WriteError::Unreadable(error),
            None => WriteError::Failed(self.destination().failure(&error)),
        }
    }
}
