//! The fences of a destination: who may write, by epoch. Each transaction of a writer touches its fence, so that a holder
//! of an older epoch can commit nothing.

use crate::{
    destination::{checkpoint::CheckpointStore, claims, definition, fenced_session::FencedSession},
    failpoint,
};
use bson::doc;
use limosa_model::{AgentId, Failure};

/// Raises the epoch: from here on no holder of an older one can change the checkpoint, nor, by the fences, the data.
/// All fences first, also of workers that only an earlier holder had; then what the earlier ones left open is ended.
/// Returns the sessions in which the workers are to write.
pub(crate) async fn take_over(
    store: &CheckpointStore,
    agent: AgentId,
    workers: usize,
) -> Result<Vec<FencedSession>, Failure> {
    let mine = doc! {"_id.migration": store.id(), "epoch": {"$lt": store.epoch()}};
    let former = store.read("fences", mine.clone()).await?;
    let raise = doc! {"q": mine, "u": {"$set": {"epoch": store.epoch()}}, "multi": true};
    let touch =
        doc! {"q": {"_id": store.id(), "epoch": {"$lt": store.epoch()}}, "u": {"$set": {"epoch": store.epoch()}}};
    // Each waits for, or conflicts with, a transaction that an earlier holder has open on a fence.
    store.end_sessions(&former).await?;
    store.run(doc! {"update": "fences", "updates": [raise]}).await?;
    store.run(doc! {"update": "migrations", "updates": [touch]}).await?;
    claims::raise(store).await?;
    store.end_sessions(&former).await?;
    definition::end_former(store.destination(), store.id(), store.epoch()).await?;
    let (mut updates, mut sessions) = (Vec::new(), Vec::new());
    for worker in 0..workers {
        let session = store.destination().start_session().await.map_err(|e| store.destination().failure(&e))?;
        let set = doc! {"epoch": store.epoch(), "agent": agent.to_string(), "session": session.id()};
        updates.push(doc! {
            "q": {"_id": store.fence(worker), "epoch": {"$lte": store.epoch()}}, "u": {"$set": set}, "upsert": true,
        });
        sessions.push(FencedSession::new(store, worker, session));
    }
    let reply = store.run(doc! {"update": "fences", "updates": updates, "ordered": false}).await?;
    if reply.contains_key("writeErrors") {
        return Err(claims::why_fenced(store, store.fenced()).await);
    }
    // Taken meanwhile: fences that were made just now aren't among those that were closed.
    let claim = claims::own(store).await?;
    if claim.is_some_and(|claim| claim.state != claims::State::Live) {
        return Err(claims::why_fenced(store, store.fenced()).await);
    }
    failpoint::reach(failpoint::FENCES_RAISED, &store.id()).await;
    Ok(sessions)
}
