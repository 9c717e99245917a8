//! Keys for digest authentication.

use crate::{
    ServerError,
    auth::{Credential, Principal, digest::REALM},
    encryption::{Place, Seal},
    store::{Store, id, read, text},
};
use limosa_model::{OrgId, Secret, Timestamp, digest, ids::ApiKeyId, wire::account::Role};
use rusqlite::params;
use serde::{Deserialize, Serialize};

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
    pub access_list: Vec<Allowed>,
    /// Of a link token that was replaced: until when those who joined with it may use it.
    pub ends_at: Option<Timestamp>,
}

/// An address or a block from which a key works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub(crate) struct Allowed {
    pub entry: String,
    pub created_at: Option<Timestamp>,
}

/// Versions before kept the entry alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Entry(String),
    Whole { entry: String, created_at: Option<Timestamp> },
}

impl From<Stored> for Allowed {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Entry(entry) => Self { entry, created_at: None },
            Stored::Whole { entry, created_at } => Self { entry, created_at },
        }
    }
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
            ends_at: None,
        }
    }

    pub fn principal(self) -> Principal {
        let Self { org_id, public_key: name, roles, is_link, access_list, ends_at, .. } = self;
        let (key, credential) = (Some(self.id), Credential::Key);
        Principal { org_id, name, key, credential, roles, is_link, is_replaced: ends_at.is_some(), access_list }
    }
}

const KEY: &str =
    "SELECT id, public_key, org_id, ha1, tail, description, roles, is_link, access_list, ends_at FROM api_keys";

impl Store {
    pub fn create_api_key(&self, key: &ApiKey) -> Result<(), ServerError> {
        insert(&self.lock(), key, &self.seal)
    }

    pub(super) fn keys(&self, condition: &str, value: &str) -> Result<Vec<ApiKey>, ServerError> {
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
                ends_at: r.get::<_, Option<i64>>(9)?.map(Timestamp),
            };
            Ok((key, r.get::<_, String>(6)?, r.get::<_, String>(8)?))
        })?;
        rows.map(|row| {
            let (key, roles, access_list) = row?;
            let place = Place { table: "api_keys", column: "ha1", id: &key.id.to_string() };
            let ha1 = Secret::new(self.seal.unseal(key.ha1.expose(), &place)?);
            Ok(ApiKey { ha1, roles: read(&roles)?, access_list: read(&access_list)?, ..key })
        })
        .collect()
    }

    /// Unless its time is over.
    pub fn api_key(&self, public_key: &str) -> Result<Option<ApiKey>, ServerError> {
        let now = Timestamp::now();
        Ok(self.keys("public_key = ?1", public_key)?.pop().filter(|key| key.ends_at.is_none_or(|at| at > now)))
    }

    /// An organization's, without its agents'.
    pub fn api_keys(&self, org: OrgId) -> Result<Vec<ApiKey>, ServerError> {
        self.keys("is_link = 0 AND org_id = ?1 ORDER BY id", &org.to_string())
    }

    /// `false` if there is no such key.
    pub fn delete_api_key(&self, key: ApiKeyId) -> Result<bool, ServerError> {
        let deleted = self.lock().execute("DELETE FROM api_keys WHERE is_link = 0 AND id = ?1", [key.to_string()])?;
        self.wipe();
        Ok(deleted == 1)
    }

    pub fn describe_key(&self, key: ApiKeyId, description: &str) -> Result<(), ServerError> {
        let row = params![key.to_string(), description];
        self.lock().execute("UPDATE api_keys SET description = ?2 WHERE id = ?1", row)?;
        Ok(())
    }

    pub fn set_roles(&self, key: ApiKeyId, roles: &[Role]) -> Result<(), ServerError> {
        let row = params![key.to_string(), text(&roles)?];
        self.lock().execute("UPDATE api_keys SET roles = ?2 WHERE id = ?1", row)?;
        Ok(())
    }

    /// Gives the caller one more role.
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

    pub fn set_access_list(&self, key: ApiKeyId, list: &[Allowed]) -> Result<(), ServerError> {
        let row = params![key.to_string(), text(&list)?];
        self.lock().execute("UPDATE api_keys SET access_list = ?2 WHERE id = ?1", row)?;
        Ok(())
    }
}

/// Adds a key; its HA1 is sealed.
pub(super) fn insert(connection: &rusqlite::Connection, key: &ApiKey, seal: &Seal) -> Result<(), ServerError> {
    let sealed = seal.seal(key.ha1.expose(), &Place { table: "api_keys", column: "ha1", id: &key.id.to_string() });
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
    let insert = "INSERT INTO api_keys (id, public_key, org_id, ha1, tail, description, roles, is_link, access_list)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.execute(insert, row)?;
    Ok(())
}
