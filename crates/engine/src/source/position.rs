//! Where a migration is in the stream of changes.

use bson::Document;

/// A place in the stream: everything before it is applied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Position {
    /// Resume token, or nothing at T0.
    pub token: Option<Document>,
    /// The spool in which `seq` counts.
    pub spool: String,
    /// The batch to continue with.
    pub seq: u64,
    /// The event in that batch to continue with.
    pub index: u64,
}
