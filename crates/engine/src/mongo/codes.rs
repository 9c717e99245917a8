//! The server's error codes, by the server's own names (`src/mongo/base/error_codes.yml` of its source), and the groups of
//! them that Limosa answers alike. Assertions that the server only numbers are named here by what they say.

pub(crate) const HOST_UNREACHABLE: i32 = 6;
pub(crate) const HOST_NOT_FOUND: i32 = 7;
pub(crate) const FAILED_TO_PARSE: i32 = 9;
pub(crate) const UNAUTHORIZED: i32 = 13;
pub(crate) const AUTHENTICATION_FAILED: i32 = 18;
pub(crate) const ILLEGAL_OPERATION: i32 = 20;
pub(crate) const LOCK_TIMEOUT: i32 = 24;
pub(crate) const NAMESPACE_NOT_FOUND: i32 = 26;
pub(crate) const INDEX_NOT_FOUND: i32 = 27;
pub(crate) const CURSOR_NOT_FOUND: i32 = 43;
pub(crate) const NAMESPACE_EXISTS: i32 = 48;
pub(crate) const MAX_TIME_MS_EXPIRED: i32 = 50;
pub(crate) const DOLLAR_PREFIXED_FIELD_NAME: i32 = 52;
pub(crate) const INVALID_DB_REF: i32 = 55;
pub(crate) const COMMAND_NOT_FOUND: i32 = 59;
/// `WriteConcernTimeout` since 8.1.
pub(crate) const WRITE_CONCERN_FAILED: i32 = 64;
pub(crate) const IMMUTABLE_FIELD: i32 = 66;
pub(crate) const CANNOT_CREATE_INDEX: i32 = 67;
pub(crate) const INDEX_ALREADY_EXISTS: i32 = 68;
pub(crate) const INVALID_OPTIONS: i32 = 72;
pub(crate) const INDEX_OPTIONS_CONFLICT: i32 = 85;
pub(crate) const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
pub(crate) const NETWORK_TIMEOUT: i32 = 89;
pub(crate) const SHUTDOWN_IN_PROGRESS: i32 = 91;
pub(crate) const WRITE_CONFLICT: i32 = 112;
pub(crate) const FAILED_TO_SATISFY_READ_PREFERENCE: i32 = 133;
pub(crate) const READ_CONCERN_MAJORITY_NOT_AVAILABLE_YET: i32 = 134;
pub(crate) const CAPPED_POSITION_LOST: i32 = 136;
pub(crate) const COMMAND_NOT_SUPPORTED_ON_VIEW: i32 = 166;
pub(crate) const CANNOT_INDEX_PARALLEL_ARRAYS: i32 = 171;
pub(crate) const QUERY_PLAN_KILLED: i32 = 175;
pub(crate) const PRIMARY_STEPPED_DOWN: i32 = 189;
/// An index can't hold the value: neither can an `_id` that is looked for be in it.
pub(crate) const CANNOT_BUILD_INDEX_KEYS: i32 = 201;
pub(crate) const NETWORK_INTERFACE_EXCEEDED_TIME_LIMIT: i32 = 202;
pub(crate) const ELECTION_IN_PROGRESS: i32 = 216;
pub(crate) const TRANSACTION_TOO_OLD: i32 = 225;
pub(crate) const RETRY_CHANGE_STREAM: i32 = 234;
pub(crate) const CURSOR_KILLED: i32 = 237;
pub(crate) const SNAPSHOT_UNAVAILABLE: i32 = 246;
pub(crate) const NO_SUCH_TRANSACTION: i32 = 251;
pub(crate) const EXCEEDED_TIME_LIMIT: i32 = 262;
pub(crate) const OPERATION_NOT_SUPPORTED_IN_TRANSACTION: i32 = 263;
pub(crate) const CHANGE_STREAM_FATAL_ERROR: i32 = 280;
pub(crate) const CHANGE_STREAM_HISTORY_LOST: i32 = 286;
pub(crate) const TRANSACTION_EXCEEDED_LIFETIME_LIMIT_SECONDS: i32 = 290;
pub(crate) const INTERRUPTED_DUE_TO_STORAGE_CHANGE: i32 = 355;
pub(crate) const CANNOT_CONVERT_INDEX_TO_UNIQUE: i32 = 359;
pub(crate) const COLLECTION_UUID_MISMATCH: i32 = 361;
pub(crate) const TEMPORARILY_UNAVAILABLE: i32 = 365;
pub(crate) const USER_WRITES_BLOCKED: i32 = 371;
pub(crate) const TRANSACTION_TOO_LARGE_FOR_CACHE: i32 = 388;
/// Of Atlas, not of the server: a limit of the service, mostly its storage quota.
pub(crate) const ATLAS_ERROR: i32 = 8000;
pub(crate) const SOCKET_EXCEPTION: i32 = 9001;
pub(crate) const CANNOT_GROW_DOCUMENT_IN_CAPPED_NAMESPACE: i32 = 10_003;
pub(crate) const LEGACY_NOT_PRIMARY: i32 = 10_058;
pub(crate) const NOT_WRITABLE_PRIMARY: i32 = 10_107;
pub(crate) const BSON_OBJECT_TOO_LARGE: i32 = 10_334;
pub(crate) const DUPLICATE_KEY: i32 = 11_000;
pub(crate) const INTERRUPTED_AT_SHUTDOWN: i32 = 11_600;
/// By `killOp`, for one.
pub(crate) const INTERRUPTED: i32 = 11_601;
pub(crate) const INTERRUPTED_DUE_TO_REPL_STATE_CHANGE: i32 = 11_602;
pub(crate) const DATABASE_DIFFER_CASE: i32 = 13_297;
pub(crate) const STALE_CONFIG: i32 = 13_388;
pub(crate) const NOT_PRIMARY_NO_SECONDARY_OK: i32 = 13_435;
pub(crate) const NOT_PRIMARY_OR_SECONDARY: i32 = 13_436;
pub(crate) const OUT_OF_DISK_SPACE: i32 = 14_031;
pub(crate) const KEY_TOO_LONG: i32 = 17_280;

