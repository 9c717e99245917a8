//! What `benches/` measures of the pure parts, which are private: they are reached through here, with the feature `bench`.

use crate::{auth::nonce::Nonces, http::negotiate};
use limosa_model::{ApiVersion, Timestamp};

/// The version that an `Accept` header leads to, of a resource that has two.
#[must_use]
pub fn negotiate(accept: &str) -> Option<ApiVersion> {
    negotiate::negotiate(accept, &[ApiVersion::V2023_01_01, ApiVersion::V2024_05_30], &[]).ok()
}

/// Gives one nonce out and takes it back `uses` times; how many were good.
#[must_use]
pub fn use_nonce(uses: u32) -> usize {
    let now = Timestamp::now();
    let nonces = Nonces::default();
    let nonce = nonces.issue(now);
    (1..=uses).filter(|nc| nonces.take(&nonce, &format!("{nc:08x}"), now) == crate::auth::nonce::Nonce::Fresh).count()
}
