//! The two ends of a migration, and the code that each failure has at either.

use limosa_model::ErrorCode;
use std::fmt;

/// Which end of the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

impl Side {
    /// No server of it answers.
    pub fn unreachable(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceUnreachable,
            Self::Destination => ErrorCode::DestinationUnreachable,
        }
    }

    /// It refuses the credentials.
    pub fn authentication_failed(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceAuthenticationFailed,
            Self::Destination => ErrorCode::DestinationAuthenticationFailed,
        }
    }

    /// A server that isn't a writable primary.
    pub fn not_primary(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceNotPrimary,
            Self::Destination => ErrorCode::DestinationNotPrimary,
        }
    }

    /// A server that belongs to no replica set.
    pub fn standalone(self) -> ErrorCode {
        match self {
            Self::Source => ErrorCode::SourceStandalone,
            Self::Destination => ErrorCode::DestinationStandalone,
        }
    }
}
