//! Nonces of digest authentication: given out, aged, and never accepted twice with one count.

use base64::{Engine, engine::general_purpose::STANDARD};
use limosa_model::Timestamp;
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// How long a nonce is good for.
const LIFE_SECONDS: i64 = 300;

/// Nonces kept at most; beyond, the oldest go.
const MOST: usize = 100_000;

/// What became of a nonce.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nonce {
    Fresh,
    /// Known but too old, or unknown: the client is to take a new one.
    Stale,
    /// This count was used before.
    Replayed,
}

/// All nonces given out.
#[derive(Default)]
pub(crate) struct Nonces(Mutex<HashMap<String, (Timestamp, HashSet<u32>)>>);

impl Nonces {
    /// A new one: 24 random bytes, 32 characters.
    pub fn issue(&self, now: Timestamp) -> String {
        let bytes: [u8; 24] = rand::random();
        let nonce = STANDARD.encode(bytes);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (issued, _)| now.seconds_since(*issued) < LIFE_SECONDS / 2);
        }
        known.insert(nonce.clone(), (now, HashSet::new()));
        nonce
    }

    /// Takes note of a use.
    pub fn take(&self, nonce: &str, nc: &str, now: Timestamp) -> Nonce {
        let Ok(count) = u32::from_str_radix(nc, 16) else { return Nonce::Replayed };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(nonce) {
            Some((issued, _)) if now.seconds_since(*issued) >= LIFE_SECONDS => {
                known.remove(nonce);
                Nonce::Stale
            }
            Some((_, used)) => {
                if used.insert(count) {
                    Nonce::Fresh
                } else {
                    Nonce::Replayed
                }
            }
            None => Nonce::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_ages_and_serves_each_count_once() {
        let nonces = Nonces::default();
        let nonce = nonces.issue(Timestamp(0));
        assert_eq!(nonce.len(), 32);
        assert_eq!(nonces.take(&nonce, "00000001", Timestamp(0)), Nonce::Fresh);
        assert_eq!(nonces.take(&nonce, "00000001", Timestamp(0)), Nonce::Replayed);
        assert_eq!(nonces.take(&nonce, "00000002", Timestamp(0)), Nonce::Fresh);
        assert_eq!(nonces.take(&nonce, "00000003", Timestamp(LIFE_SECONDS * 1000)), Nonce::Stale);
        assert_eq!(nonces.take("other", "00000001", Timestamp(0)), Nonce::Stale);
    }
}
