//! Nonces of digest authentication: each says when it was given out and is signed, so that asking for one costs no
//! memory, however many ask; only what an authenticated request used is remembered, for as long as it could be replayed.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use limosa_model::Timestamp;
use sha2::Sha256;
use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Mutex, PoisonError},
};

/// How long a nonce is good for.
const LIFE_SECONDS: i64 = 300;

/// When it was given out, in milliseconds, and as many random bytes.
const SIGNED_BYTES: usize = 12;

/// These, and as many of the signature.
const NONCE_BYTES: usize = 24;

/// What became of a nonce.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nonce {
    Fresh,
    /// Too old, or not one of ours: the client is to take a new one.
    Stale,
    /// This count was used before.
    Replayed,
}

/// Gives nonces out and takes them back. The key is of this process: after a restart all are stale.
pub(crate) struct Nonces {
    key: [u8; 64],
    used: Mutex<Used>,
}

/// Nonces with the counts that were used. The older half is forgotten as a whole, when the last of it can't be replayed any more.
#[derive(Default)]
struct Used {
    since: Timestamp,
    newer: HashMap<[u8; NONCE_BYTES], Counts>,
    older: HashMap<[u8; NONCE_BYTES], Counts>,
}

/// Clients count upwards: mostly one number says it all.
#[derive(Debug, Default)]
struct Counts {
    /// All from 1 to this.
    until: u32,
    /// Beyond it, with gaps.
    beyond: BTreeSet<u32>,
}

impl Counts {
    fn contains(&self, count: u32) -> bool {
        (1..=self.until).contains(&count) || self.beyond.contains(&count)
    }

    /// `false` if it was there.
    fn insert(&mut self, count: u32) -> bool {
        if self.contains(count) || !self.beyond.insert(count) {
            return false;
        }
        while self.until.checked_add(1).is_some_and(|next| self.beyond.remove(&next)) {
            self.until += 1;
        }
        true
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self { key: rand::random(), used: Mutex::default() }
    }
}

impl Nonces {
    /// A new one: 24 bytes, 32 characters.
    pub fn issue(&self, now: Timestamp) -> String {
        let mut bytes: [u8; NONCE_BYTES] = rand::random();
        bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        let signature = self.signer(&bytes[..SIGNED_BYTES]).finalize().into_bytes();
        bytes[SIGNED_BYTES..].copy_from_slice(&signature[..NONCE_BYTES - SIGNED_BYTES]);
        STANDARD.encode(bytes)
    }

    fn signer(&self, signed: &[u8]) -> Hmac<Sha256> {
        let mut signer = Hmac::<Sha256>::new(&self.key.into());
        signer.update(signed);
        signer
    }

    /// Its bytes, and when it was given out, if it is one of ours.
    fn issued(&self, nonce: &str) -> Option<([u8; NONCE_BYTES], Timestamp)> {
        let bytes: [u8; NONCE_BYTES] = STANDARD.decode(nonce).ok()?.try_into().ok()?;
        let (signed, signature) = bytes.split_at(SIGNED_BYTES);
        self.signer(signed).verify_truncated_left(signature).ok()?;
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&bytes[..6]);
        Some((bytes, Timestamp(i64::from_be_bytes(millis))))
    }

    /// Takes note of a use.
    pub fn take(&self, nonce: &str, nc: &str, now: Timestamp) -> Nonce {
        let Ok(count) = u32::from_str_radix(nc, 16) else { return Nonce::Replayed };
        let issued = self.issued(nonce).filter(|(_, issued)| now.seconds_since(*issued) < LIFE_SECONDS);
        let Some((nonce, _)) = issued else { return Nonce::Stale };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if now.seconds_since(used.since) >= LIFE_SECONDS {
            used.since = now;
            used.older = mem::take(&mut used.newer);
        }
        let is_old = used.older.get(&nonce).is_some_and(|counts| counts.contains(count));
        if is_old || !used.newer.entry(nonce).or_default().insert(count) {
            return Nonce::Replayed;
        }
        Nonce::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_ages_and_serves_each_count_once() {
        let nonces = Nonces::default();
        let start = Timestamp(1_800_000_000_000);
        let nonce = nonces.issue(start);
        assert_eq!(nonce.len(), 32);
        assert_ne!(nonces.issue(start), nonce);
        let take = |count: &str, seconds: i64| nonces.take(&nonce, count, start.plus_seconds(seconds));
        assert_eq!(take("00000001", 0), Nonce::Fresh);
        assert_eq!(take("00000001", 0), Nonce::Replayed);
        assert_eq!(take("00000002", LIFE_SECONDS - 2), Nonce::Fresh);
        // What was used is remembered until the nonce is too old, whenever the memory is turned over.
        nonces.take(&nonces.issue(start), "00000001", start.plus_seconds(LIFE_SECONDS - 1));
        assert_eq!(take("00000001", LIFE_SECONDS - 1), Nonce::Replayed);
        assert_eq!(take("00000002", LIFE_SECONDS - 1), Nonce::Replayed);
        assert_eq!(take("00000003", LIFE_SECONDS), Nonce::Stale);
        assert_eq!(take("odd", 0), Nonce::Replayed);
    }

    #[test]
    fn counts_serve_once_in_any_order() {
        let mut counts = Counts::default();
        for count in [3, 1, 0, u32::MAX, 2, 5, 4] {
            assert!(!counts.contains(count) && counts.insert(count), "{count}");
        }
        assert!([0, 1, 2, 3, 4, 5, u32::MAX].into_iter().all(|count| !counts.insert(count)));
        assert_eq!((counts.until, counts.beyond.len()), (5, 2), "what is without gaps takes no place");
    }

    #[test]
    fn a_nonce_of_another_hand_is_stale() {
        let nonces = Nonces::default();
        let foreign = Nonces::default().issue(Timestamp(0));
        let own = nonces.issue(Timestamp(0));
        let (head, tail) = own.split_at(4);
        let redated = format!("{}{tail}", if head == "AAAA" { "AAAB" } else { "BAAA" });
        for nonce in [foreign.as_str(), redated.as_str(), "", "A", &"A".repeat(32)] {
            assert_eq!(nonces.take(nonce, "00000001", Timestamp(0)), Nonce::Stale, "{nonce}");
        }
    }
}
