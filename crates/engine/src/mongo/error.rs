//! From a driver's error to a [`Failure`], and which errors are worth another try.

use crate::mongo::{codes, side::Side};
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

/// Whether the collection, or the index, is gone.
pub(crate) fn is_gone(error: &Error) -> bool {
    code(error).is_some_and(codes::is_gone)
}

/// Whether the server's reply came and can't be read, since it quotes text that isn't UTF-8.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_))
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
    Err(Error::custom(Unconfirmed { code: unmet.get_i32("code").unwrap_or(codes::WRITE_CONCERN_FAILED), message }))
}

/// Whether it is transient: the same try may succeed later with no one doing anything.
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
        _ => code(error).is_some_and(codes::is_transient),
    }
}

/// Whether no server could be spoken to at all.
pub(crate) fn is_connecting(error: &Error) -> bool {
    matches!(
        error.kind.as_ref(),
        ErrorKind::ServerSelection { .. }
            | ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
    )
}

/// Whether the server isn't the primary, or isn't any more.
pub(crate) fn is_not_primary(error: &Error) -> bool {
    code(error).is_some_and(codes::is_not_primary)
}

/// Whether the driver refuses what it was given.
pub(crate) fn is_invalid_argument(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::InvalidArgument { .. })
}

/// What a server's error code is to the one who runs the migration; `None` for those without a page of their own.
fn meaning(side: Side, code: i32) -> Option<ErrorCode> {
    let on_destination = side == Side::Destination;
    match code {
        code if codes::is_history_lost(code) => Some(ErrorCode::HistoryLost),
        code if codes::is_event_too_large(code) => Some(ErrorCode::OversizedEvent),
        codes::UNAUTHORIZED => Some(ErrorCode::InsufficientPrivileges),
        codes::AUTHENTICATION_FAILED => Some(side.authentication_failed()),
        // A definition was for a collection that isn't where it was noted.
        codes::COLLECTION_UUID_MISMATCH if on_destination => Some(ErrorCode::CollectionLost),
        codes::OUT_OF_DISK_SPACE | codes::USER_WRITES_BLOCKED | codes::ATLAS_ERROR if on_destination => {
            Some(ErrorCode::DestinationNotWritable)
        }
        codes::DATABASE_DIFFER_CASE => Some(ErrorCode::NamesDifferInCase),
        codes::NAMESPACE_EXISTS if on_destination => Some(ErrorCode::DestinationNotEmpty),
        codes::ILLEGAL_OPERATION if on_destination => Some(ErrorCode::UnsupportedCollection),
        codes::INVALID_OPTIONS => Some(ErrorCode::UnsupportedVersion),
        _ => None,
    }
}

/// What a code means, where the server's own words don't say what to do.
fn hint(code: i32) -> Option<&'static str> {
    Some(match code {
        codes::INVALID_OPTIONS => {
            "the server doesn't take an option, mostly because its featureCompatibilityVersion is lower than its version"
        }
        codes::NAMESPACE_EXISTS => "another collection or view has the name already",
        codes::ILLEGAL_OPERATION => "this kind of collection doesn't take the operation",
        codes::DATABASE_DIFFER_CASE => "a database whose name differs only in case is there already",
        codes::ATLAS_ERROR => "a limit of the service was reached, mostly its storage quota",
        codes::SAMPLE_FOUND_NOTHING => "the server's random sample failed by chance",
        codes::COLLECTION_UUID_MISMATCH => "the collection has another name by now",
        code if codes::is_time_limit(code) => "the server ended it for the time it took",
        _ => return None,
    })
}

fn with_code(code: i32, name: &str, message: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!(", {name}") };
    let hint = hint(code).map_or(String::new(), |hint| format!("; {hint}"));
    format!("{message} (code {code}{name}){hint}")
}

