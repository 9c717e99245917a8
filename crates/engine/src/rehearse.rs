//! Goes through a cutover without changing anything, and says what it would do and how long that would take.

use crate::{
    catalog::{self, Kind},
    cluster::Cluster,
    cutover::{self, Choices, Step},
    error, indexes,
    replicate::Replicator,
    reversal,
    verify::metadata,
};
use bson::{Document, doc};
use limosa_model::{
    ErrorCode, Failure, Finding, NamespaceFilter,
    cutover::{Rehearsal, RehearsedStep},
};
use std::time::{Duration, Instant};

/// Goes through every step; replication goes on meanwhile.
pub(crate) async fn rehearse(
    replicator: &mut Replicator,
    filter: &NamespaceFilter,
    choices: Choices,
    number: u32,
) -> Result<Rehearsal, Failure> {
    let source = replicator.registry.source().clone();
    let destination = replicator.registry.destination().clone();
    let mut plan = Plan::default();

    if choices.reversible {
        plan.findings.extend(reversal::refusal(&source).await?);
    }
    if choices.block_source_writes {
        let began = Instant::now();
        plan.findings.extend(cutover::write_block_refusal(&source).await?);
        plan.step(Step::BlockWrites, began.elapsed(), "the source refuses its users' writes");
    }

    // What is behind now would be behind then; how long it takes is seen by just applying it.
    let began = Instant::now();
    let (until, _) = source.optimes().await?;
    cutover::drain(replicator, until).await?;
    plan.step(Step::Drain, began.elapsed(), "what the source wrote until then is applied");

    let began = Instant::now();
    let departures = metadata::compare(&source, &destination, filter, choices.properties).await?;
    let comparing = began.elapsed();
    plan.findings.extend(cutover::irreconcilable(&source, &destination, filter).await?);
    let lines: usize = departures.values().map(|found| found.options.len() + found.indexes.len()).sum();
    let would = match lines {
        0 => "nothing: both sides define the same".to_owned(),
        _ => format!("{lines} definitions are brought over, in {} namespaces", departures.len()),
    };
    plan.step(Step::Definitions, comparing * 2, &would);
    for (ns, swapped) in replicator.verifier.out_of_order() {
        let evidence =
            format!("{ns} is copied anew at the cutover, since its documents stand in another order: {swapped}");
        plan.findings.push(Finding::warning(ErrorCode::VerificationFailed, ns.to_string(), evidence));
    }

    let began = Instant::now();
    let verifier = replicator.verifier.clone();
    let mut uneven = Vec::new();
    for pair in verifier.pairs() {
        if !pair.is_capped && !verifier.counts_are_equal(&pair).await? {
            uneven.push(pair.destination.to_string());
        }
    }
    let (dirty, looking) = verifier.outstanding();
    let mut would = format!("{dirty} documents are looked at again");
    if !uneven.is_empty() && dirty == 0 {
        would = format!("{would}; {} are compared whole, since their numbers of documents differ", uneven.join(", "));
    }
    plan.step(Step::Verify, began.elapsed() + looking, &would);

    finalize(&source, &destination, filter, &mut plan).await?;
    plan.step(Step::Confirm, comparing, "both sides define the same, and the source was not written to since");

    let pause: i64 = plan.steps.iter().map(|step| step.predicted_millis).sum();
    Ok(Rehearsal {
        number,
        would_complete: !plan.findings.iter().any(Finding::is_error),
        predicted_pause_millis: Some(pause),
        steps: plan.steps,
        findings: plan.findings,
        ..Rehearsal::default()
    })
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

/// Looks for duplicate keys as the conversion would, without converting.
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
        for index in indexes::list(source, &entry.ns).await? {
            let is_unique = index.get_bool("unique").unwrap_or(false);
            others += u32::from(!is_unique && index.contains_key("expireAfterSeconds"));
            if !is_unique {
                continue;
            }
            unique += 1;
            let name = index.get_str("name").unwrap_or_default();
            if destination.level < (6, 0) {
                built.push(format!("{} of {}", name, entry.ns));
                continue;
            }
            let trial: Document =
                doc! {"collMod": &entry.ns.coll, "index": {"name": name, "unique": true}, "dryRun": true};
            match destination.db(&entry.ns.db).run_command(trial).await {
                Ok(_) => {}
                Err(e) if matches!(error::code(&e), Some(359 | 11000)) => {
                    let evidence = indexes::violations(destination, &entry.ns, &index, &e).await;
                    plan.findings.push(Finding::error(
                        ErrorCode::UniqueConversionFailed,
                        entry.ns.to_string(),
                        evidence,
                    ));
                }
                // Not there yet, or unique already.
                Err(e) if error::is_gone(&e) || matches!(error::code(&e), Some(72)) => {}
                Err(e) => return Err(destination.failure(&e)),
            }
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
    let would = format!("{unique} indexes become unique, {others} get their expiry");
    plan.step(Step::Finalize, began.elapsed() + Duration::from_millis(10) * (unique + others), &would);
    Ok(())
}
