//! From a driver's error to a [`Failure`], and which errors are worth another try.

use crate::cluster::Side;
use limosa_model::{ErrorCode, Failure};
use mongodb::error::{Error, ErrorKind};

/// The server's error code, if a server answered at all.
pub(crate) fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Namespace not found, index not found, collection gone in the middle of a plan.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(code(error), Some(26 | 27 | 175 | 361))
}

/// Network trouble, elections, shutdowns: what passes by itself.
pub(crate) fn is_transient(error: &Error) -> bool {
    if error.contains_label("TransientTransactionError") || error.contains_label("RetryableWriteError") {
        return true;
    }
    match error.kind.as_ref() {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::ServerSelection { .. } => true,
        ErrorKind::Command(command) => matches!(
            command.code,
            6 | 7
                | 43
                | 50
                | 64
                | 89
                | 91
                | 112
                | 133
                | 189
                | 202
                | 216
                | 234
                | 237
                | 246
                | 251
                | 262
                | 290
                | 365
                | 9001
                | 10058
                | 10107
                | 11600
                | 11602
                | 13388
                | 13435
                | 13436
        ),
        _ => false,
    }
}

/// What to tell of an error that ended the migration.
pub(crate) fn failure(side: Side, error: &Error) -> Failure {
    let code = match code(error) {
        Some(286 | 136) => ErrorCode::HistoryLost,
        Some(10334) => ErrorCode::OversizedEvent,
        Some(13) => ErrorCode::InsufficientPrivileges,
        Some(18) => side.authentication_failed(),
        _ => match error.kind.as_ref() {
            ErrorKind::Authentication { .. } => side.authentication_failed(),
            ErrorKind::ServerSelection { .. } => side.unreachable(),
            _ => ErrorCode::ServerError,
        },
    };
    Failure::new(code, format!("{side}: {error}"))
}
