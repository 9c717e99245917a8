//! The engine's pure parts, each on as much as one reply of a source holds, so that a regression is seen without a server.

use bson::{Bson, RawDocument, RawDocumentBuf, doc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use limosa_engine::bench;
use std::hint::black_box;

/// Events a reply.
const EVENTS: u64 = 1_000;

/// A reply of a change stream with updates of documents, of which `distinct` are different.
fn updates(distinct: u64) -> RawDocumentBuf {
    let event = |n: u64| {
        doc! {
            "_id": {"_data": format!("8263F5B0C5{n:08X}2B0229296E04")}, "operationType": "update",
            "clusterTime": bson::Timestamp { time: 1_677_045_957, increment: n as u32 },
            "ns": {"db": "d", "coll": "c"}, "documentKey": {"_id": (n % distinct) as i64},
            "collectionUUID": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] },
            "updateDescription": {
                "updatedFields": {"n": n as i64, "touched": "x".repeat(40)}, "removedFields": ["gone"],
                "truncatedArrays": [], "disambiguatedPaths": {},
            },
        }
    };
    reply((0..EVENTS).map(event))
}

/// A reply with inserts of documents of a kilobyte.
fn inserts() -> RawDocumentBuf {
    reply((0..EVENTS).map(|n| {
        doc! {
            "_id": {"_data": format!("8263F5B0C5{n:08X}2B0229296E04")}, "operationType": "insert",
            "clusterTime": bson::Timestamp { time: 1_677_045_957, increment: n as u32 },
            "ns": {"db": "d", "coll": "c"}, "documentKey": {"_id": n as i64}, "fullDocument": document(n),
        }
    }))
}

fn reply(events: impl Iterator<Item = bson::Document>) -> RawDocumentBuf {
    let events: Vec<Bson> = events.map(Bson::Document).collect();
    let token = doc! {"_data": "8263F5B0C5000000022B0229296E04"};
    raw(&doc! {"cursor": {"nextBatch": events, "postBatchResumeToken": token, "id": 1_i64}, "ok": 1.0})
}

fn document(n: u64) -> bson::Document {
    let mut document = doc! {"_id": n as i64};
    document.extend((0..10).map(|field| (format!("field{field}"), Bson::String("x".repeat(97)))));
    document
}

fn raw(document: &bson::Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap_or_default()
}

fn engine(criterion: &mut Criterion) {
    let (even, hot, whole) = (updates(EVENTS), updates(10), inserts());
    assert_eq!(bench::parse_events(&even), EVENTS as usize);
    assert_eq!(bench::exact_deltas(&even), EVENTS as usize);
    let mut group = criterion.benchmark_group("a reply's events");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("parsing", |b| b.iter(|| bench::parse_events(black_box(&even))));
    group.bench_function("exact deltas", |b| b.iter(|| bench::exact_deltas(black_box(&even))));
    group.bench_function("updates to commands", |b| b.iter(|| bench::commands(black_box(&even))));
    group.bench_function("hot updates to commands", |b| b.iter(|| bench::commands(black_box(&hot))));
    group.bench_function("inserts to commands", |b| b.iter(|| bench::commands(black_box(&whole))));
    group.finish();

    let numbers: Vec<_> = (0..EVENTS).map(|n| raw(&document(n))).collect();
    let nested: Vec<_> = (0..EVENTS).map(|n| raw(&doc! {"_id": {"tenant": n as i32, "key": "x".repeat(24)}})).collect();
    let mut group = criterion.benchmark_group("documents");
    group.throughput(Throughput::Elements(EVENTS));
    for (name, documents) in [("canonical _id, a number", &numbers), ("canonical _id, a document", &nested)] {
        let documents: Vec<&RawDocument> = documents.iter().map(AsRef::as_ref).collect();
        group.bench_function(name, |b| b.iter(|| bench::canonical_ids(black_box(&documents))));
    }
    let documents: Vec<&RawDocument> = numbers.iter().map(AsRef::as_ref).collect();
    group.bench_function("zero timestamps", |b| b.iter(|| bench::zero_timestamps(black_box(&documents))));
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
