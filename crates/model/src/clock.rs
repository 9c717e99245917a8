//! Instants as whole milliseconds since the Unix epoch: what the store keeps and what the agent protocol carries.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock. The only place in the workspace's libraries that reads it; everything else is handed a value.
    pub fn now() -> Self {
        Self((OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64)
    }

    /// This instant `seconds` later (earlier when negative).
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0 + seconds * 1000)
    }

    /// Whole seconds from `earlier` to this instant.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0) / 1000
    }

    /// Reads what [`Self::rfc3339`] writes, and any other such time.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Some(Self((time.unix_timestamp_nanos() / 1_000_000) as i64))
    }

    /// `2026-01-02T03:04:05Z`, the form that Atlas uses: seconds, UTC.
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000))
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_with_seconds_and_in_utc() {
        assert_eq!(Timestamp(1_767_323_045_999).rfc3339(), "2026-01-02T03:04:05Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-01-02T03:04:05Z"), Some(Timestamp(1_767_323_045_000)));
        assert_eq!(Timestamp::parse_rfc3339("tomorrow"), None);
    }
}
