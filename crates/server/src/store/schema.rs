//! The store's tables, and the steps that bring a file of an earlier version to them.

use crate::ServerError;
use rusqlite::{Connection, TransactionBehavior};

/// What makes a new file this version's, step by step; a file's `user_version` counts the steps that it has had. Steps
/// are added and never changed.
const STEPS: &[&str] = &[TABLES, AGENT_VERSIONS, QUICK_LISTS, SEALED_BY, FINDINGS, QUICK_WORK, FORGET, SECRETS, EVENTS];

/// Events are data; those of before have none.
const EVENTS: &str = "ALTER TABLE events ADD COLUMN data TEXT";

/// Service accounts have several secrets, and a token ends with its own; agents have one each, and validations an agent;
/// a link token that was replaced has an end; the audit says what was refused.
const SECRETS: &str = "
    CREATE TABLE service_account_secrets (id TEXT PRIMARY KEY,
        client_id TEXT NOT NULL REFERENCES service_accounts ON DELETE CASCADE, created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL, hash TEXT NOT NULL, tail TEXT, last_used_at INTEGER);
    CREATE INDEX secrets_of_account ON service_account_secrets (client_id);
    INSERT INTO service_account_secrets (id, client_id, created_at, expires_at, hash)
        SELECT secret_id, client_id, created_at, expires_at, secret_hash FROM service_accounts;
    ALTER TABLE tokens ADD COLUMN secret_id TEXT NOT NULL DEFAULT '';
    UPDATE tokens SET secret_id =
        coalesce((SELECT secret_id FROM service_accounts a WHERE a.client_id = tokens.client_id), '');
    ALTER TABLE service_accounts DROP COLUMN expires_at;
    ALTER TABLE service_accounts DROP COLUMN secret_id;
    ALTER TABLE service_accounts DROP COLUMN secret_hash;
    ALTER TABLE agents ADD COLUMN secret_hash TEXT;
    ALTER TABLE validations ADD COLUMN agent_id TEXT;
    ALTER TABLE api_keys ADD COLUMN ends_at INTEGER;
    ALTER TABLE audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'DONE';
    CREATE INDEX refused_of_org ON audit (org_id, n) WHERE outcome = 'REFUSED';
    ALTER TABLE groups ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE clusters ADD COLUMN facts TEXT;
";

/// Credentials go when nobody needs them any more: those of a validation stand for themselves to that end, and what was
/// kept before of work that is over is deleted. A validation that is forgotten with it is made again in seconds.
const FORGET: &str = "
    ALTER TABLE validations ADD COLUMN credentials TEXT;
    DELETE FROM validations;
    UPDATE migrations SET credentials = NULL WHERE final = 1 AND phase <> 'failed';
";

/// All that a validation found, as JSON.
const FINDINGS: &str = "ALTER TABLE validations ADD COLUMN findings TEXT NOT NULL DEFAULT '[]'";

/// What an agent is to be given, and which timers run: asked by every agent all the time, and every second.
const QUICK_WORK: &str = "
    ALTER TABLE migrations ADD COLUMN host TEXT GENERATED ALWAYS AS (json_extract(body, '$.migrationHost')) VIRTUAL;
    ALTER TABLE migrations ADD COLUMN ends_at INTEGER GENERATED ALWAYS AS
        (coalesce(json_extract(body, '$.phase.expiresAt'), json_extract(body, '$.carried.cutoverBy'))) VIRTUAL;
    CREATE INDEX active_of_host ON migrations (org_id, host) WHERE final = 0;
    CREATE INDEX active_that_end ON migrations (ends_at) WHERE final = 0 AND ends_at IS NOT NULL;
";

/// Which key the secrets are sealed under.
const SEALED_BY: &str = "CREATE TABLE sealed_by (one INTEGER PRIMARY KEY CHECK (one = 1), fingerprint TEXT NOT NULL)";

const AGENT_VERSIONS: &str = "ALTER TABLE agents ADD COLUMN agent_version TEXT NOT NULL DEFAULT ''";

/// What lists are filtered and ordered by.
const QUICK_LISTS: &str = "
    ALTER TABLE migrations ADD COLUMN phase TEXT GENERATED ALWAYS AS (json_extract(body, '$.phase.kind')) VIRTUAL;
    CREATE INDEX migrations_of_group ON migrations (group_id, id);
    CREATE INDEX migrations_of_group_by_phase ON migrations (group_id, phase, id);
    CREATE INDEX migrations_by_phase ON migrations (phase);
    CREATE INDEX agents_of_org ON agents (org_id, host_name);
    CREATE INDEX audit_of_org ON audit (org_id, n);
    CREATE INDEX validations_by_status ON validations (status, org_id, host_name);
";

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS orgs (id TEXT PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS groups (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL, created_at INTEGER NOT NULL,
        UNIQUE (org_id, name));
    CREATE TABLE IF NOT EXISTS api_keys (id TEXT PRIMARY KEY, public_key TEXT NOT NULL UNIQUE, org_id TEXT NOT NULL, ha1 TEXT NOT NULL,
        tail TEXT NOT NULL, description TEXT NOT NULL, roles TEXT NOT NULL, is_link INTEGER NOT NULL, access_list TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS service_accounts (client_id TEXT PRIMARY KEY, org_id TEXT NOT NULL, name TEXT NOT NULL,
        description TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, secret_id TEXT NOT NULL,
        secret_hash TEXT NOT NULL, roles TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS tokens (hash TEXT PRIMARY KEY, client_id TEXT NOT NULL REFERENCES service_accounts ON DELETE CASCADE,
        expires_at INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS links (org_id TEXT PRIMARY KEY, public_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS audit (n INTEGER PRIMARY KEY AUTOINCREMENT, org_id TEXT NOT NULL, at INTEGER NOT NULL,
        actor TEXT NOT NULL, address TEXT NOT NULL, operation TEXT NOT NULL, target TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS clusters (id TEXT NOT NULL, group_id TEXT NOT NULL, name TEXT NOT NULL, uris TEXT NOT NULL,
        PRIMARY KEY (group_id, name));
    CREATE TABLE IF NOT EXISTS agents (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, host_name TEXT NOT NULL,
        deployments TEXT NOT NULL, seen_at INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS migrations (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, credentials TEXT,
        version INTEGER NOT NULL, final INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS active_migrations ON migrations (final);
    CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY AUTOINCREMENT, migration_id TEXT NOT NULL, at INTEGER NOT NULL,
        kind TEXT NOT NULL, message TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS events_of_migration ON events (migration_id, n);
    CREATE TABLE IF NOT EXISTS lags (migration_id TEXT NOT NULL, at INTEGER NOT NULL, seconds INTEGER NOT NULL,
        PRIMARY KEY (migration_id, at)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS records (migration_id TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS reports (migration_id TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS announced (what TEXT PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, body TEXT NOT NULL,
        since INTEGER NOT NULL, next_at INTEGER NOT NULL, attempts INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS samples (migration_id TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (migration_id, at)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS validations (id TEXT PRIMARY KEY, org_id TEXT NOT NULL, group_id TEXT NOT NULL, host_name TEXT NOT NULL,
        created_at INTEGER NOT NULL, status TEXT NOT NULL, error_message TEXT, request TEXT NOT NULL);
";

/// Carries out the steps that this file hasn't had, all or none.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), ServerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let had: u32 = transaction.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    let missing = STEPS.get(had as usize..).ok_or_else(|| {
        ServerError::Corrupt("it was written by a later version of limosa; use that version, or a later one".to_owned())
    })?;
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", STEPS.len() as u32)?;
    Ok(transaction.commit()?)
}
