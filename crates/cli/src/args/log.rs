//! How to log.

use clap::{Args, ValueEnum};

/// What a log's lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// An object a line: timestamp, level, target, message and what belongs to it
    Json,
}

/// How to log.
#[derive(Args)]
pub(crate) struct LogArgs {
    /// What the log's lines look like; LIMOSA_LOG says what is logged
    #[arg(long, value_enum, value_name = "FORMAT", env = "LIMOSA_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}
