//! The last steps, numbered, each recorded on the destination before it begins and safe to repeat. Outcomes: complete;
//! or back to `Synced` with the reason, the source being what it was.
//!
//! What the application sees of it is the time from the moment at which its writers stop to the end of the last step:
//! it depends on what changed lately and on the unique indexes, not on the size of the data.

use crate::{
    cutover::{
        reverse,
        write_block::{block_writes, unblock_writes, write_block_refusal},
    },
    destination::{
        checkpoint::CheckpointStore,
        definition::{Place, drop_namespace},
        expiry, indexes, views,
    },
    failpoint,
    mongo::{
        catalog::{self, Entry, Kind},
        cluster::Cluster,
        definition_diff,
        index_spec::IndexPhase,
    },
    progress::ProgressTracker,
    replication::replicator::Replicator,
    tuning::CATALOG_CONCURRENCY,
};
use bson::{Timestamp, doc};
use futures::{StreamExt, TryStreamExt};
use limosa_model::{ErrorCode, Failure, Finding, Namespace, NamespaceFilter, PhaseKind};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

/// For how long collections that were changed lately are compared as a whole once more, the smallest first: nothing that
/// an application notices, and most collections of most databases are small.
const ONCE_MORE: Duration = Duration::from_millis(500);

/// Why a cutover didn't complete.
pub(crate) enum CutoverError {
    /// It can be asked for again.
    BackToSynced(Failure),
    /// The same, but a step was left in the middle: replication begins again from its checkpoint before.
    BackFromCheckpoint(Failure),
    Failed(Failure),
}

impl From<Failure> for CutoverError {
    fn from(failure: Failure) -> Self {
        match failure.code {
            ErrorCode::UniqueConversionFailed
            | ErrorCode::SourceWrittenDuringCutover
            | ErrorCode::IndexBuildFailed
            | ErrorCode::SourceNotPrimary
            | ErrorCode::WriteBlockRefused => Self::BackToSynced(failure),
            // What a server refused in one step needn't be refused the next time, and replication itself is whole.
            ErrorCode::ServerError | ErrorCode::CollectionLost => Self::BackFromCheckpoint(failure),
            _ => Self::Failed(failure),
        }
    }
}

/// Why a cutover that someone ended is ready again.
pub(crate) fn aborted() -> Failure {
    Failure::new(ErrorCode::CutoverAborted, "the cutover was ended on request")
}

/// The steps. Their numbers are what the checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The source refuses its users' writes, where that was asked for.
    BlockWrites = 1,
    /// Everything up to Tc, the source's time at the beginning, is applied.
    Drain = 2,
    /// The destination's collections, views and options are made those of the source.
    Definitions = 3,
    /// What the verifier holds dirty is compared, and the number of documents of every collection.
    Verify = 4,
    /// Uniqueness, expiry and hiding of indexes are made what they are on the source.
    Finalize = 5,
    /// Both sides' definitions are equal, and the source wasn't written to since Tc.
    Confirm = 6,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::BlockWrites => "block writes",
            Self::Drain => "drain",
            Self::Definitions => "definitions",
            Self::Verify => "verify",
            Self::Finalize => "finalize indexes",
            Self::Confirm => "confirm",
        };
        write!(f, "{} {name}", *self as i32)
    }
}

/// What a cutover is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutoverParams {
    pub block_source_writes: bool,
    /// There will be a way back.
    pub reversible: bool,
    /// How far the destination's indexes are before it.
    pub properties: IndexPhase,
}

/// What a cutover did.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutoverOutcome {
    /// Each step and how long it took.
    pub steps: Vec<(Step, Duration)>,
    /// Definitions that differed when it began, and were brought over.
    pub brought_over: Vec<String>,
}

