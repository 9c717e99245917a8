//! How hard a migration goes, and how its engine is set.

use super::parse::{bytes, seconds};
use clap::{Args, ValueEnum};
use limosa_engine::{Tuning, tuning};
use limosa_model::Limits;
use std::time::Duration;

/// How much a migration may take of its clusters.
#[derive(Args, Clone, Copy)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// How hard the copy goes: 1 is the kindest, 3 as usual, 5 takes all that the clusters give
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub load_level: Option<u8>,
    /// Megabits a second that may be read from the source; 0: no bound
    #[arg(long, value_name = "MBPS")]
    pub max_source_read_mbps: Option<u32>,
    /// Megabits a second that may be written to the destination; 0: no bound
    #[arg(long, value_name = "MBPS")]
    pub max_destination_write_mbps: Option<u32>,
}

impl LimitArgs {
    /// `held` with what was given changed; `None` when nothing was given.
    pub fn change(self, held: Limits) -> Option<Limits> {
        let Self { load_level, max_source_read_mbps: read, max_destination_write_mbps: write } = self;
        let bound = |given: Option<u32>, held| given.map_or(held, |mbps| Some(mbps).filter(|mbps| *mbps > 0));
        let any = load_level.is_some() || read.is_some() || write.is_some();
        any.then(|| Limits {
            load_level: load_level.and_then(|level| level.try_into().ok()).unwrap_or(held.load_level),
            max_source_read_mbps: bound(read, held.max_source_read_mbps),
            max_destination_write_mbps: bound(write, held.max_destination_write_mbps),
        })
    }
}

/// Which member of the source the copy reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CopyReads {
    /// No member lags behind it
    Primary,
    /// Spares the primary; the primary if there is no secondary
    Secondary,
}

/// How an engine is set.
#[derive(Args)]
#[command(next_help_heading = "Tuning")]
pub(crate) struct TuningArgs {
    /// Parts of collections copied in parallel; about as many as the destination has cores
    #[arg(long, value_name = "N", default_value_t = tuning::COPY_WORKERS)]
    copy_workers: usize,
    /// Which member of the source the copy and the verifier read from; changes are read from a majority of it in any case
    #[arg(long, value_enum, default_value = "primary")]
    copy_reads: CopyReads,
    /// How much of this host's disk may be taken by changes that wait to be applied, or to be verified: 500MiB, 64GiB
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = bytes)]
    spool_limit: u64,
    /// How long to retry a cause that an operator can fix before the migration fails: 30s, 90m, 24h
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
    patience: i64,
}

impl TuningArgs {
    pub fn tuning(&self) -> Tuning {
        Tuning {
            copy_workers: self.copy_workers,
            copy_reads: match self.copy_reads {
                CopyReads::Primary => tuning::ReadFrom::Primary,
                CopyReads::Secondary => tuning::ReadFrom::Secondary,
            },
            spool_disk_bytes: self.spool_limit,
            patience: Duration::from_secs(self.patience.unsigned_abs()),
            ..Tuning::default()
        }
    }
}