/// What happened, in words for a user: the server's own, without how the driver keeps them.
pub(crate) fn words(error: &Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => with_code(command.code, &command.code_name, &command.message),
        ErrorKind::Write(WriteFailure::WriteConcernError(e)) => with_code(e.code, &e.code_name, &e.message),
        ErrorKind::Write(WriteFailure::WriteError(e)) => with_code(e.code, "", &e.message),
        ErrorKind::Io(io) => io_words(io),
        ErrorKind::ServerSelection { message, .. } => selection_words(message),
        ErrorKind::ConnectionPoolCleared { message, .. } => cleared_words(message),
        ErrorKind::DnsResolve { .. } => "the host's name can't be resolved".to_owned(),
        ErrorKind::Authentication { .. } => "the server refused the credentials".to_owned(),
        ErrorKind::InvalidTlsConfig { .. } => "the files for TLS that the URI names can't be used".to_owned(),
        ErrorKind::Custom(own) => match (own.downcast_ref::<Unconfirmed>(), own.downcast_ref::<String>()) {
            (Some(unmet), _) => unmet.to_string(),
            (_, Some(own)) => own.clone(),
            _ => "an answer can't be read".to_owned(),
        },
        ErrorKind::InvalidResponse { .. } | ErrorKind::BsonDeserialization(_) => {
            "the server's answer can't be read".to_owned()
        }
        _ => code(error).map_or_else(
            || "the driver refused the operation".to_owned(),
            |code| with_code(code, "", "the server refused the operation"),
        ),
    }
}

fn io_words(io: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    match io.kind() {
        Kind::ConnectionRefused => "the connection was refused".to_owned(),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            "the connection was closed".to_owned()
        }
        // Its own words name the call, where there are any.
        Kind::TimedOut if io.get_ref().is_some() => io.to_string(),
        Kind::TimedOut => "no answer in time".to_owned(),
        Kind::HostUnreachable | Kind::NetworkUnreachable => "there is no way to it in the network".to_owned(),
        _ => text_words(&io.to_string()).to_owned(),
    }
}

/// What a piece of the driver's own text is about.
fn text_words(text: &str) -> &'static str {
    let text = text.to_lowercase();
    let is = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    match () {
        () if is(&["refused"]) => "the connection was refused",
        () if is(&["lookup", "resolve", "name or service", "dns"]) => "the host's name can't be resolved",
        () if is(&["certificate"]) && is(&["expired"]) => "TLS failed: the server's certificate has expired",
        () if is(&["certificate"]) && is(&["notvalidyet", "not valid yet"]) => {
            "TLS failed: the server's certificate isn't valid yet"
        }
        () if is(&["unknownissuer", "unknown issuer"]) => {
            "TLS failed: no authority that is trusted here has signed the server's certificate; name its file by tlsCAFile"
        }
        () if is(&["notvalidforname", "not valid for name"]) => {
            "TLS failed: the server's certificate is for another name than the URI has"
        }
        () if is(&["certificate", "tls", "handshake", "corrupt message", "invalidcontenttype"]) => {
            "TLS failed: the URI's TLS options and the server's certificate don't fit"
        }
        () if is(&["timed out", "timeout"]) => "no answer in time",
        () if is(&["reset", "eof", "closed", "broken pipe", "end of file"]) => "the connection was closed",
        () if is(&["authentication", "scram"]) => "the server refused the credentials",
        () if is(&["unreachable"]) => "there is no way to it in the network",
        () => "it can't be reached",
    }
}

/// The servers that a message of the driver lists, each with what is the matter.
fn selection_words(message: &str) -> String {
    let servers = message.split("Address: ").skip(1).filter_map(|server| {
        let (address, rest) = server.split_once(", Type: ")?;
        let what = match rest.split_once("Error: ") {
            Some((_, error)) => text_words(error),
            None => match rest.split([',', ' ']).next().unwrap_or_default() {
                "RsSecondary" => "a secondary",
                "RsArbiter" => "an arbiter",
                "Unknown" => "not known yet",
                _ => "not the primary",
            },
        };
        Some(format!("{address}: {what}"))
    });
    match servers.collect::<Vec<_>>() {
        servers if servers.is_empty() => "no server of the replica set answers".to_owned(),
        servers => format!("no primary can be reached ({})", servers.join("; ")),
    }
}

