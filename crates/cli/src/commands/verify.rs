//! `limosa verify`

use super::Interrupt;
use crate::{args, error::CliError, ui};
use limosa_engine::{VerifyOptions, VerifyProgress};
use limosa_model::verification::{NamespaceVerification, VerificationReport};
use std::{fmt::Write, time::Duration};
use tokio::sync::watch;

/// How often it is told how far it is.
const SHOW_EVERY: Duration = Duration::from_secs(5);

pub(crate) async fn run(given: args::Verify) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen()?;
    let work = tempfile::Builder::new().prefix("limosa-verify-").tempdir();
    let work = work.map_err(|e| CliError::WorkDir(std::env::temp_dir(), e))?;
    let options = VerifyOptions {
        source_uri: given.source,
        destination_uri: given.destination,
        filter: given.namespaces.filter(),
        sample_percent: given.sample,
        settle_seconds: given.settle,
        work_dir: work.path().to_owned(),
        workers: usize::from(given.workers),
    };
    let progress = watch::Sender::new(VerifyProgress::default());
    let shown = progress.subscribe();
    let report = tokio::select! {
        report = limosa_engine::verify(&options, &progress) => report.map_err(|failure| CliError::Refused(vec![failure.into()]))?,
        () = show(shown) => return Ok(()),
        () = interrupt.came() => return Err(CliError::Interrupted),
    };
    let value = serde_json::to_value(&report).unwrap_or_default();
    ui::answer(given.output, &value, |_| words(&report));
    let different = report.namespaces.iter().filter(|n| !n.is_equal()).count();
    if report.equal { Ok(()) } else { Err(CliError::Different(different, report.namespaces.len())) }
}

/// Never ends on its own.
async fn show(progress: watch::Receiver<VerifyProgress>) {
    let mut tick = tokio::time::interval(SHOW_EVERY);
    tick.tick().await;
    loop {
        tick.tick().await;
        let VerifyProgress { documents_total, documents_compared, suspects, namespace } = progress.borrow().clone();
        ui::say(&format!(
            "  {documents_compared}/{documents_total} documents, {suspects} to look at again, at {namespace}"
        ));
    }
}

fn words(report: &VerificationReport) -> String {
    let mut text = String::new();
    for found in &report.namespaces {
        let verdict = if found.is_equal() { "equal" } else { "DIFFERENT" };
        let _ = writeln!(
            text,
            "{:9} {}: {} documents compared{}",
            verdict,
            found.namespace,
            found.documents_compared,
            counts(found)
        );
        for difference in &found.differences {
            let path = difference.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
            let _ = writeln!(text, "    _id {}{path}: {}", difference.id, difference.departure.words());
        }
        let named = found.differences.len() as u64;
        let all = found.missing + found.extra + found.different;
        if all > named && named > 0 {
            let _ = writeln!(text, "    and {} more", all - named);
        }
        if let [earlier, later] = found.out_of_order.as_slice() {
            let _ =
                writeln!(text, "    order: _id {earlier} stands before _id {later}, and after it on the destination");
        }
        for line in &found.options {
            let _ = writeln!(text, "    option {line}");
        }
        for line in &found.indexes {
            let _ = writeln!(text, "    index {line}");
        }
    }
    let sampled = report.sample_percent.map(|p| format!(", a sample of {p} %")).unwrap_or_default();
    let verdict = if report.equal { "equal" } else { "different" };
    let _ = write!(
        text,
        "{verdict}: {} documents in {} namespaces{sampled}",
        report.documents_compared(),
        report.namespaces.len()
    );
    text
}

fn counts(found: &NamespaceVerification) -> String {
    let parts = [(found.missing, "missing"), (found.extra, "extra"), (found.different, "different")];
    parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect()
}
