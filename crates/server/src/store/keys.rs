//! Who may ask: keys, service accounts, tokens, links; and what they did.

use super::{Store, id, jobs::offset, read, text, unreadable};
use crate::{
    ServerError,
    auth::{Principal, bearer, digest::REALM},
};
use limosa_model::{GroupId, OrgId, Secret, Timestamp, digest, ids::ApiKeyId, wire::account::Role};
use rusqlite::{OptionalExtension, Row, params};

/// A key for digest authentication; only HA1 is kept, and the end of the private half to recognize it by.
#[derive(Clone, Debug)]
pub(crate) struct ApiKey {
    pub id: ApiKeyId,
    pub public_key: String,
    pub org_id: OrgId,
    pub ha1: Secret,
    /// The last twelve characters of the private key.
    pub tail: String,
    pub description: String,
    pub roles: Vec<Role>,
    /// An agent's: works nowhere else.
    pub is_link: bool,
    pub access_list: Vec<String>,
}

impl ApiKey {
    pub fn new(org_id: OrgId, public_key: &str, private_key: &Secret, description: &str, roles: Vec<Role>) -> Self {
        let ha1 = Secret::new(digest::ha1(public_key, REALM, private_key.expose()));
        let private = private_key.expose();
        let tail = private.get(private.len().saturating_sub(12)..).unwrap_or_default().to_owned();
        Self {
            id: ApiKeyId::generate(),
            public_key: public_key.to_owned(),
            org_id,
            ha1,
            tail,
            description: description.to_owned(),
            roles,
            is_link: false,
            access_list: Vec::new(),
        }
    }

    pub fn principal(self) -> Principal {
        let Self { org_id, public_key: name, roles, is_link, access_list, .. } = self;
        Principal { org_id, name, key: Some(self.id), roles, is_link, access_list }
    }
}

/// A client for bearer tokens; of its secret only the hash is kept.
#[derive(Clone, Debug)]
pub(crate) struct ServiceAccount {
    pub client_id: String,
    pub org_id: OrgId,
    pub name: String,
    pub description: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub secret_id: String,
    pub secret_hash: String,
    pub roles: Vec<Role>,
}

impl ServiceAccount {
    pub fn principal(self) -> Principal {
        let Self { org_id, client_id: name, roles, .. } = self;
        Principal { org_id, name, key: None, roles, is_link: false, access_list: Vec::new() }
    }
}

/// What someone did: number, time, actor, address, operation, target.
pub(crate) type Audit = (i64, Timestamp, String, String, String, String);

const KEY: &str = "SELECT id, public_key, org_id, ha1, tail, description, roles, is_link, access_list FROM api_keys";
const ACCOUNT: &str =
    "SELECT client_id, org_id, name, description, created_at, expires_at, secret_id, secret_hash, roles
    FROM service_accounts";

fn read_account(r: &Row<'_>) -> rusqlite::Result<(ServiceAccount, String)> {
    let account = ServiceAccount {
        client_id: r.get(0)?,
        org_id: id(&r.get::<_, String>(1)?)?,
        name: r.get(2)?,
        description: r.get(3)?,
        created_at: Timestamp(r.get(4)?),
        expires_at: Timestamp(r.get(5)?),
        secret_id: r.get(6)?,
        secret_hash: r.get(7)?,
        roles: Vec::new(),
    };
    Ok((account, r.get(8)?))
}

impl Store {
    /// Makes the owner's organization, a group of the same name and the owner's keys; all of it, or nothing.
    pub fn create_first_org(
        &self,
        name: &str,
        group: GroupId,
        account: &ServiceAccount,
        key: &ApiKey,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let org = key.org_id.to_string();
        transaction.execute("INSERT INTO orgs VALUES (?1, ?2)", params![org, name])?;
        let row = params![group.to_string(), org, name, now.0];
        transaction.execute("INSERT INTO groups VALUES (?1, ?2, ?3, ?4)", row)?;
        insert_account(&transaction, account)?;
        insert_key(&transaction, key, &self.seal.seal(key.ha1.expose()))?;
        Ok(transaction.commit()?)
    }

    pub fn create_api_key(&self, key: &ApiKey) -> Result<(), ServerError> {
        insert_key(&self.lock(), key, &self.seal.seal(key.ha1.expose()))
    }