/// Carries the cutover out.
pub(crate) async fn cut_over(
    replicator: &mut Replicator,
    tracker: &ProgressTracker,
    filter: &NamespaceFilter,
    choices: CutoverParams,
) -> Result<CutoverOutcome, CutoverError> {
    let began = Instant::now();
    tracker.enter_phase(PhaseKind::CuttingOver, None);
    let (source, destination) = (replicator.source().clone(), replicator.destination().clone());
    let mut sequence = Sequence { store: replicator.store().clone(), at: None, done: CutoverOutcome::default() };
    // From here on the verifier does nothing on its own.
    let verifier = replicator.verifier().clone();
    let _held = verifier.suspend().await;

    if let Some(finding) = Box::pin(refusal(replicator, filter, choices)).await? {
        return Err(CutoverError::BackToSynced(finding.failure()));
    }
    if choices.reversible {
        reverse::promise(&source, &destination, replicator.store().id()).await?;
    }
    if choices.block_source_writes {
        sequence.enter(Step::BlockWrites).await?;
        block(&source, &sequence.store).await?;
    }
    sequence.enter(Step::Drain).await?;
    source.prove_primary().await?;
    let (tc, _) = source.optimes().await?;
    replicator.watch_for_late_writes(tc);
    drain(replicator, tc).await?;

    sequence.enter(Step::Definitions).await?;
    let departures = definition_diff::compare(&source, &destination, filter, choices.properties).await?;
    sequence.done.brought_over = departures
        .iter()
        .flat_map(|(ns, found)| found.options.iter().chain(&found.indexes).map(move |line| format!("{ns}: {line}")))
        .collect();
    let renewed = replicator.resync_mismatched().await?;
    sequence.done.brought_over.extend(renewed);
    Box::pin(reconcile(&source, &destination, filter)).await?;
    ensure_no_late_writes(replicator, &source).await?;

    sequence.enter(Step::Verify).await?;
    Box::pin(verify(replicator, &source)).await?;

    sequence.enter(Step::Finalize).await?;
    tracker.enter_phase(PhaseKind::Finalizing, None);
    if choices.properties == IndexPhase::Deferred {
        Box::pin(indexes::sync_all(&source, &destination, filter, IndexPhase::FinalButExpiry)).await?;
        // What expires from here on comes back only by a repair: whatever can still refuse the cutover comes before.
        ensure_no_late_writes(replicator, &source).await?;
    }
    Box::pin(indexes::sync_all(&source, &destination, filter, IndexPhase::Final)).await?;
    expiry::switch_on(&source, &destination, filter).await?;

    sequence.enter(Step::Confirm).await?;
    confirm(replicator, &source, &destination, filter).await?;
    replicator.checkpoint().await?;
    tracker.update(|p| p.write_pause_millis = Some(began.elapsed().as_millis() as i64));
    Ok(sequence.end())
}

/// Makes the source refuse its users' writes; the checkpoint says so before, so that the run that continues lifts it.
async fn block(source: &Cluster, store: &CheckpointStore) -> Result<(), Failure> {
    store.set_writes_blocked(true).await?;
    if let Err(failure) = block_writes(source).await {
        // Who may not lift a block can't have made one.
        let lifted = unblock_writes(source).await;
        if lifted.is_ok() || lifted.is_err_and(|why| why.code == ErrorCode::InsufficientPrivileges) {
            store.set_writes_blocked(false).await?;
        }
        return Err(failure);
    }
    failpoint::reach(failpoint::WRITES_BLOCKED, &store.id()).await;
    Ok(())
}

