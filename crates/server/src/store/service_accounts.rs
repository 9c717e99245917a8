//! Service accounts and their secrets.

use crate::{
    ServerError,
    auth::{Credential, Principal, bearer},
    store::{Store, id, text, unreadable},
};
use limosa_model::{OrgId, Secret, Timestamp, ids::SecretId, wire::account::Role};
use rusqlite::{Connection, Row, params};

/// A client for bearer tokens.
#[derive(Clone, Debug)]
pub(crate) struct ServiceAccount {
    pub client_id: String,
    pub org_id: OrgId,
    pub name: String,
    pub description: String,
    pub created_at: Timestamp,
    pub roles: Vec<Role>,
    /// The oldest first.
    pub secrets: Vec<AccountSecret>,
}

/// One of its secrets: the hash, and the end to recognize it by.
#[derive(Clone, Debug)]
pub(crate) struct AccountSecret {
    pub id: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub hash: String,
    /// The last four characters; versions before didn't keep them.
    pub tail: Option<String>,
    pub last_used_at: Option<Timestamp>,
}

impl AccountSecret {
    pub fn new(secret: &Secret, created_at: Timestamp, seconds: i64) -> Self {
        let plain = secret.expose();
        Self {
            id: SecretId::generate().to_string(),
            created_at,
            expires_at: created_at.plus_seconds(seconds),
            hash: bearer::hash(plain),
            tail: plain.get(plain.len().saturating_sub(4)..).map(str::to_owned),
            last_used_at: None,
        }
    }
}

impl ServiceAccount {
    /// Who asks by `credential`, which came from one of its secrets.
    pub fn principal(self, credential: Credential) -> Principal {
        let Self { org_id, client_id: name, roles, .. } = self;
        let (is_link, is_replaced) = (false, false);
        Principal { org_id, name, key: None, credential, roles, is_link, is_replaced, access_list: Vec::new() }
    }

    /// Its secret with this id, unless that has expired.
    pub fn secret(&self, id: &str, now: Timestamp) -> Option<&AccountSecret> {
        self.secrets.iter().find(|secret| secret.id == id && secret.expires_at > now)
    }
}

fn read_account(r: &Row<'_>) -> rusqlite::Result<(ServiceAccount, String)> {
    let account = ServiceAccount {
        client_id: r.get(0)?,
        org_id: id(&r.get::<_, String>(1)?)?,
        name: r.get(2)?,
        description: r.get(3)?,
        created_at: Timestamp(r.get(4)?),
        roles: Vec::new(),
        secrets: Vec::new(),
    };
    Ok((account, r.get(5)?))
}

fn read_secret(r: &Row<'_>) -> rusqlite::Result<AccountSecret> {
    Ok(AccountSecret {
        id: r.get(0)?,
        created_at: Timestamp(r.get(1)?),
        expires_at: Timestamp(r.get(2)?),
        hash: r.get(3)?,
        tail: r.get(4)?,
        last_used_at: r.get::<_, Option<i64>>(5)?.map(Timestamp),
    })
}

const SECRET: &str = "SELECT id, created_at, expires_at, hash, tail, last_used_at FROM service_account_secrets";

impl Store {
    pub fn create_service_account(&self, account: &ServiceAccount) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        insert(&transaction, account)?;
        Ok(transaction.commit()?)
    }

    fn accounts(&self, condition: &str, value: &str) -> Result<Vec<ServiceAccount>, ServerError> {
        let connection = self.reader();
        let accounts = format!(
            "SELECT client_id, org_id, name, description, created_at, roles FROM service_accounts WHERE {condition}"
        );
        let mut query = connection.prepare_cached(&accounts)?;
        let found: Vec<(ServiceAccount, String)> = query.query_map([value], read_account)?.collect::<Result<_, _>>()?;
        let mut secrets =
            connection.prepare_cached(&format!("{SECRET} WHERE client_id = ?1 ORDER BY created_at, id"))?;
        let whole = found.into_iter().map(|(account, roles)| {
            let roles = serde_json::from_str(&roles).map_err(|e| unreadable(&e))?;
            let secrets = secrets.query_map([&account.client_id], read_secret)?.collect::<Result<_, _>>()?;
            Ok(ServiceAccount { roles, secrets, ..account })
        });
        whole.collect()
    }

    pub fn service_account(&self, client: &str) -> Result<Option<ServiceAccount>, ServerError> {
        Ok(self.accounts("client_id = ?1", client)?.pop())
    }

    pub fn service_accounts(&self, org: OrgId) -> Result<Vec<ServiceAccount>, ServerError> {
        self.accounts("org_id = ?1 ORDER BY client_id", &org.to_string())
    }

    pub fn update_service_account(&self, account: &ServiceAccount) -> Result<(), ServerError> {
        let row = params![account.client_id, account.name, account.description, text(&account.roles)?];
        let update = "UPDATE service_accounts SET name = ?2, description = ?3, roles = ?4 WHERE client_id = ?1";
        self.lock().execute(update, row)?;
        Ok(())
    }

    /// Its secrets and tokens end with it. `false` if there is none.
    pub fn delete_service_account(&self, client: &str) -> Result<bool, ServerError> {
        Ok(self.lock().execute("DELETE FROM service_accounts WHERE client_id = ?1", [client])? == 1)
    }

    /// Adds a secret; the others end by `until` at the latest, and what has expired is forgotten.
    pub fn add_secret(&self, client: &str, secret: &AccountSecret, until: Timestamp) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let expired = "DELETE FROM service_account_secrets WHERE client_id = ?1 AND expires_at <= ?2";
        transaction.execute(expired, params![client, secret.created_at.0])?;
        let shorten = "UPDATE service_account_secrets SET expires_at = min(expires_at, ?2) WHERE client_id = ?1";
        transaction.execute(shorten, params![client, until.0])?;
        insert_secret(&transaction, client, secret)?;
        Ok(transaction.commit()?)
    }

    /// The tokens that it was exchanged for end with it. `false` if there is none.
    pub fn delete_secret(&self, client: &str, secret: &str) -> Result<bool, ServerError> {
        let connection = self.lock();
        let delete = "DELETE FROM service_account_secrets WHERE client_id = ?1 AND id = ?2";
        Ok(connection.execute(delete, params![client, secret])? == 1)
    }
}

/// Adds an account with its secrets.
pub(super) fn insert(connection: &Connection, account: &ServiceAccount) -> Result<(), ServerError> {
    let ServiceAccount { client_id, org_id, name, description, created_at, roles, secrets } = account;
    let row = params![client_id, org_id.to_string(), name, description, created_at.0, text(roles)?];
    let insert = "INSERT OR IGNORE INTO service_accounts (client_id, org_id, name, description, created_at, roles)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.execute(insert, row)?;
    secrets.iter().try_for_each(|secret| insert_secret(connection, client_id, secret))
}

fn insert_secret(connection: &Connection, client: &str, secret: &AccountSecret) -> Result<(), ServerError> {
    let row = params![secret.id, client, secret.created_at.0, secret.expires_at.0, secret.hash, secret.tail];
    let insert = "INSERT INTO service_account_secrets (id, client_id, created_at, expires_at, hash, tail)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.execute(insert, row)?;
    Ok(())
}
