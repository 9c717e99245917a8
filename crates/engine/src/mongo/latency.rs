//! How far away a cluster is, and what follows: compressing what goes over the wire pays where the way is long, which is
//! where it is narrow or paid for, and costs processor time of both ends where it isn't.

use crate::mongo::{calls::Db, side::Side};
use bson::doc;
use mongodb::options::{ClientOptions, Compressor};
use std::time::{Duration, Instant};

/// A server whose quickest answer takes longer than this isn't in the same region.
const FAR: Duration = Duration::from_millis(10);

/// Round trips of which the shortest counts: one that met a busy server says nothing of the way.
const LOOKS: usize = 5;

/// Fast, and within a few percent as small as the levels that aren't.
const LEVEL: i32 = 1;

/// Measures it. A server that doesn't answer isn't far: whatever is wrong shows elsewhere.
pub(crate) async fn is_far(side: Side, admin: &Db) -> bool {
    let mut shortest = Duration::MAX;
    for _ in 0..LOOKS {
        let began = Instant::now();
        if admin.run_command(doc! {"ping": 1}).await.is_err() {
            return false;
        }
        shortest = shortest.min(began.elapsed());
        if shortest <= FAR {
            return false;
        }
    }
    tracing::info!(%side, round_trip = ?shortest, "far away");
    true
}

/// Sets `options` for a server that is far away; whether anything was changed: what the URI says counts first. The
/// server takes of it what it knows.
pub(crate) fn compress(options: &mut ClientOptions) -> bool {
    let unsaid = options.compressors.is_none();
    if unsaid {
        options.compressors = Some(vec![Compressor::Zstd { level: Some(LEVEL) }, Compressor::Snappy]);
    }
    unsaid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_uri_says_of_compression_counts_first() {
        for (query, chosen) in [("", "zstd"), ("?compressors=snappy", "snappy")] {
            let mut options = ClientOptions::parse(format!("mongodb://h/{query}")).await.expect("a URI");
            assert_eq!(compress(&mut options), query.is_empty());
            let first = match options.compressors.as_ref().and_then(|all| all.first()) {
                Some(Compressor::Zstd { .. }) => "zstd",
                Some(Compressor::Snappy) => "snappy",
                _ => "another",
            };
            assert_eq!(first, chosen, "{query}");
        }
    }
}
