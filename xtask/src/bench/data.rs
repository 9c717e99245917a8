//! The documents that benches move: the same bytes for the same seed.

use bson::{
    RawDocumentBuf,
    raw::{CString, cstr},
    rawdoc,
};
use clap::ValueEnum;
use limosa_testkit::Error;
use mongodb::{
    Client,
    options::{Acknowledgment, WriteConcern},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::task::JoinSet;

/// The database that benches fill.
pub(crate) const DB: &str = "bench";

/// The collection that benches fill.
pub(crate) const COLL: &str = "documents";

/// Bytes an insert.
const BATCH_BYTES: u64 = 8_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// About 200 bytes.
    Small,
    /// Ten fields of 100 bytes.
    Ycsb,
    /// 100 KB.
    Large,
    /// 300 fields.
    Wide,
    /// All of them in turn, each with a quarter of the bytes.
    Mixed,
}

impl Shape {
    /// Document number `n`; always the same for the same `seed`.
    pub fn document(self, seed: u64, n: u64) -> RawDocumentBuf {
        let mut random = SmallRng::seed_from_u64(seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let id = i64::try_from(n).unwrap_or(i64::MAX);
        let mut document = rawdoc! {"_id": id, "n": 0_i64};
        match self {
            Self::Small => document.append(cstr!("text"), text(&mut random, 150)),
            Self::Ycsb => fields(&mut document, &mut random, 10, 97),
            Self::Large => fields(&mut document, &mut random, 50, 2_000),
            Self::Wide => fields(&mut document, &mut random, 300, 8),
            Self::Mixed => {
                // By bytes, not by documents: a large one is worth five hundred small ones.
                let shape = match n % 1000 {
                    0..=1 => Self::Large,
                    2..=61 => Self::Wide,
                    62..=250 => Self::Ycsb,
                    _ => Self::Small,
                };
                return shape.document(seed, n);
            }
        }
        document
    }
}

fn fields(document: &mut RawDocumentBuf, random: &mut SmallRng, count: usize, length: usize) {
    for field in 0..count {
        if let Ok(name) = CString::try_from(format!("field{field}")) {
            document.append(name, text(random, length));
        }
    }
}

/// Letters, the common ones more often: it compresses about as real text does.
fn text(random: &mut SmallRng, length: usize) -> String {
    const LETTERS: &[u8] = b"etaoinshrdlucmfwypvbgkjqxz 0123456789";
    let mut any = || random.random_range(0..LETTERS.len());
    (0..length).map(|_| char::from(LETTERS[any().min(any())])).collect()
}

/// What was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loaded {
    pub documents: u64,
    pub bytes: u64,
}

/// Fills the collection with about `bytes`.
pub(crate) async fn load(client: &Client, shape: Shape, seed: u64, bytes: u64) -> Result<Loaded, Error> {
    let sample: u64 = (0..1000).map(|n| shape.document(seed, n).as_bytes().len() as u64).sum();
    let documents = (bytes * 1000 / sample).max(1);
    let per_batch = (BATCH_BYTES * 1000 / sample).clamp(1, 10_000);
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..2 {
        let (client, next) = (client.clone(), Arc::clone(&next));
        writers.spawn(async move {
            let collection = client.database(DB).collection::<RawDocumentBuf>(COLL);
            let mut written = 0;
            loop {
                let first = next.fetch_add(per_batch, Ordering::Relaxed);
                if first >= documents {
                    return Ok::<u64, Error>(written);
                }
                let batch: Vec<_> =
                    (first..documents.min(first + per_batch)).map(|n| shape.document(seed, n)).collect();
                written += batch.iter().map(|d| d.as_bytes().len() as u64).sum::<u64>();
                collection
                    .insert_many(batch)
                    .ordered(false)
                    .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
                    .await?;
            }
        });
    }
    let mut loaded = Loaded { documents, bytes: 0 };
    while let Some(done) = writers.join_next().await {
        loaded.bytes += done??;
    }
    Ok(loaded)
}