// Assertions without a name of the server's.

/// `$sample` found no random document: it met the same ones again and again.
pub(crate) const SAMPLE_FOUND_NOTHING: i32 = 28_799;
/// `$collStats` of a collection that isn't there, before 6.0.
pub(crate) const COLL_STATS_OF_NOTHING: i32 = 40_280;
/// A command has a field that the server doesn't know.
pub(crate) const UNKNOWN_FIELD: i32 = 40_415;
/// Numbers above are those of assertions that were added since: an option that this server doesn't know may be refused
/// with any of them.
pub(crate) const LAST_LISTED: i32 = 1_000_000;
/// `$changeStreamSplitLargeEvent` met one field that is too large.
pub(crate) const FIELD_TOO_LARGE_TO_SPLIT: i32 = 7_182_500;

/// Transient errors: network trouble, elections, shutdowns, interruptions. An interruption may be a successor's
/// doing, who ends what an agent left open; the fence decides that at the next try.
pub(crate) fn is_transient(code: i32) -> bool {
    match code {
        HOST_UNREACHABLE | HOST_NOT_FOUND | NETWORK_TIMEOUT | SOCKET_EXCEPTION => true,
        SHUTDOWN_IN_PROGRESS | INTERRUPTED_AT_SHUTDOWN | LEGACY_NOT_PRIMARY => true,
        code if is_not_primary(code) => true,
        FAILED_TO_SATISFY_READ_PREFERENCE | READ_CONCERN_MAJORITY_NOT_AVAILABLE_YET => true,
        WRITE_CONCERN_FAILED | NETWORK_INTERFACE_EXCEEDED_TIME_LIMIT => true,
        CURSOR_NOT_FOUND | CURSOR_KILLED | INTERRUPTED | TRANSACTION_TOO_OLD => true,
        MAX_TIME_MS_EXPIRED | EXCEEDED_TIME_LIMIT => true,
        WRITE_CONFLICT | NO_SUCH_TRANSACTION | SNAPSHOT_UNAVAILABLE | LOCK_TIMEOUT => true,
        TRANSACTION_EXCEEDED_LIFETIME_LIMIT_SECONDS | SAMPLE_FOUND_NOTHING => true,
        STALE_CONFIG | RETRY_CHANGE_STREAM | ELECTION_IN_PROGRESS => true,
        INTERRUPTED_DUE_TO_STORAGE_CHANGE | TEMPORARILY_UNAVAILABLE => true,
        _ => false,
    }
}

