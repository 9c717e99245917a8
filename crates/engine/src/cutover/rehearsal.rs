//! Goes through a cutover without changing anything, and says what it would do and how long that would take.

use crate::{
    cutover::{
        reverse,
        steps::{self, CutoverParams, Step},
        write_block,
    },
    destination::{indexes, views},
    missing_indexes::Missing,
    mongo::{
        catalog::{self, Kind},
        cluster::Cluster,
        codes, definition_diff, error, index_spec,
    },
    replication::{
        late_writes::{self, Recent},
        replicator::Replicator,
    },
    verify::online::Verifier,
};
use bson::{Document, doc};
use limosa_model::{
    ErrorCode, Failure, Finding, Namespace, NamespaceFilter,
    cutover::{Rehearsal, RehearsedStep},
};
use std::time::{Duration, Instant};

/// What a rehearsal looks at. It only reads, and replication continues beside it.
pub(crate) struct Stage {
    source: Cluster,
    destination: Cluster,
    verifier: Verifier,
    recent: Recent,
    missing: Missing,
    filter: NamespaceFilter,
    choices: CutoverParams,
}

impl Stage {
    pub fn of(replicator: &Replicator, filter: &NamespaceFilter, choices: CutoverParams) -> Self {
        Self {
            source: replicator.source().clone(),
            destination: replicator.destination().clone(),
            verifier: replicator.verifier().clone(),
            recent: replicator.recent().clone(),
            missing: replicator.missing_indexes().clone(),
            filter: filter.clone(),
            choices,
        }
    }

    /// Goes through every step. What keeps it from being gone through is a finding: a cutover would meet it too.
    pub async fn rehearse(self, number: u32) -> Rehearsal {
        let mut plan = Plan::default();
        if let Err(failure) = Box::pin(go_through(&self, &mut plan)).await {
            plan.findings.push(failure.into());
        }
        let pause: i64 = plan.steps.iter().map(|step| step.predicted_millis).sum();
        Rehearsal {
            number,
            would_complete: !plan.findings.iter().any(Finding::is_error),
            predicted_pause_millis: Some(pause),
            steps: plan.steps,
            findings: plan.findings,
            ..Rehearsal::default()
        }
    }
}

/// What is written to the source now would take a cutover back, unless it is blocked.
async fn writes(stage: &Stage, plan: &mut Plan) -> Result<(), Failure> {
    let Some(now) = late_writes::written_now(&stage.source, &stage.recent).await? else { return Ok(()) };
    let code = ErrorCode::SourceWrittenDuringCutover;
    plan.findings.push(if stage.choices.block_source_writes {
        let evidence = format!(
            "the source is written to now: {now}. The block refuses these writes, but for users who may bypass it: theirs \
             would roll the cutover back"
        );
        Finding::warning(code, "source", evidence)
    } else {
        let evidence = format!(
            "the source is written to now: {now}. The cutover would be rolled back because of these writes: stop them, or \
             have them blocked"
        );
        Finding::error(code, "source", evidence)
    });
    Ok(())
}

async fn go_through(stage: &Stage, plan: &mut Plan) -> Result<(), Failure> {
    let Stage { source, destination, filter, choices, .. } = stage;
    if choices.reversible {
        plan.findings.extend(reverse::refusal(source).await?);
    }
    if choices.block_source_writes {
        let began = Instant::now();
        match write_block::write_block_refusal(source).await? {
            Some(finding) => plan.findings.push(finding),
            None => plan.findings.extend(write_block::obstacles(source).await?),
        }
        plan.step(Step::BlockWrites, began.elapsed(), "the source refuses its users' writes");
    }
    plan.findings.extend(stage.missing.refusals());
    plan.findings.extend(views::refused(source, destination, filter).await?);

    // What is behind now would be behind then; how long it takes is seen by just waiting for it.
    let began = Instant::now();
    let (until, _) = source.optimes().await?;
    stage.verifier.wait_for(until).await;
    plan.step(Step::Drain, began.elapsed(), "what the source wrote until then is applied");
    writes(stage, plan).await?;
    let comparing = definitions(stage, plan).await?;
    counts(stage, plan).await?;
    Box::pin(finalize(source, destination, filter, plan)).await?;
    plan.step(Step::Confirm, comparing, "both sides define the same, and the source was not written to since");
    Ok(())
}

/// What the cutover would bring over; returns how long both sides' definitions took to compare.
async fn definitions(stage: &Stage, plan: &mut Plan) -> Result<Duration, Failure> {
    let Stage { source, destination, filter, choices, .. } = stage;
    let began = Instant::now();
    let departures = definition_diff::compare(source, destination, filter, choices.properties).await?;
    let comparing = began.elapsed();
    plan.findings.extend(steps::unreconcilable_findings(source, destination, filter).await?);
    let lines: usize = departures.values().map(|found| found.options.len() + found.indexes.len()).sum();
    let would = match lines {
        0 => "nothing: both sides define the same".to_owned(),
        _ => format!("{lines} definitions are brought over, in {} namespaces", departures.len()),
    };
    plan.step(Step::Definitions, comparing * 2, &would);
    for (ns, swapped) in stage.verifier.out_of_order() {
        let evidence =
            format!("{ns} is copied again at the cutover, since its documents stand in another order: {swapped}");
        plan.findings.push(Finding::warning(ErrorCode::VerificationFailed, ns.to_string(), evidence));
    }
    for ns in stage.verifier.differing() {
        let evidence = format!("{ns} is copied again at the cutover, since a document of it can't be changed in place");
        plan.findings.push(Finding::warning(ErrorCode::VerificationFailed, ns.to_string(), evidence));
    }
    Ok(comparing)
}

