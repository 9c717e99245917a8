//! What a server can do, by its release: one question for each difference that Limosa knows. No other file compares
//! versions.
//!
//! Most questions are of the feature compatibility version: it decides which options of a command a server takes, which
//! events it shows and what it does to data on its own. It is lower than the program's version while an upgrade isn't
//! finished. Some are of the program alone, since they came with a patch release.

use crate::mongo::calls::Release;

/// Major, minor, patch of the server's program.
pub(crate) type Version = (u32, u32, u32);

/// The oldest release that Limosa migrates.
const OLDEST: Version = (4, 4, 0);

/// The newest major release that Limosa is tested with.
const NEWEST_MAJOR: u32 = 8;

/// A server's release, for the questions below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// The program's version.
    pub version: Version,
    /// The feature compatibility version; never above the program's.
    pub level: Release,
}

impl Capabilities {
    /// 6.0: `showExpandedEvents` and `showSystemEvents`. Events have the collection's UUID and its options, and there are
    /// events of DDL. Before, a collection is known by its name alone, so that what an event says may be of another one that
    /// had the name.
    pub fn show_expanded_events(self) -> bool {
        self.level >= (6, 0)
    }

    /// 6.0, with the same options: writes to a time-series collection are in the stream, as those to its buckets. Before,
    /// they are found only by comparing.
    pub fn show_time_series_events(self) -> bool {
        self.level >= (6, 0)
    }

    /// 6.0.9: `$changeStreamSplitLargeEvent`, which came to 6.0 with a patch.
    pub fn split_large_events(self) -> bool {
        self.level >= (6, 0) && self.version >= (6, 0, 9)
    }

    /// 6.0: `collectionUUID`. Reads and definitions can hold to a collection instead of a name.
    pub fn check_uuid(self) -> bool {
        self.level >= (6, 0)
    }

    /// 6.0: `setUserWriteBlockMode`.
    pub fn block_user_writes(self) -> bool {
        self.level >= (6, 0)
    }

    /// 5.0: deletions from a full capped collection are replicated. Before, each member deletes the oldest documents in its
    /// own time, and there is no event of it.
    pub fn replicate_capped_deletions(self) -> bool {
        self.level >= (5, 0)
    }

    /// 6.0: `collMod` with `prepareUnique` and `unique`. Before, a unique index has to be built as one.
    pub fn make_an_index_unique(self) -> bool {
        self.level >= (6, 0)
    }

    /// 5.1: `collMod` gives an expiry to an index that has none. Before, it only changes one.
    pub fn give_an_index_an_expiry(self) -> bool {
        self.level >= (5, 1)
    }

    /// 5.0.14 and 6.0.2: an expiry up to 68 years. Measured: 4.4.2 and 5.0.4 refuse one that is longer than the time since
    /// 1970, 6.0.5 takes 68 years. The releases that read NaN as 68 years (5.0.14, 6.0.2) take them too.
    pub fn take_any_expiry(self) -> bool {
        self.version >= (6, 0, 2) || ((5, 0, 14)..(5, 1, 0)).contains(&self.version)
    }

    /// Until 4.4: geoHaystack indexes. 5.0 removed them.
    pub fn build_geo_haystack(self) -> bool {
        self.version < (5, 0, 0)
    }

    /// Until 8.0 all options of indexes are known to Limosa. A later release may take others.
    pub fn have_only_known_index_options(self) -> bool {
        self.version < (8, 1, 0)
    }

    /// Until 8.x: a time-series collection has a collection of its buckets, which can be read and written. 9.0 has none.
    pub fn have_bucket_collections(self) -> bool {
        self.version < (9, 0, 0)
    }

    /// An option of collections that came with one release, and that a later one may have removed.
    pub fn take_option(self, from: Release, until: Option<Release>) -> bool {
        from <= self.level && until.is_none_or(|until| self.level < until)
    }

    /// Old enough for Limosa not to know it.
    pub fn is_too_old(self) -> bool {
        self.version < OLDEST
    }

    /// Newer than what Limosa is tested with.
    pub fn is_untested(self) -> bool {
        self.version.0 > NEWEST_MAJOR
    }

    /// Of an earlier release than `other`, by the program. A patch makes none.
    pub fn is_older_than(self, other: Self) -> bool {
        self.release() < other.release()
    }

    /// Whether its feature compatibility version allows less than `other`'s.
    pub fn allow_less_than(self, other: Self) -> bool {
        self.level < other.level
    }

    /// Whether an upgrade isn't finished: the feature compatibility version is behind the program.
    pub fn is_upgrading(self) -> bool {
        self.level < self.release()
    }

    /// Major and minor of the program.
    pub fn release(self) -> Release {
        (self.version.0, self.version.1)
    }

    /// A server whose upgrade is finished.
    #[cfg(test)]
    pub fn of(version: Version) -> Self {
        Self { version, level: (version.0, version.1) }
    }
}
