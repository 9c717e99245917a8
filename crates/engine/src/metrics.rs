//! What is counted for the operators of a migration host, over all migrations of one process. How far a migration is, its
//! reports tell; here are the rates and times from which one sees why it goes as fast as it does.

use crate::component::Component;
use bson::Timestamp;
use limosa_model::Progress;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Seconds that a write takes: a millisecond on an idle server beside, half a minute on one that is stuck.
const BUCKETS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What writes to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct By {
    writer: &'static str,
}

/// The initial copy.
pub(crate) const COPY: By = By { writer: "copy" };

/// Change replication.
pub(crate) const APPLY: By = By { writer: "apply" };

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPart {
    part: &'static str,
}

/// A gauge that is left out while its value isn't known: a 0 would say that all is well.
#[derive(Clone, Debug, Default)]
struct KnownGauge(Arc<Mutex<Option<i64>>>);

impl KnownGauge {
    fn set(&self, value: Option<i64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl EncodeMetric for KnownGauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let value = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        value.map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    ranges: Counter,
    documents: Counter,
    bytes: Counter,
    events: Family<OfKind, Counter>,
    writes: Family<By, Histogram>,
    retries: Family<By, Counter>,
    waits: Family<OfPart, Counter>,
    refetched: Counter,
    spool: Gauge,
    lag: KnownGauge,
    watermark: KnownGauge,
    oplog_window: KnownGauge,
    verified: Gauge,
    to_verify: Gauge,
    passes: Gauge,
    dirty: Gauge,
    repaired: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            ranges: Counter::default(),
            documents: Counter::default(),
            bytes: Counter::default(),
            events: Family::default(),
            writes: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            retries: Family::default(),
            waits: Family::default(),
            refetched: Counter::default(),
            spool: Gauge::default(),
            lag: KnownGauge::default(),
            watermark: KnownGauge::default(),
            oplog_window: KnownGauge::default(),
            verified: Gauge::default(),
            to_verify: Gauge::default(),
            passes: Gauge::default(),
            dirty: Gauge::default(),
            repaired: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Puts everything into `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("copy_ranges", "Ranges copied whole", self.ranges.clone());
        registry.register("copy_documents", "Documents copied, those copied again too", self.documents.clone());
        registry.register_with_unit("copy", "The same, uncompressed", Unit::Bytes, self.bytes.clone());
        registry.register("change_events", "Change events taken up, by kind", self.events.clone());
        let about = "Time of a write to the destination, a whole transaction";
        registry.register_with_unit("destination_write_duration", about, Unit::Seconds, self.writes.clone());
        registry.register("write_retries", "Ranges and transactions that were written again", self.retries.clone());
        registry.register("waits", "Tries of what someone must fix, by part", self.waits.clone());
        registry.register("refetched_documents", "Documents read again from the source", self.refetched.clone());
        registry.register_with_unit("spool", "Changes that wait on this host", Unit::Bytes, self.spool.clone());
        registry.register_with_unit("lag", "From the newest write to the applied", Unit::Seconds, self.lag.clone());
        let about = "Cluster time up to which everything is applied; its age is time() less this";
        registry.register_with_unit("watermark_timestamp", about, Unit::Seconds, self.watermark.clone());
        let about = "How much of the source's oplog is left behind the reader";
        registry.register_with_unit("oplog_window", about, Unit::Seconds, self.oplog_window.clone());
        registry.register("verified_documents", "Documents compared in this pass", self.verified.clone());
        registry.register("documents_to_verify", "Documents to compare in it", self.to_verify.clone());
        registry.register("verification_passes", "Passes over everything", self.passes.clone());
        registry.register("dirty_documents", "Documents to be checked again", self.dirty.clone());
        registry.register("repaired_documents", "Documents that differed and were repaired", self.repaired.clone());
    }

    pub(crate) fn range_copied(&self) {
        self.ranges.inc();
    }

    pub(crate) fn copied(&self, documents: u64, bytes: u64) {
        self.documents.inc_by(documents);
        self.bytes.inc_by(bytes);
    }

    pub(crate) fn events(&self, operation: &str, count: u64) {
        self.events.get_or_create(&OfKind { kind: operation.to_owned() }).inc_by(count);
    }

    pub(crate) fn written(&self, by: By, took: Duration) {
        self.writes.get_or_create(&by).observe(took.as_secs_f64());
    }

    pub(crate) fn retried(&self, by: By) {
        self.retries.get_or_create(&by).inc();
    }

    pub(crate) fn waited(&self, part: Component) {
        let part = match part {
            Component::Reader => "reader",
            Component::Applier => "applier",
            Component::Source => "source",
            Component::Destination => "destination",
            Component::SourceCalls => "source calls",
            Component::DestinationCalls => "destination calls",
            Component::Majority => "majority",
            Component::Pace => "pace",
            Component::Scan | Component::Look => "verifier",
        };
        self.waits.get_or_create(&OfPart { part }).inc();
    }

    pub(crate) fn refetched(&self, documents: u64) {
        self.refetched.inc_by(documents);
    }

    pub(crate) fn applied_to(&self, watermark: Timestamp) {
        self.watermark.set(Some(i64::from(watermark.time)));
    }

    /// A run has ended: what was true of it isn't any more.
    pub(crate) fn forget(&self) {
        [&self.lag, &self.watermark, &self.oplog_window].into_iter().for_each(|gauge| gauge.set(None));
    }

    /// What the newest report says.
    pub(crate) fn follow(&self, progress: &Progress) {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.spool.set(signed(progress.spool_bytes));
        self.lag.set(progress.lag_seconds);
        self.oplog_window.set(progress.oplog_window_seconds);
        self.verified.set(signed(progress.documents_verified));
        self.to_verify.set(signed(progress.documents_to_verify));
        self.passes.set(signed(progress.verification_passes));
        self.dirty.set(signed(progress.documents_dirty));
        self.repaired.set(signed(progress.documents_repaired));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn what_is_not_known_is_left_out() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("limosa");
        metrics.register(&mut registry);
        let scraped = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("encodes");
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let unknown = ["limosa_lag_seconds", "limosa_watermark_timestamp_seconds", "limosa_oplog_window_seconds"];
        let shown =
            |lines: &[String]| unknown.iter().filter(|name| lines.iter().any(|l| l.starts_with(**name))).count();
        assert_eq!(shown(&scraped()), 0, "{:?}", scraped());
        metrics.applied_to(Timestamp { time: 7, increment: 0 });
        metrics.follow(&Progress { lag_seconds: Some(0), oplog_window_seconds: Some(5), ..Progress::default() });
        assert_eq!(shown(&scraped()), 3, "{:?}", scraped());
        metrics.follow(&Progress::default());
        assert_eq!(shown(&scraped()), 1, "{:?}", scraped());
        metrics.forget();
        assert_eq!(shown(&scraped()), 0, "{:?}", scraped());
    }

    #[test]
    fn all_clones_count_together_and_are_told_by_name() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("limosa");
        metrics.register(&mut registry);
        let clone = metrics.clone();
        clone.copied(3, 300);
        clone.events("insert", 2);
        clone.retried(COPY);
        clone.written(APPLY, Duration::from_millis(3));
        clone.follow(&Progress { spool_bytes: 7, lag_seconds: Some(2), ..Progress::default() });
        let mut text = String::new();
        encode(&mut text, &registry).expect("encodes");
        for line in [
            "limosa_copy_documents_total 3",
            "limosa_copy_bytes_total 300",
            "limosa_change_events_total{kind=\"insert\"} 2",
            "limosa_write_retries_total{writer=\"copy\"} 1",
            "limosa_destination_write_duration_seconds_bucket{le=\"0.005\",writer=\"apply\"} 1",
            "limosa_spool_bytes 7",
            "limosa_lag_seconds 2",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
    }
}