    fn keys(&self, condition: &str, value: &str) -> Result<Vec<ApiKey>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!("{KEY} WHERE {condition}"))?;
        let rows = query.query_map([value], |r| {
            let key = ApiKey {
                id: id(&r.get::<_, String>(0)?)?,
                public_key: r.get(1)?,
                org_id: id(&r.get::<_, String>(2)?)?,
                ha1: Secret::new(r.get::<_, String>(3)?),
                tail: r.get(4)?,
                description: r.get(5)?,
                roles: Vec::new(),
                is_link: r.get(7)?,
                access_list: Vec::new(),
            };
            Ok((key, r.get::<_, String>(6)?, r.get::<_, String>(8)?))
        })?;
        rows.map(|row| {
            let (key, roles, access_list) = row?;
            let ha1 = Secret::new(self.seal.unseal(key.ha1.expose())?);
            Ok(ApiKey { ha1, roles: read(&roles)?, access_list: read(&access_list)?, ..key })
        })
        .collect()
    }

    pub fn api_key(&self, public_key: &str) -> Result<Option<ApiKey>, ServerError> {
        Ok(self.keys("public_key = ?1", public_key)?.pop())
    }

    /// An organization's, without its agents'.
    pub fn api_keys(&self, org: OrgId) -> Result<Vec<ApiKey>, ServerError> {
        self.keys("is_link = 0 AND org_id = ?1 ORDER BY id", &org.to_string())
    }

    /// `false` if there is no such key.
    pub fn delete_api_key(&self, key: ApiKeyId) -> Result<bool, ServerError> {
        Ok(self.lock().execute("DELETE FROM api_keys WHERE is_link = 0 AND id = ?1", [key.to_string()])? == 1)
    }

    pub fn set_roles(&self, key: ApiKeyId, roles: &[Role]) -> Result<(), ServerError> {
        let row = params![key.to_string(), text(&roles)?];
        self.lock().execute("UPDATE api_keys SET roles = ?2 WHERE id = ?1", row)?;
        Ok(())
    }

    /// Gives whoever asks one more role.
    pub fn grant(&self, principal: &Principal, role: Role) -> Result<(), ServerError> {
        let roles = text(&[&principal.roles[..], &[role]].concat())?;
        let connection = self.lock();
        match principal.key {
            Some(key) => {
                connection.execute("UPDATE api_keys SET roles = ?2 WHERE id = ?1", params![key.to_string(), roles])?
            }
            None => connection.execute(
                "UPDATE service_accounts SET roles = ?2 WHERE client_id = ?1",
                params![principal.name, roles],
            )?,
        };
        Ok(())
    }

    pub fn set_access_list(&self, key: ApiKeyId, list: &[String]) -> Result<(), ServerError> {
        let row = params![key.to_string(), text(&list)?];
        self.lock().execute("UPDATE api_keys SET access_list = ?2 WHERE id = ?1", row)?;
        Ok(())
    }

    pub fn create_service_account(&self, account: &ServiceAccount) -> Result<(), ServerError> {
        insert_account(&self.lock(), account)
    }

    fn accounts(&self, condition: &str, value: &str) -> Result<Vec<ServiceAccount>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(&format!("{ACCOUNT} WHERE {condition}"))?;
        let rows = query.query_map([value], read_account)?;
        rows.map(|row| {
            let (account, roles) = row?;
            Ok(ServiceAccount { roles: serde_json::from_str(&roles).map_err(|e| unreadable(&e))?, ..account })
        })
        .collect()
    }

    pub fn service_account(&self, client: &str) -> Result<Option<ServiceAccount>, ServerError> {
        Ok(self.accounts("client_id = ?1", client)?.pop())
    }

    pub fn service_accounts(&self, org: OrgId) -> Result<Vec<ServiceAccount>, ServerError> {
        self.accounts("org_id = ?1 ORDER BY client_id", &org.to_string())
    }

    /// Its tokens end with it. `false` if there is none.
    pub fn delete_service_account(&self, client: &str) -> Result<bool, ServerError> {
        Ok(self.lock().execute("DELETE FROM service_accounts WHERE client_id = ?1", [client])? == 1)
    }

    pub fn create_token(&self, token: &Secret, client: &str, now: Timestamp) -> Result<(), ServerError> {
        let connection = self.lock();
        connection.execute("DELETE FROM tokens WHERE expires_at <= ?1", [now.0])?;
        let row = params![bearer::hash(token.expose()), client, now.plus_seconds(bearer::LIFE_SECONDS).0];
        connection.execute("INSERT INTO tokens VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }

    /// Whose token this is.
    pub fn token(&self, token: &str, now: Timestamp) -> Result<Option<ServiceAccount>, ServerError> {
        match self.client_of(token, now)? {
            Some(client) => self.service_account(&client),
            None => Ok(None),
        }
    }

    fn client_of(&self, token: &str, now: Timestamp) -> Result<Option<String>, ServerError> {
        let connection = self.reader();
        let mut query =
            connection.prepare_cached("SELECT client_id FROM tokens WHERE hash = ?1 AND expires_at > ?2")?;
        Ok(query.query_row(params![bearer::hash(token), now.0], |r| r.get(0)).optional()?)
    }

    pub fn delete_token(&self, token: &str, client: &str) -> Result<(), ServerError> {
        let row = params![bearer::hash(token), client];
        self.lock().execute("DELETE FROM tokens WHERE hash = ?1 AND client_id = ?2", row)?;
        Ok(())
    }

    /// Links the organization with a key for its agents; `false` if it is linked already.
    pub fn create_link(&self, key: &ApiKey) -> Result<bool, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let row = params![key.org_id.to_string(), key.public_key];
        if transaction.execute("INSERT OR IGNORE INTO links VALUES (?1, ?2)", row)? == 0 {
            return Ok(false);
        }
        insert_key(&transaction, key, &self.seal.seal(key.ha1.expose()))?;
        transaction.commit()?;
        Ok(true)
    }

    /// Revokes the link; `false` if there is none.
    pub fn delete_link(&self, org: OrgId) -> Result<bool, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let key = "DELETE FROM api_keys WHERE public_key IN (SELECT public_key FROM links WHERE org_id = ?1)";
        transaction.execute(key, [org.to_string()])?;
        let deleted = transaction.execute("DELETE FROM links WHERE org_id = ?1", [org.to_string()])?;
        transaction.commit()?;
        Ok(deleted == 1)
    }

    pub fn audit(
        &self,
        principal: &Principal,
        address: &str,
        operation: &str,
        target: &str,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let row = params![principal.org_id.to_string(), now.0, principal.name, address, operation, target];
        let insert =
            "INSERT INTO audit (org_id, at, actor, address, operation, target) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.lock().execute(insert, row)?;
        Ok(())
    }

    /// Newest first: `size` entries after the `first`, and how many there are.
    pub fn audited(&self, org: OrgId, first: usize, size: usize) -> Result<(Vec<Audit>, usize), ServerError> {
        let connection = self.reader();
        let count = "SELECT count(*) FROM audit WHERE org_id = ?1";
        let total: i64 = connection.query_row(count, [org.to_string()], |r| r.get(0))?;
        let mut query = connection.prepare_cached(
            "SELECT n, at, actor, address, operation, target FROM audit WHERE org_id = ?1 ORDER BY n DESC LIMIT ?2 OFFSET ?3",
        )?;
        let rows = query.query_map(params![org.to_string(), size as i64, offset(first)], |r| {
            Ok((r.get(0)?, Timestamp(r.get(1)?), r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
        })?;
        Ok((rows.collect::<Result<_, _>>()?, total as usize))
    }
}

fn insert_account(connection: &rusqlite::Connection, account: &ServiceAccount) -> Result<(), ServerError> {
    let row = params![
        account.client_id,
        account.org_id.to_string(),
        account.name,
        account.description,
        account.created_at.0,
        account.expires_at.0,
        account.secret_id,
        account.secret_hash,
        text(&account.roles)?
    ];
    connection.execute("INSERT OR IGNORE INTO service_accounts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", row)?;
    Ok(())
}

fn insert_key(connection: &rusqlite::Connection, key: &ApiKey, sealed: &str) -> Result<(), ServerError> {
    let row = params![
        key.id.to_string(),
        key.public_key,
        key.org_id.to_string(),
        sealed,
        key.tail,
        key.description,
        text(&key.roles)?,
        key.is_link,
        text(&key.access_list)?
    ];
    connection.execute("INSERT INTO api_keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", row)?;
    Ok(())
}
