//! What can fail on its own while a migration runs.

/// What can fail on its own while the rest continues. Where several do, the first of this list is told: what is behind it
/// in the list may only be its consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// The source, asked every half second whether it answers.
    Source,
    /// The destination, asked the same.
    Destination,
    /// Everything that writes to the destination.
    Applier,
    /// The source's change stream into the spool.
    Reader,
    /// Calls to the source that are under way.
    SourceCalls,
    /// Calls to the destination that are under way.
    DestinationCalls,
    /// The source's majority, without which no change stream shows a write.
    Majority,
    /// The speed at which the destination follows.
    Pace,
    /// The verifier's passes over everything.
    Scan,
    /// The verifier's looks at documents that were changed.
    Look,
}

/// How many there are.
pub(crate) const PARTS: usize = Component::Look as usize + 1;