/// Both sides define the same, and the source, which is still its set's primary, wasn't written to since Tc.
async fn confirm(
    replicator: &mut Replicator,
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<(), CutoverError> {
    let departures = definition_diff::compare(source, destination, filter, IndexPhase::Final).await?;
    source.prove_primary().await?;
    // What was defined later explains a difference better.
    ensure_no_late_writes(replicator, source).await?;
    let Some((ns, found)) = departures.iter().next() else { return Ok(()) };
    let line = found.options.iter().chain(&found.indexes).next().cloned().unwrap_or_default();
    let message = format!("{} namespaces are defined differently, {ns} for one: {line}", departures.len());
    Err(CutoverError::BackToSynced(Failure::new(ErrorCode::VerificationFailed, message)))
}

/// What is known to stand in the way before anything is changed and the pause begins, if something is.
async fn refusal(
    replicator: &Replicator,
    filter: &NamespaceFilter,
    choices: CutoverParams,
) -> Result<Option<Finding>, Failure> {
    let (source, destination) = (replicator.source(), replicator.destination());
    if choices.reversible
        && let Some(finding) = reverse::refusal(source).await?
    {
        return Ok(Some(finding));
    }
    if choices.block_source_writes
        && let Some(finding) = write_block_refusal(source).await?
    {
        return Ok(Some(finding));
    }
    if let Some(finding) = replicator.missing_indexes().refusals().into_iter().next() {
        return Ok(Some(finding));
    }
    Ok(views::refused(source, destination, filter).await?.into_iter().next())
}

/// Where a cutover is.
struct Sequence {
    store: CheckpointStore,
    at: Option<(Step, Instant)>,
    done: CutoverOutcome,
}

impl Sequence {
    async fn enter(&mut self, step: Step) -> Result<(), Failure> {
        self.leave();
        tracing::info!("cutover: {step}");
        self.at = Some((step, Instant::now()));
        self.store.set_cutover(step as i32).await?;
        failpoint::reach(failpoint::STEPS_NOTED[step as usize - 1], &self.store.id()).await;
        Ok(())
    }

    fn leave(&mut self) {
        if let Some((step, began)) = self.at.take() {
            self.done.steps.push((step, began.elapsed()));
        }
    }

    fn end(mut self) -> CutoverOutcome {
        self.leave();
        self.done
    }
}

/// Applies everything up to `until`, and what follows until the destination is an image of the source. That point moves
/// on with every document that is read again: a writer that doesn't stop would move it for ever, so the first late write
/// ends it.
async fn drain(replicator: &mut Replicator, until: Timestamp) -> Result<(), Failure> {
    while !replicator.progress().has_reached(until) {
        replicator.step().await?;
        refuse_late(replicator)?;
    }
    // Later changes that are on their way would come in the middle of what is done next.
    replicator.drain().await
}

/// A change after Tc means that an application still writes to the source.
async fn ensure_no_late_writes(replicator: &mut Replicator, source: &Cluster) -> Result<(), Failure> {
    let (now, _) = source.optimes().await?;
    drain(replicator, now).await?;
    refuse_late(replicator)
}

fn refuse_late(replicator: &Replicator) -> Result<(), Failure> {
    match replicator.late_writes() {
        Some(told) => Err(Failure::new(
            ErrorCode::SourceWrittenDuringCutover,
            format!("the source was written to after the cutover began: {told}"),
        )),
        None => Ok(()),
    }
}

/// Looks at all that is dirty and counts every collection; what differs is repaired and looked at again. Ends only when
/// nothing does.
async fn verify(replicator: &mut Replicator, source: &Cluster) -> Result<(), Failure> {
    let verifier = replicator.verifier().clone();
    let known = verifier.take_repairs()?;
    replicator.repair(known).await?;
    let counted = verifier.pairs().into_iter().map(|pair| {
        let verifier = verifier.clone();
        async move {
            // Before 5.0 each side ends a capped collection's oldest documents in its own time.
            let comparable = !pair.is_capped || source.can().replicate_capped_deletions();
            let unseen = !source.can().show_time_series_events() && pair.source.coll.starts_with(catalog::BUCKETS);
            let suspicious = unseen || comparable && !verifier.counts_are_equal(&pair).await?;
            Ok::<_, Failure>(suspicious.then_some(pair))
        }
    });
    let counted = futures::stream::iter(counted.collect::<Vec<_>>()).buffer_unordered(CATALOG_CONCURRENCY);
    let suspicious: Vec<_> = counted.try_collect().await?;
    if suspicious.iter().any(Option::is_some) {
        // What expires on the source is deleted here a moment later.
        let (now, _) = source.optimes().await?;
        drain(replicator, now).await?;
    }
    for pair in suspicious.into_iter().flatten() {
        let unseen = !source.can().show_time_series_events() && pair.source.coll.starts_with(catalog::BUCKETS);
        if !unseen && verifier.counts_are_equal(&pair).await? {
            continue;
        }
        tracing::warn!(ns = %pair.destination, "comparing every document at the cutover");
        verifier.scan_now(&pair).await?;
    }
    verify_remaining(replicator, source).await?;
    verifier.scan_changed(ONCE_MORE).await?;
    verify_remaining(replicator, source).await
}

async fn verify_remaining(replicator: &mut Replicator, source: &Cluster) -> Result<(), Failure> {
    let verifier = replicator.verifier().clone();
    loop {
        let repairs = Box::pin(verifier.verify_remaining()).await?;
        if repairs.is_empty() {
            return Ok(());
        }
        replicator.repair(repairs).await?;
        let (now, _) = source.optimes().await?;
        drain(replicator, now).await?;
    }
}

/// What [`reconcile`] would refuse.
pub(crate) async fn unreconcilable_findings(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<Vec<Finding>, Failure> {
    let have: HashMap<Namespace, Entry> =
        catalog::list(destination, filter).await?.into_iter().map(|e| (e.ns.clone(), e)).collect();
    let want = catalog::list(source, filter).await?;
    let mut findings = Vec::new();
    for entry in &want {
        if have.get(&entry.ns).is_some_and(|own| entry.kind != Kind::View && catalog::must_be_recreated(entry, own)) {
            let evidence = format!("{} has other options on the destination, and they can't be changed", entry.ns);
            findings.push(Finding::error(ErrorCode::VerificationFailed, entry.ns.to_string(), evidence));
        }
    }
    let wanted: HashSet<&Namespace> = want.iter().map(|entry| &entry.ns).collect();
    for extra in have.values().filter(|own| own.has_documents() && !wanted.contains(&own.ns)) {
        if crate::copy::plan::size(destination, &extra.ns).await?.documents > 0 {
            let evidence = format!("{} is on the destination and not on the source", extra.ns);
            findings.push(Finding::error(ErrorCode::VerificationFailed, extra.ns.to_string(), evidence));
        }
    }
    Ok(findings)
}

/// Makes the destination's collections, views and options those of the source.
pub(crate) async fn reconcile(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<(), Failure> {
    let want = catalog::list(source, filter).await?;
    let mut have: HashMap<Namespace, Entry> =
        catalog::list(destination, filter).await?.into_iter().map(|e| (e.ns.clone(), e)).collect();
    let mut missing_views = Vec::new();
    for entry in want {
        match have.remove(&entry.ns) {
            None if entry.kind == Kind::View => missing_views.push(entry),
            None => drop(catalog::create(destination, &entry.ns, &entry.options).await?),
            Some(own) if entry.kind == Kind::View && own.kind == Kind::View && own.options != entry.options => {
                drop_namespace(destination, &own.ns).await?;
                missing_views.push(entry);
            }
            Some(own) if catalog::must_be_recreated(&entry, &own) => {
                return Err(Failure::new(
                    ErrorCode::VerificationFailed,
                    format!(
                        "{} has other options on the destination than on the source, and they can't be changed",
                        entry.ns
                    ),
                ));
            }
            Some(own) => {
                let mut changes = catalog::option_changes(&entry, &own);
                changes.remove("expireAfterSeconds"); // it is switched on last
                if !changes.is_empty() {
                    let mut command = doc! {"collMod": &entry.ns.coll};
                    command.extend(changes);
                    Place { ns: own.ns.clone(), uuid: own.uuid }.hold(destination, &mut command);
                    destination.define(&entry.ns.db, command).await.map_err(|e| destination.failure(&e))?;
                }
            }
        }
    }
    create_views(destination, missing_views).await?;
    for extra in have.into_values() {
        remove_extra(destination, &extra).await?;
    }
    remove_empty_view_catalogs(source, destination, filter).await
}

/// Where the last view was dropped, the server's own collection of them stays, and with it a database that the source may
/// not even have.
async fn remove_empty_view_catalogs(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
) -> Result<(), Failure> {
    for db in destination.databases().await?.iter().filter(|db| filter.admits_database(db)) {
        let views = Namespace::new(db, "system.views");
        if catalog::find(destination, &views).await?.is_none() || catalog::find(source, &views).await?.is_some() {
            continue;
        }
        let first = destination.db(db).find_one(&views.coll, doc! {}).await;
        if !first.is_ok_and(|view| view.is_none()) {
            continue;
        }
        // It does no harm where the user may not drop it.
        if let Err(failure) = drop_namespace(destination, &views).await {
            tracing::debug!(%db, %failure, "an empty collection of views stays");
        }
    }
    Ok(())
}

/// Views may stand on views; what can't be created yet waits for the others.
async fn create_views(destination: &Cluster, mut views: Vec<Entry>) -> Result<(), Failure> {
    while !views.is_empty() {
        let before = views.len();
        let (mut left, mut last) = (Vec::new(), None);
        for view in views {
            if let Err(failure) = catalog::create(destination, &view.ns, &view.options).await {
                let message = format!("the view {}: {}", view.ns, failure.message);
                last = Some(Failure::new(failure.code, message));
                left.push(view);
            }
        }
        if let (true, Some(failure)) = (left.len() == before, last) {
            return Err(failure);
        }
        views = left;
    }
    Ok(())
}

/// What the source doesn't have: a view or an empty collection is a leftover of the stream; one with documents is
/// somebody's, and not ours to remove.
async fn remove_extra(destination: &Cluster, extra: &Entry) -> Result<(), Failure> {
    if extra.kind == Kind::Collection {
        let size = crate::copy::plan::size(destination, &extra.ns).await?;
        if size.documents > 0 {
            let message = format!("{} is on the destination and not on the source", extra.ns);
            return Err(Failure::new(ErrorCode::VerificationFailed, message));
        }
    }
    drop_namespace(destination, &extra.ns).await
}