fn cleared_words(message: &str) -> String {
    let address =
        message.split("pool for ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("a server");
    format!("{address}: {}", text_words(message))
}

/// Another agent has taken the migration over.
#[derive(Debug)]
pub(crate) struct Fenced;

impl Fenced {
    pub fn failure(&self) -> Failure {
        Failure::new(ErrorCode::Fenced, "another agent has taken this migration over")
    }
}

/// What a server can do isn't what it was.
#[derive(Debug)]
pub(crate) struct Changed {
    pub side: Side,
    pub from: (u32, u32),
    pub to: (u32, u32),
}

impl Changed {
    pub fn failure(&self) -> Failure {
        let show = |release: (u32, u32)| format!("{}.{}", release.0, release.1);
        let message = format!(
            "{}: the featureCompatibilityVersion went from {} to {} while the migration ran",
            self.side,
            show(self.from),
            show(self.to)
        );
        Failure::new(limosa_model::ErrorCode::CompatibilityChanged, message)
    }
}

/// What to tell of an error that ended the migration.
pub(crate) fn failure(side: Side, error: &Error) -> Failure {
    if let ErrorKind::Custom(own) = error.kind.as_ref() {
        if let Some(changed) = own.downcast_ref::<Changed>() {
            return changed.failure();
        }
        if let Some(fenced) = own.downcast_ref::<Fenced>() {
            return fenced.failure();
        }
    }
    let code = match code(error).and_then(|code| meaning(side, code)) {
        Some(code) => code,
        None if is_refused_credentials(error) => side.authentication_failed(),
        None if is_transient(error) => side.unreachable(),
        None => ErrorCode::ServerError,
    };
    Failure::new(code, format!("{side}: {}", words(error)))
}

fn is_refused_credentials(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Authentication { .. })
}

/// The same for one write that the destination refused with `code`.
pub(crate) fn refused(code: i32, mut message: String) -> Failure {
    let meant = match meaning(Side::Destination, code) {
        Some(code) => code,
        None if codes::is_transient(code) => ErrorCode::DestinationUnreachable,
        None => ErrorCode::ServerError,
    };
    if let Some(hint) = hint(code) {
        message.push_str("; ");
        message.push_str(hint);
    }
    Failure::new(meant, message)
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

    fn command(code: i32, name: &str, message: &str) -> Error {
        let reply = doc! {"code": code, "codeName": name, "errmsg": message};
        Error::from(ErrorKind::Command(bson::deserialize_from_document(reply).expect("is one")))
    }

    #[test]
    fn codes_of_the_server_are_told_by_what_they_mean() {
        for (side, code, meant) in [
            (Side::Destination, 13297, ErrorCode::NamesDifferInCase),
            (Side::Destination, 48, ErrorCode::DestinationNotEmpty),
            (Side::Destination, 20, ErrorCode::UnsupportedCollection),
            (Side::Destination, 8000, ErrorCode::DestinationNotWritable),
            (Side::Source, 8000, ErrorCode::ServerError),
            (Side::Source, 72, ErrorCode::UnsupportedVersion),
            (Side::Source, 28799, ErrorCode::SourceUnreachable),
            (Side::Source, 50, ErrorCode::SourceUnreachable),
            (Side::Source, 262, ErrorCode::SourceUnreachable),
        ] {
            let error = command(code, "Name", "words of the server");
            let told = failure(side, &error);
            assert_eq!(told.code, meant, "{code}: {told}");
            assert!(told.message.starts_with(&format!("{side}: words of the server (code {code}, Name); ")), "{told}");
            let refused = refused(code, "words".to_owned());
            assert!(
                side == Side::Source || refused.code == meant && refused.message.starts_with("words; "),
                "{refused}"
            );
        }
        assert!(is_gone(&command(361, "CollectionUUIDMismatch", "")));
        assert!(is_transient(&command(28799, "", "")));
    }

    #[test]
    fn what_the_driver_lists_becomes_a_sentence() {
        let message = "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs, \
                       Servers: [ { Address: a:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), \
                       labels: {} }, { Address: b:2, Type: RsSecondary, Average RTT: 1ms }, { Address: c.invalid:3, Type: \
                       Unknown, Error: Kind: I/O error: failed to lookup address information: Name or service not known } ] }";
        let told = "no primary can be reached (a:1: the connection was refused; b:2: a secondary; c.invalid:3: the \
                    host's name can't be resolved)";
        assert_eq!(selection_words(message), told);
    }

    #[test]
    fn the_code_is_found_where_the_driver_puts_it_for_a_commit() {
        let unmet = doc! {"code": 11601, "codeName": "Interrupted", "errmsg": "operation was interrupted"};
        let unmet: mongodb::error::WriteConcernError = bson::deserialize_from_document(unmet).expect("is one");
        let error = Error::from(ErrorKind::Write(WriteFailure::WriteConcernError(unmet)));
        assert_eq!((code(&error), is_transient(&error)), (Some(11601), true));
    }
}
