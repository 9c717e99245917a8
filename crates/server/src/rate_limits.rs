//! How much one caller may ask for: requests, tokens and sign-ins are counted in windows of one minute.

use limosa_model::Timestamp;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Tokens that a client may ask for in a minute.
pub(crate) const TOKENS_A_MINUTE: u32 = 10;

/// Sign-ins that may be tried from one address in a minute.
const SIGN_INS_A_MINUTE: u32 = 20;

/// Requests with wrong credentials from one address in a minute that are answered as such. It is a brake for programs
/// that were left behind with an old key, not a wall: keys are random, and good ones are let in all the same.
const WRONG_CREDENTIALS_A_MINUTE: u32 = 120;

/// Requests of all agents that joined with one link token: 2,000 of them, each with a heartbeat and a report a second.
const AGENT_REQUESTS_A_MINUTE: u32 = 240_000;

/// How many requests a minute one key or service account may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Of an organization's resources.
    pub orgs: u32,
    /// Of a group's resources, and of all others.
    pub groups: u32,
}

impl Default for RequestLimits {
    /// Atlas's.
    fn default() -> Self {
        Self { orgs: 500, groups: 1200 }
    }
}

/// One more than a minute may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// Until the next minute.
    pub retry_after_seconds: i64,
}

impl TooMany {
    pub fn at(now: Timestamp) -> Self {
        Self { retry_after_seconds: 60 - now.0 / 1000 % 60 }
    }
}

/// See the module.
pub(crate) struct RateLimits {
    limits: RequestLimits,
    counted: Mutex<Counted>,
}

/// The requests of one minute.
#[derive(Default)]
struct Counted {
    minute: i64,
    /// By who asked, and for which kind of thing.
    requests: HashMap<(String, &'static str), u32>,
}

impl RateLimits {
    pub fn new(limits: RequestLimits) -> Self {
        Self { limits, counted: Mutex::default() }
    }

    /// Counts one; what is left, negative when the limit is passed.
    fn count(&self, caller: String, kind: &'static str, limit: u32, now: Timestamp) -> i64 {
        let minute = now.0 / 60_000;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.minute != minute {
            *counted = Counted { minute, requests: HashMap::new() };
        }
        let count = counted.requests.entry((caller, kind)).or_default();
        *count += 1;
        i64::from(limit) - i64::from(*count)
    }

    fn take(&self, caller: String, kind: &'static str, limit: u32, now: Timestamp) -> Result<(), TooMany> {
        if self.count(caller, kind, limit, now) < 0 { Err(TooMany::at(now)) } else { Ok(()) }
    }

    /// Counts a request of an authenticated caller; the limit and what is left, negative when it is passed.
    pub fn request(&self, caller: &str, path: &str, now: Timestamp) -> (u32, i64) {
        let (kind, limit) = match path {
            p if p.starts_with("/api/atlas/v2/orgs") => ("orgs", self.limits.orgs),
            p if p.starts_with("/api/limosa/v1/agents") => ("agents", AGENT_REQUESTS_A_MINUTE),
            _ => ("groups", self.limits.groups),
        };
        (limit, self.count(caller.to_owned(), kind, limit, now))
    }

    /// Whether a client may have one more token.
    pub fn token(&self, client: &str, now: Timestamp) -> Result<(), TooMany> {
        self.take(client.to_owned(), "tokens", TOKENS_A_MINUTE, now)
    }

    /// Whether one more sign-in may be tried from `address`.
    pub fn sign_in(&self, address: IpAddr, now: Timestamp) -> Result<(), TooMany> {
        self.take(address.to_string(), "sign-ins", SIGN_INS_A_MINUTE, now)
    }

    /// Counts credentials from `address` that were found wrong.
    pub fn wrong_credentials(&self, address: IpAddr, now: Timestamp) -> Result<(), TooMany> {
        self.take(address.to_string(), "wrong credentials", WRONG_CREDENTIALS_A_MINUTE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_count_and_each_minute_begins_anew() {
        let limits = RateLimits::new(RequestLimits::default());
        let [one, other] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let now = Timestamp(45_000);
        for _ in 0..SIGN_INS_A_MINUTE {
            assert_eq!(limits.sign_in(one, now), Ok(()));
        }
        assert_eq!(limits.sign_in(one, now), Err(TooMany { retry_after_seconds: 15 }));
        assert_eq!((limits.sign_in(other, now), limits.wrong_credentials(one, now)), (Ok(()), Ok(())));
        assert_eq!(limits.sign_in(one, now.plus_seconds(15)), Ok(()));
        assert_eq!(limits.counted.lock().expect("is whole").requests.len(), 1, "what is over is forgotten");
    }
}
