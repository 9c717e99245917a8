//! Why a command ended, and with which exit status.

use limosa_agent::{AgentError, http::HttpError};
use limosa_model::Finding;
use limosa_server::{NotifyError, ServerError};
use std::path::PathBuf;

/// Anything but success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Refused before anything was written.
    #[error("refused")]
    Refused(Vec<Finding>),
    /// Two clusters don't hold the same.
    #[error("source and destination are different in {0} of {1} namespaces")]
    Different(usize, usize),
    /// The migration failed.
    #[error("{code}: {message}\n{remedy}")]
    Failed {
        /// An error code's name.
        code: String,
        /// What happened.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// Nobody cut over in time.
    #[error(
        "the migration expired: nobody cut over in time; nothing was deleted. To begin again, use another --state-dir and --drop-destination-data"
    )]
    Expired,
    /// Given up by the user.
    #[error("the migration was cancelled; use another --state-dir to begin again")]
    Cancelled,
    /// Ctrl-C or SIGTERM.
    #[error("interrupted; run the same command again and it continues where it was")]
    Interrupted,
    /// Another process is at it.
    #[error("{0} is in use by another limosa; wait for it, or choose another directory")]
    InUse(PathBuf),
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// Nothing can be compared without files of one's own.
    #[error("{0}: {1}; set TMPDIR to a directory in which this user may write")]
    WorkDir(PathBuf, #[source] std::io::Error),
    /// A profile that can't be used.
    #[error("{0}: {1}; name the profile.toml that 'limosa migrate' or 'limosa server' wrote with --profile")]
    Profile(PathBuf, String),
    /// A wrong argument that only the command itself can see.
    #[error("{0}")]
    Usage(String),
    /// Someone can't be told.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The control plane.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The migration host.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The migration host within this process, for no reason that it gives.
    #[error("the agent ended unexpectedly; limosa.log in the state directory says why")]
    AgentEnded,
    /// The API refused or didn't answer.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl CliError {
    /// The process's exit status.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Notify(NotifyError::File(..) | NotifyError::Setting(_)) => 2,
            Self::Refused(_) | Self::Usage(_) | Self::InUse(_) | Self::Profile(..) | Self::WorkDir(..) => 2,
            Self::Server(ServerError::PublicUrl(_)) => 2,
            Self::Expired => 3,
            Self::Interrupted => 130,
            Self::Agent(
                AgentError::MalformedToken | AgentError::Tuning(_) | AgentError::Http(HttpError::Insecure(_)),
            ) => 2,
            Self::Different(..)
            | Self::Failed { .. }
            | Self::Cancelled
            | Self::File(..)
            | Self::Notify(_)
            | Self::Server(_)
            | Self::Agent(_)
            | Self::AgentEnded
            | Self::Http(_) => 1,
        }
    }
}
