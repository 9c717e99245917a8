//! Every code by which a migration, a preflight or a command can fail, with what to do about it.

use serde::{Deserialize, Serialize};

/// What the engine does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// It tries again in place for seconds. What lasts longer waits for the operator.
    Retry,
    /// It waits for the operator, and continues automatically once the cause is fixed.
    Wait,
    /// What met it ends: the run, the cutover or the preflight. Everything is kept for the operator's next command.
    Fail,
    /// It continues, or begins again from the checkpoint, without anyone's doing.
    Continue,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $policy:ident, $remedy:literal;)*) => {
        /// Why something failed. The name is what machines compare.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire, in reports and in `docs/errors/`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            fn policy(self) -> Policy {
                match self { $(Self::$variant => Policy::$policy),* }
            }

            /// Its page of the documentation, in Markdown.
            pub fn page(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/", $name, ".md"))),*
                }
            }

            /// What the operator can do.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),* }
            }
        }
    };
}

codes! {
    /// A URI can't be parsed.
    MalformedUri = "MALFORMED_URI", Fail, "Write it as mongodb://[user:password@]host:port[,…]/?options, with special characters in the password percent-encoded.";
    /// No server answered at the source's address.
    SourceUnreachable = "SOURCE_UNREACHABLE", Retry, "Check host, port, firewall and TLS options of the source URI from this machine.";
    /// No server answered at the destination's address.
    DestinationUnreachable = "DESTINATION_UNREACHABLE", Retry, "Check host, port, firewall and TLS options of the destination URI from this machine.";
    /// The source refused the credentials.
    SourceAuthenticationFailed = "SOURCE_AUTHENTICATION_FAILED", Wait, "Check user, password and authSource of the source URI; a migration that runs continues automatically once it may sign in.";
    /// The destination refused the credentials.
    DestinationAuthenticationFailed = "DESTINATION_AUTHENTICATION_FAILED", Wait, "Check user, password and authSource of the destination URI; a migration that runs continues automatically once it may sign in.";
    /// The source has no oplog.
    SourceStandalone = "SOURCE_STANDALONE", Fail, "Restart the source with --replSet and run rs.initiate(): a replica set of one member is enough.";
    /// The destination has no transactions.
    DestinationStandalone = "DESTINATION_STANDALONE", Fail, "Restart the destination with --replSet and run rs.initiate(): a replica set of one member is enough.";
    /// The source's server isn't a writable primary, or can't prove that it is.
    SourceNotPrimary = "SOURCE_NOT_PRIMARY", Retry, "Name all members of the source's replica set in its URI, without directConnection; or the member that is primary now.";
    /// The destination's server isn't a writable primary.
    DestinationNotPrimary = "DESTINATION_NOT_PRIMARY", Retry, "Name all members of the destination's replica set in its URI, without directConnection; or the member that is primary now.";
    /// The hosts of a URI and the replica set that it names don't belong together.
    ReplicaSetMismatch = "REPLICA_SET_MISMATCH", Fail, "Write the name that the message says into replicaSet, and name hosts of one replica set only.";
    /// An option of a URI has no effect here.
    UriOptionOverridden = "URI_OPTION_OVERRIDDEN", Fail, "Nothing: Limosa sets what it reads and writes with. Take the option out of the URI if the warning disturbs you.";
    /// A server's featureCompatibilityVersion changed while a migration ran.
    CompatibilityChanged = "COMPATIBILITY_CHANGED", Continue, "Nothing: the migration continues with what the server can do now. Don't change it again before the migration is complete.";
    /// Both URIs lead to one cluster.
    SameCluster = "SAME_CLUSTER", Fail, "Name a destination that is another cluster than the source.";
    /// A sharded cluster.
    ShardedUnsupported = "SHARDED_UNSUPPORTED", Fail, "Migrate replica sets; see docs/limitations.md.";
    /// A server version outside of what is supported, or a destination older than the source.
    UnsupportedVersion = "UNSUPPORTED_VERSION", Fail, "Use source and destination of 4.4 or later, the destination not older than the source.";
    /// The destination holds data that is not ours.
    DestinationNotEmpty = "DESTINATION_NOT_EMPTY", Fail, "Choose an empty destination, exclude the namespaces, or ask to drop the destination's data.";
    /// Another migration that isn't over writes the same namespaces there.
    DestinationInUse = "DESTINATION_IN_USE", Fail, "End that migration with 'limosa migrations cancel'; if it can't be reached any more, name its id with --replace-migration.";
    /// Another migration took the destination.
    DestinationTaken = "DESTINATION_TAKEN", Fail, "Cancel this migration: it writes nothing any more. What it copied belongs to the one that the message names.";
    /// The migration's record on the destination is gone.
    CheckpointLost = "CHECKPOINT_LOST", Fail, "Put the destination back as it was, or begin a new migration with another state directory.";
    /// Something on the source is left behind.
    NotCarriedOver = "NOT_CARRIED_OVER", Fail, "Nothing, if you don't need it on the destination; else copy it there yourself, or rename it on the source.";
    /// Other data than Limosa's is in Limosa's database.
    ReservedDatabase = "RESERVED_DATABASE", Fail, "Move the collections that the message names out of the database __limosa: it belongs to Limosa.";
    /// The agent doesn't write to that destination.
    DestinationNotAllowed = "DESTINATION_NOT_ALLOWED", Fail, "Start the agent with --allow-destination for that host, if it is to write there.";
    /// The agent doesn't open that file.
    FileNotAllowed = "FILE_NOT_ALLOWED", Fail, "Put the file below a directory that the agent is started with as --allow-files-below.";
    /// A reverse migration that nothing proves, or that the agent isn't to carry out.
    ReverseNotAllowed = "REVERSE_NOT_ALLOWED", Fail, "Start the agent that carried the migration out with --allow-reverse, on its own data directory.";
    /// The credentials lack a privilege.
    InsufficientPrivileges = "INSUFFICIENT_PRIVILEGES", Wait, "Grant the roles named in the message, which docs/operating.md lists; a migration that runs then continues automatically.";
    /// A kind of collection that can't be carried over.
    UnsupportedCollection = "UNSUPPORTED_COLLECTION", Fail, "Exclude the namespace or change it on the source; see docs/limitations.md.";
    /// The filter of a resumed migration isn't the one it began with.
    ConfigurationChanged = "CONFIGURATION_CHANGED", Fail, "Continue with the namespaces it began with, or start a new migration with another state directory.";
    /// A setting that no engine can run with.
    ConfigurationInvalid = "CONFIGURATION_INVALID", Fail, "Put the setting that the message names within its bounds.";
    /// The oplog no longer reaches back to where the migration stopped reading.
    HistoryLost = "HISTORY_LOST", Fail, "Enlarge the source's oplog, then make the copy again with 'limosa migrations resume --recopy' (or 'limosa migrate --recopy'): what is equal stays.";
    /// The source has another history than the one that was read.
    SourceRewound = "SOURCE_REWOUND", Fail, "If the source was put back by mistake, bring its newest state back and resume; else make the copy again with 'limosa migrations resume --recopy' (or 'limosa migrate --recopy').";
    /// The source's change stream doesn't answer.
    SourceStreamSilent = "SOURCE_STREAM_SILENT", Retry, "Look for what keeps the source's primary from answering: its load, its disk, a firewall between; the migration continues automatically.";
    /// No majority of the source's members confirms writes.
    SourceMajorityStalled = "SOURCE_MAJORITY_STALLED", Continue, "Bring the source's members that are down or far behind back (rs.status() names them): the migration continues automatically.";
    /// The destination doesn't follow the source's writes.
    DestinationTooSlow = "DESTINATION_TOO_SLOW", Continue, "Look for what holds the destination up: its disk, its load, a member that is down; give it more, or write less to the source for a while.";
    /// The migration host reports nothing.
    HostSilent = "HOST_SILENT", Continue, "See whether the agent runs on the migration host and reaches the server; once it reports, all continues automatically.";
    /// A cutover was ordered and the destination doesn't follow closely.
    NotReady = "NOT_READY", Continue, "Wait until the migration is ready for the cutover, then cut over again.";
    /// Another agent holds the migration.
    Fenced = "FENCED", Fail, "Nothing: another agent has taken the migration over.";
    /// Documents differ after repair.
    VerificationFailed = "VERIFICATION_FAILED", Fail, "Stop every other client that writes to the destination, and drop a collection there that the message names as not the source's; then resume: what differs is written again.";
    /// Someone ended the cutover.
    CutoverAborted = "CUTOVER_ABORTED", Fail, "Nothing: the migration is ready as before; cut over again when you want.";
    /// The source was written to after the cutover's cluster time.
    SourceWrittenDuringCutover = "SOURCE_WRITTEN_DURING_CUTOVER", Fail, "Stop all writers of the source, then cut over again.";
    /// The source can't be made to refuse its users' writes.
    WriteBlockRefused = "WRITE_BLOCK_REFUSED", Fail, "Use a source of 6.0 or later and a user with the privilege setUserWriteBlockMode, or stop the writers yourself and cut over without --block-source-writes.";
    /// A unique index can't be made unique.
    UniqueConversionFailed = "UNIQUE_CONVERSION_FAILED", Fail, "Remove the duplicate keys named in the message on the source, then cut over again.";
    /// An index can't be built on the destination.
    IndexBuildFailed = "INDEX_BUILD_FAILED", Fail, "Fix the index named in the message on the source, or drop it there, then cut over again.";
    /// An event that is larger than a reply may be.
    OversizedEvent = "OVERSIZED_EVENT", Fail, "Upgrade the source to a version with $changeStreamSplitLargeEvent (6.0.9 or later), or start again.";
    /// A file that a URI names for TLS can't be read on this host.
    CaFileUnreadable = "CA_FILE_UNREADABLE", Fail, "Put the file on this host, readable by the user that runs Limosa, and name its absolute path.";
    /// Two databases' names differ only in case.
    NamesDifferInCase = "NAMES_DIFFER_IN_CASE", Fail, "Drop or rename the destination's database, or exclude the source's.";
    /// The destination's disk is too small.
    InsufficientDiskSpace = "INSUFFICIENT_DISK_SPACE", Fail, "Enlarge the destination's disk, or exclude namespaces.";
    /// The source's oplog covers a short time.
    ShortOplog = "SHORT_OPLOG", Fail, "Enlarge it with replSetResizeOplog before you begin, so that it covers the longest interruption of the migration host that you expect.";
    /// A server's clock and this host's go apart.
    ClockSkew = "CLOCK_SKEW", Fail, "Run a time service such as chrony on all hosts.";
    /// Several indexes of a collection have the same keys.
    SameIndexKeys = "SAME_INDEX_KEYS", Fail, "Nothing, if you need them all; else drop those that you don't need on the source.";
    /// Unique indexes are built in the write pause.
    UniqueBuiltAtCutover = "UNIQUE_BUILT_AT_CUTOVER", Fail, "Use a destination of 6.0 or later, or expect a write pause that grows with the number of documents.";
    /// Time-series collections are compared whole in the write pause.
    TimeSeriesAtCutover = "TIME_SERIES_AT_CUTOVER", Fail, "Expect a write pause that grows with the size of these collections, or upgrade the source to 6.0.";
    /// The destination takes no writes.
    DestinationNotWritable = "DESTINATION_NOT_WRITABLE", Retry, "Free space on the destination's disk, or end its write block; the migration then continues automatically.";
    /// A collection of the destination isn't what the checkpoint says of it.
    CollectionLost = "COLLECTION_LOST", Retry, "Nothing: the migration starts again from its checkpoint and compares the collection. If it stays, find out who else creates, renames or drops collections on the destination.";
    /// One write ended the destination's process twice.
    WriteEndsDestination = "WRITE_ENDS_DESTINATION", Fail, "Upgrade the destination to its release's newest patch, then resume: the document is read again and written whole. Or exclude its namespace in a new migration.";
    /// The source can't tell what changed.
    ChangeUnreadable = "CHANGE_UNREADABLE", Fail, "Grant the source's user the role read on the database local, so that the document can be found in the oplog and read again; then resume.";
    /// The spool has its full size.
    SpoolFull = "SPOOL_FULL", Retry, "Nothing, while the source's oplog window is long enough; else raise --spool-limit and start the agent again.";
    /// A server answered with an error that trying again can't help.
    ServerError = "SERVER_ERROR", Fail, "Read the message; when the cause is fixed, resume.";
    /// The agent's disk.
    LocalStorage = "LOCAL_STORAGE", Retry, "Free space or fix permissions on the agent's data directory; the migration then continues automatically.";
    /// An error in Limosa itself.
    Internal = "INTERNAL", Fail, "Report it with the log around it; then resume.";
}

