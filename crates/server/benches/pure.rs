//! The server's pure parts: what every request and every report of an agent costs beside the store.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use limosa_model::{
    AgentId, GroupId, Migration, MigrationId, PhaseKind, Progress, Timestamp,
    transition::{Event, Report, apply_event},
};
use limosa_server::bench;
use serde_json::json;
use std::hint::black_box;

const NONCES: u32 = 1_000;

/// As it is stored.
fn migration() -> Migration {
    let group = GroupId::generate();
    let body = json!({
        "id": MigrationId::generate(), "groupId": group, "migrationHost": "host", "dropDestinationData": false,
        "source": {"groupId": group, "clusterName": "old", "managedAuthentication": true, "ssl": false},
        "destination": {"groupId": group, "clusterName": "new"},
        "phase": {"kind": "scheduled"}, "lease": null, "epoch": 0, "progress": {}, "createdAt": 0, "phaseSince": 0,
    });
    serde_json::from_value(body).unwrap_or_else(|error| panic!("{error}"))
}

fn server(criterion: &mut Criterion) {
    let accept = "text/html, application/vnd.atlas.2025-03-12+json;q=0.9, */*";
    assert!(bench::negotiate(accept).is_some());
    criterion.bench_function("negotiate", |b| b.iter(|| bench::negotiate(black_box(accept))));

    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Elements(NONCES.into()));
    group.bench_function("nonces", |b| b.iter(|| bench::use_nonce(black_box(NONCES))));
    group.finish();

    let now = Timestamp::now();
    let agent = AgentId::generate();
    let (claimed, _) =
        apply_event(&migration(), Event::Claim { agent, lease_seconds: 20 }, now).unwrap_or_else(|e| panic!("{e}"));
    let stored = serde_json::to_string(&claimed).unwrap_or_default();
    let reported = || -> Option<String> {
        let current: Migration = serde_json::from_str(black_box(&stored)).ok()?;
        let (epoch, phase, progress) = (current.epoch, PhaseKind::Preparing, Box::<Progress>::default());
        let (lease_seconds, window_seconds) = (20, 3600);
        let event =
            Event::Report(Report { agent, epoch, phase, progress, failure: None, lease_seconds, window_seconds });
        serde_json::to_string(&apply_event(&current, event, now).ok()?.0).ok()
    };
    assert!(reported().is_some());
    criterion.bench_function("a report, read, stepped and written", |b| b.iter(reported));
}

criterion_group!(benches, server);
criterion_main!(benches);
