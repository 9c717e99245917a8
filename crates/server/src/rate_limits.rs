//! How much one caller may ask for: requests, tokens and sign-ins are counted in windows of one minute.

use limosa_model::Timestamp;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Tokens that a client may ask for in a minute: a shell loop of the `atlas` command line asks for one each time.
pub(crate) const TOKENS_A_MINUTE: u32 = 60;

/// Wrong sign-ins of one account, and from one address, in a minute that are answered as such. Right ones are let in all
/// the same, so that nobody is locked out by someone else.
const SIGN_INS_A_MINUTE: u32 = 20;

/// Refused operations of one caller in a minute that are written into the audit.
const REFUSALS_A_MINUTE: u32 = 20;

/// Counts kept in a minute: names are the callers' choice.
const COUNTS: usize = 100_000;

/// Of a name, what it is counted by.
const NAME_BYTES: usize = 64;

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
pub(crate) struct RateLimitExceeded {
    /// Until the next minute.
    pub retry_after_seconds: i64,
}

impl RateLimitExceeded {
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
        let place = (caller, kind);
        if counted.requests.len() >= COUNTS && !counted.requests.contains_key(&place) {
            return -1;
        }
        let count = counted.requests.entry(place).or_default();
        *count += 1;
        i64::from(limit) - i64::from(*count)
    }

    fn take(&self, caller: String, kind: &'static str, limit: u32, now: Timestamp) -> Result<(), RateLimitExceeded> {
        if self.count(caller, kind, limit, now) < 0 { Err(RateLimitExceeded::at(now)) } else { Ok(()) }
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
    pub fn token(&self, client: &str, now: Timestamp) -> Result<(), RateLimitExceeded> {
        self.take(client.to_owned(), "tokens", TOKENS_A_MINUTE, now)
    }

    /// Counts a sign-in as `name` from `address` that was found wrong: by both.
    pub fn wrong_sign_in(&self, name: &str, address: IpAddr, now: Timestamp) -> Result<(), RateLimitExceeded> {
        let name: String = name.chars().take(NAME_BYTES).collect();
        let of_account = self.take(name, "sign-ins of an account", SIGN_INS_A_MINUTE, now);
        self.take(address.to_string(), "sign-ins", SIGN_INS_A_MINUTE, now).and(of_account)
    }

    /// Counts an operation that a caller may not carry out.
    pub fn refusal(&self, caller: &str, now: Timestamp) -> Result<(), RateLimitExceeded> {
        self.take(caller.to_owned(), "refusals", REFUSALS_A_MINUTE, now)
    }

    /// Counts credentials from `address` that were found wrong.
    pub fn wrong_credentials(&self, address: IpAddr, now: Timestamp) -> Result<(), RateLimitExceeded> {
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
        for n in 0..SIGN_INS_A_MINUTE {
            assert_eq!(limits.wrong_sign_in(&n.to_string(), one, now), Ok(()));
        }
        let refused = Err(RateLimitExceeded { retry_after_seconds: 15 });
        assert_eq!(limits.wrong_sign_in("another", one, now), refused);
        assert_eq!((limits.wrong_sign_in("another", other, now), limits.wrong_credentials(one, now)), (Ok(()), Ok(())));
        for n in 0..SIGN_INS_A_MINUTE {
            let _ = limits.wrong_sign_in("one", IpAddr::from([10, 0, 1, n as u8]), now);
        }
        assert_eq!(limits.wrong_sign_in("one", IpAddr::from([10, 0, 2, 1]), now), refused, "an account");
        assert_eq!(limits.wrong_sign_in("one", one, now.plus_seconds(15)), Ok(()));
        let left = limits.counted.lock().expect("is whole").requests.len();
        assert_eq!(left, 2, "what is over is forgotten");
    }
}