impl ErrorCode {
    /// Whether trying again later may succeed without anyone's doing.
    pub fn is_transient(self) -> bool {
        matches!(self.policy(), Policy::Retry | Policy::Continue)
    }

    /// Whether its cause can be fixed from outside while the migration waits, which then continues automatically.
    pub fn is_operator_fixable(self) -> bool {
        matches!(self.policy(), Policy::Retry | Policy::Wait)
    }
}

/// A failure as it is stored, shown and reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Failure {
    /// Which.
    pub code: ErrorCode,
    /// One sentence of what happened; never a secret.
    pub message: String,
}

impl Failure {
    /// A failure whose message has URIs' credentials cut out, and is fit to be shown: a server may have chosen it.
    pub fn new(code: ErrorCode, message: impl AsRef<str>) -> Self {
        let message = crate::secret::redact_uris(message.as_ref());
        Self { code, message: crate::plain::plain(&message, crate::plain::MESSAGE) }
    }

    pub(crate) fn unknown() -> Self {
        Self::new(ErrorCode::Internal, "the agent gave no reason")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_agree_with_what_the_engine_does() {
        for code in ErrorCode::ALL {
            let automatic = code.remedy().contains("continues automatically");
            assert!(!automatic || code.policy() != Policy::Fail, "{}: nothing continues it", code.name());
            let resume = code.remedy().contains("then resume");
            assert!(!resume || code.policy() == Policy::Fail, "{}: it continues without a resume", code.name());
        }
    }

    #[test]
    fn every_code_has_its_page() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        for code in ErrorCode::ALL {
            let file = dir.join(format!("{}.md", code.name()));
            let page = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            assert!(page.starts_with(&format!("# {}\n", code.name())) && page.contains(code.remedy()), "{page}");
        }
        assert_eq!(std::fs::read_dir(dir).expect("is there").count(), ErrorCode::ALL.len());
    }
}
