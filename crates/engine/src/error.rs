//! From a driver's error to a [`Failure`], and which errors are worth another try.

use crate::{cluster::Side, retry};
use bson::Document;
use limosa_model::{ErrorCode, Failure};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use std::fmt;

/// The server's error code, if a server answered at all. The driver puts it in different places for a command that
/// failed, a write that was refused, and a write whose concern wasn't met.
pub(crate) fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(e)) => Some(e.code),
        ErrorKind::Write(WriteFailure::WriteError(e)) => Some(e.code),
        ErrorKind::InsertMany(many) => {
            let write = many.write_errors.iter().flatten().map(|e| e.code).next();
            write.or_else(|| many.write_concern_error.as_ref().map(|e| e.code))
        }
        ErrorKind::BulkWrite(bulk) => {
            let write = bulk.write_errors.values().map(|e| e.code).next();
            write.or_else(|| bulk.write_concern_errors.first().map(|e| e.code))
        }
        ErrorKind::Custom(own) => own.downcast_ref::<Unconfirmed>().map(|e| e.code),
        _ => None,
    }
}

/// Namespace not found, index not found, collection gone in the middle of a plan, or a view has taken its name.
pub(crate) fn is_gone(error: &Error) -> bool {
    // 40280: `$collStats` of a collection that isn't there, before 6.0. 166: CommandNotSupportedOnView.
    matches!(code(error), Some(26 | 27 | 166 | 175 | 361 | 40280))
}

/// A write that was carried out without becoming what its write concern asks for: it may be rolled back.
#[derive(Debug)]
struct Unconfirmed {
    code: i32,
    message: String,
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a write was not confirmed: {} (code {})", self.message, self.code)
    }
}

/// The reply to a command as the driver hands it on doesn't tell that its write concern wasn't met: this does.
pub(crate) fn confirmed(reply: Document) -> Result<Document, Error> {
    let Ok(unmet) = reply.get_document("writeConcernError") else { return Ok(reply) };
    let message = unmet.get_str("errmsg").unwrap_or("no reason given").to_owned();
    Err(Error::custom(Unconfirmed { code: unmet.get_i32("code").unwrap_or(64), message }))
}

/// Whether it passes by itself.
pub(crate) fn is_transient(error: &Error) -> bool {
    if ["TransientTransactionError", "RetryableWriteError", "UnknownTransactionCommitResult"]
        .iter()
        .any(|label| error.contains_label(label))
    {
        return true;
    }
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. } => true,
        _ => code(error).is_some_and(retry::passes_by_itself),
    }
}

/// What a server's error code is to the one who runs the migration; `None` for those without a page of their own.
fn meaning(side: Side, code: i32) -> Option<ErrorCode> {
    match code {
        // ChangeStreamHistoryLost, CappedPositionLost, ChangeStreamFatalError
        286 | 136 | 280 => Some(ErrorCode::HistoryLost),
        10334 | 7_182_500 => Some(ErrorCode::OversizedEvent),
        13 => Some(ErrorCode::InsufficientPrivileges),
        18 => Some(side.authentication_failed()),
        // CollectionUUIDMismatch: a definition was for a collection that isn't where it was noted.
        361 if side == Side::Destination => Some(ErrorCode::CollectionLost),
        // OutOfDiskSpace, UserWritesBlocked
        14031 | 371 if side == Side::Destination => Some(ErrorCode::DestinationNotWritable),
        _ => None,
    }
}

/// What to tell of an error that ended the migration.
pub(crate) fn failure(side: Side, error: &Error) -> Failure {
    let code = match code(error).and_then(|code| meaning(side, code)) {
        Some(code) => code,
        None if is_transient(error) => side.unreachable(),
        None => match error.kind.as_ref() {
            ErrorKind::Authentication { .. } => side.authentication_failed(),
            _ => ErrorCode::ServerError,
        },
    };
    match error.kind.as_ref() {
        ErrorKind::Custom(own) if own.is::<Unconfirmed>() => {
            let unmet = own.downcast_ref::<Unconfirmed>().map(ToString::to_string).unwrap_or_default();
            Failure::new(code, format!("{side}: {unmet}"))
        }
        _ => Failure::new(code, format!("{side}: {}", error.kind)),
    }
}

/// The same for one write that the destination refused with `code`.
pub(crate) fn refused(code: i32, message: String) -> Failure {
    let code = match meaning(Side::Destination, code) {
        Some(code) => code,
        None if retry::passes_by_itself(code) => ErrorCode::DestinationUnreachable,
        None => ErrorCode::ServerError,
    };
    Failure::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn a_write_that_was_interrupted_before_its_majority_is_tried_again() {
        let unmet =
            doc! {"ok": 1, "n": 1, "writeConcernError": {"code": 11601, "codeName": "Interrupted", "errmsg": "killed"}};
        let error = confirmed(unmet).expect_err("isn't confirmed");
        assert_eq!((code(&error), is_transient(&error)), (Some(11601), true));
        let told = failure(Side::Destination, &error);
        assert_eq!(told.message, "destination: a write was not confirmed: killed (code 11601)");
        assert!(confirmed(doc! {"ok": 1, "n": 1}).is_ok());
    }

    #[test]
    fn the_code_is_found_where_the_driver_puts_it_for_a_commit() {
        let unmet = doc! {"code": 11601, "codeName": "Interrupted", "errmsg": "operation was interrupted"};
        let unmet: mongodb::error::WriteConcernError = bson::deserialize_from_document(unmet).expect("is one");
        let error = Error::from(ErrorKind::Write(WriteFailure::WriteConcernError(unmet)));
        assert_eq!((code(&error), is_transient(&error)), (Some(11601), true));
    }
}