/// The server isn't the primary, or isn't any more.
pub(crate) fn is_not_primary(code: i32) -> bool {
    matches!(
        code,
        PRIMARY_STEPPED_DOWN
            | NOT_WRITABLE_PRIMARY
            | INTERRUPTED_DUE_TO_REPL_STATE_CHANGE
            | NOT_PRIMARY_NO_SECONDARY_OK
            | NOT_PRIMARY_OR_SECONDARY
    )
}

/// Namespace or index not found, collection gone in the middle of a plan, or a view has taken its name.
pub(crate) fn is_gone(code: i32) -> bool {
    matches!(
        code,
        NAMESPACE_NOT_FOUND
            | INDEX_NOT_FOUND
            | COMMAND_NOT_SUPPORTED_ON_VIEW
            | QUERY_PLAN_KILLED
            | COLLECTION_UUID_MISMATCH
            | COLL_STATS_OF_NOTHING
    )
}

/// The operation took longer than it was allowed to.
pub(crate) fn is_time_limit(code: i32) -> bool {
    matches!(code, MAX_TIME_MS_EXPIRED | EXCEEDED_TIME_LIMIT)
}

/// A change event doesn't fit a reply: all of it, or one field of it, which the server can't split.
pub(crate) fn is_event_too_large(code: i32) -> bool {
    matches!(code, BSON_OBJECT_TOO_LARGE | FIELD_TOO_LARGE_TO_SPLIT)
}

/// The source's history doesn't reach back to where the stream has to be read from.
pub(crate) fn is_history_lost(code: i32) -> bool {
    matches!(code, CHANGE_STREAM_HISTORY_LOST | CAPPED_POSITION_LOST | CHANGE_STREAM_FATAL_ERROR)
}

/// Documents have equal keys in an index that is to become unique.
pub(crate) fn is_not_unique(code: i32) -> bool {
    matches!(code, CANNOT_CONVERT_INDEX_TO_UNIQUE | DUPLICATE_KEY)
}

/// Another index is in the way of one that is to be built.
pub(crate) fn is_another_index(code: i32) -> bool {
    matches!(code, INDEX_ALREADY_EXISTS | INDEX_OPTIONS_CONFLICT | INDEX_KEY_SPECS_CONFLICT)
}

/// The server doesn't know an option or a field of the command.
pub(crate) fn is_unknown_option(code: i32) -> bool {
    matches!(code, FAILED_TO_PARSE | INVALID_OPTIONS | UNKNOWN_FIELD) || code > LAST_LISTED
}

/// The destination has a document that a replacement can't become, and an insert may.
pub(crate) fn is_refused_replacement(code: i32) -> bool {
    matches!(code, IMMUTABLE_FIELD | DOLLAR_PREFIXED_FIELD_NAME | INVALID_DB_REF)
}

/// An index may have refused the write.
pub(crate) fn is_refused_by_index(code: i32) -> bool {
    match code {
        DUPLICATE_KEY | CANNOT_CREATE_INDEX | CANNOT_INDEX_PARALLEL_ARRAYS => true,
        // An array in a text index is one of these.
        CANNOT_BUILD_INDEX_KEYS | KEY_TOO_LONG => true,
        // Assertions of 2d: not within its bounds, not a pair of numbers, an empty or half a location.
        13_022..=13_027 | 13_067 | 13_068 | 16_804 => true,
        // 2dsphere, geoHaystack, a hashed array, a numeric field name that is a place in an array as well.
        16_755 | 16_775 | 16_766 | 16_746 => true,
        // text: the language isn't a string, or not known.
        17_261 | 17_262 => true,
        _ => false,
    }
}