/// What the verifier would still have to compare.
async fn counts(stage: &Stage, plan: &mut Plan) -> Result<(), Failure> {
    let began = Instant::now();
    let verifier = &stage.verifier;
    let mut uneven = Vec::new();
    for pair in verifier.pairs() {
        if !pair.is_capped && !verifier.counts_are_equal(&pair).await? {
            uneven.push(pair.destination.to_string());
        }
    }
    let (dirty, looking) = verifier.outstanding();
    let mut would = format!("{dirty} documents are checked again");
    if !uneven.is_empty() && dirty == 0 {
        would = format!("{would}; {} are compared whole, since their numbers of documents differ", uneven.join(", "));
    }
    plan.step(Step::Verify, began.elapsed() + looking, &would);
    Ok(())
}

#[derive(Default)]
struct Plan {
    steps: Vec<RehearsedStep>,
    findings: Vec<Finding>,
}

impl Plan {
    fn step(&mut self, step: Step, takes: Duration, would: &str) {
        self.steps.push(RehearsedStep {
            step: step.to_string(),
            predicted_millis: takes.as_millis() as i64,
            would: would.to_owned(),
        });
    }
}

/// InvalidOptions: the release could make an index unique, and isn't allowed to. One that is unique already is no error.
fn not_convertible(ns: &Namespace, name: &str, refusal: &mongodb::error::Error) -> Finding {
    let evidence = format!(
        "index {name} of {ns} can't be made unique on the destination, most likely since its featureCompatibilityVersion is \
         below its release: raise it with setFeatureCompatibilityVersion ({})",
        error::words(refusal)
    );
    Finding::error(ErrorCode::UniqueConversionFailed, ns.to_string(), evidence)
}

/// What would keep `index` from being made unique now, if anything would.
async fn try_unique(destination: &Cluster, ns: &Namespace, index: &Document) -> Result<Option<Finding>, Failure> {
    let name = index.get_str("name").unwrap_or_default();
    let trial = doc! {"collMod": &ns.coll, "index": {"name": name, "unique": true}, "dryRun": true};
    match destination.db(&ns.db).run_command(trial).await {
        Ok(_) => Ok(None),
        Err(e) if error::code(&e).is_some_and(codes::is_not_unique) => {
            let evidence = indexes::violations(destination, ns, index, &e).await;
            Ok(Some(Finding::error(ErrorCode::UniqueConversionFailed, ns.to_string(), evidence)))
        }
        // Not there yet.
        Err(e) if error::is_gone(&e) => Ok(None),
        Err(e) if error::code(&e) == Some(codes::INVALID_OPTIONS) => {
            // It may be made unique; 6.0 looks at the keys only once `prepareUnique` is on, which would be a change.
            let is_unprepared = e.to_string().contains("prepareUnique=false");
            Ok((!is_unprepared).then(|| not_convertible(ns, name, &e)))
        }
        Err(e) => Err(destination.failure(&e)),
    }
}

/// Looks for what would keep indexes from being unique, as the conversion would, without converting. The server sees
/// duplicate keys only in an index that refuses new ones already.
async fn finalize(
    source: &Cluster,
    destination: &Cluster,
    filter: &NamespaceFilter,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let (mut unique, mut others, mut built) = (0, 0, Vec::new());
    let began = Instant::now();
    for entry in catalog::list(source, filter).await? {
        if entry.kind == Kind::View || entry.ns.coll.starts_with(catalog::BUCKETS) {
            continue;
        }
        for index in index_spec::list(source, &entry.ns).await? {
            let is_unique = index.get_bool("unique").unwrap_or(false);
            others += u32::from(!is_unique && index.contains_key("expireAfterSeconds"));
            if !is_unique {
                continue;
            }
            unique += 1;
            let name = index.get_str("name").unwrap_or_default();
            if !destination.can().make_an_index_unique() {
                built.push(format!("{} of {}", name, entry.ns));
                continue;
            }
            plan.findings.extend(try_unique(destination, &entry.ns, &index).await?);
        }
    }
    if !built.is_empty() {
        let evidence = format!(
            "they are built in the write pause, since the destination is of {}.{}, not of 6.0 or later: {}",
            destination.level.0,
            destination.level.1,
            built.join(", ")
        );
        plan.findings.push(Finding::warning(ErrorCode::UniqueBuiltAtCutover, "destination", evidence));
    }
    let would =
        format!("{unique} indexes become unique (duplicate keys are seen only then), {others} get their expiry");
    plan.step(Step::Finalize, began.elapsed() + Duration::from_millis(10) * (unique + others), &would);
    Ok(())
}
