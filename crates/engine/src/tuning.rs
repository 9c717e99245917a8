//! What can be set of an engine, each with the reason of its default. Nothing here changes what a migration does, only
//! how fast, how much of the host it takes, and how long it waits.

use mongodb::options::{ReadPreference, SelectionCriteria};
use std::time::Duration;

/// Parts of collections copied side by side; more than the destination's cores gains nothing (measured).
pub const COPY_WORKERS: usize = 2;

/// Bytes of changes that may wait on this host's disk: enough for a day of 700 kB/s, and small beside the disks of hosts
/// that move terabytes.
pub const SPOOL_DISK_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// Bytes of changes that may wait in memory, where they needn't go through the disk: two of the largest replies.
pub const SPOOL_MEMORY_BYTES: usize = 32 * 1024 * 1024;

/// How long a cause is waited out that someone may fix: a full day, so that a night and a morning are enough.
pub const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How often the source's oplog is looked at: its window moves by minutes, and looking costs two reads.
pub const OPLOG_LOOK_EVERY: Duration = Duration::from_secs(10);

/// Which member of the source documents are read from: by the copy, the verifier, and where a change doesn't say all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The primary: no member lags behind it.
    #[default]
    Primary,
    /// A secondary, to spare the primary; the primary if there is none.
    Secondary,
}

impl ReadFrom {
    pub(crate) fn criteria(self) -> SelectionCriteria {
        SelectionCriteria::ReadPreference(match self {
            Self::Primary => ReadPreference::Primary,
            Self::Secondary => ReadPreference::SecondaryPreferred { options: None },
        })
    }
}

/// How an engine is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// See [`COPY_WORKERS`].
    pub copy_workers: usize,
    /// Which member of the source documents are read from; at a cutover it is always the primary.
    pub copy_reads: ReadFrom,
    /// See [`SPOOL_DISK_BYTES`]; at this many the reading of the source pauses until the destination has caught up.
    pub spool_disk_bytes: u64,
    /// See [`SPOOL_MEMORY_BYTES`].
    pub spool_memory_bytes: usize,
    /// See [`PATIENCE`]; afterwards the migration has failed, with everything kept for a later resume.
    pub patience: Duration,
    /// See [`OPLOG_LOOK_EVERY`].
    pub oplog_look_every: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            copy_workers: COPY_WORKERS,
            copy_reads: ReadFrom::default(),
            spool_disk_bytes: SPOOL_DISK_BYTES,
            spool_memory_bytes: SPOOL_MEMORY_BYTES,
            patience: PATIENCE,
            oplog_look_every: OPLOG_LOOK_EVERY,
        }
    }
}

impl Tuning {
    /// Whether an engine can run with it; an error names the setting and its bounds.
    pub fn validate(&self) -> Result<(), String> {
        let bounds = [
            ("copy workers", self.copy_workers as u64, 1, 64),
            ("the spool's bytes on disk", self.spool_disk_bytes, 16 * 1024 * 1024, u64::MAX),
            ("the spool's bytes in memory", self.spool_memory_bytes as u64, 1024 * 1024, 64 * 1024 * 1024 * 1024),
            ("the patience in seconds", self.patience.as_secs(), 1, 366 * 24 * 3600),
            ("seconds between two looks at the oplog", self.oplog_look_every.as_secs(), 1, 3600),
        ];
        match bounds.into_iter().find(|(_, value, least, most)| value < least || value > most) {
            None => Ok(()),
            Some((name, value, least, u64::MAX)) => Err(format!("{name}: {value} is less than {least}")),
            Some((name, value, least, most)) => Err(format!("{name}: {value} is not within {least} to {most}")),
        }
    }
}

/// Collections that are asked about at once: the application waits at the cutover, and there may be thousands.
pub(crate) const CATALOG_CONCURRENCY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_a_wrong_setting_is_named() {
        assert_eq!(Tuning::default().validate(), Ok(()));
        let none = Tuning { copy_workers: 0, ..Tuning::default() };
        assert_eq!(none.validate(), Err("copy workers: 0 is not within 1 to 64".to_owned()));
        let small = Tuning { spool_disk_bytes: 1, ..Tuning::default() };
        assert!(small.validate().is_err_and(|e| e.contains("on disk: 1 is less than")));
    }
}
