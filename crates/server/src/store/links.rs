//! Which organization is linked, and with which key its agents come: the link token.

use crate::{
    ServerError,
    store::{ApiKey, Store, api_keys},
};
use limosa_model::{OrgId, Timestamp};
use rusqlite::params;

impl Store {
    /// Links the organization with a key for its agents; `false` if it is linked already.
    pub fn create_link(&self, key: &ApiKey) -> Result<bool, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let row = params![key.org_id.to_string(), key.public_key];
        if transaction.execute("INSERT OR IGNORE INTO links VALUES (?1, ?2)", row)? == 0 {
            return Ok(false);
        }
        api_keys::insert(&transaction, key, &self.seal)?;
        transaction.commit()?;
        Ok(true)
    }

    /// The link's key, if the organization is linked.
    pub fn link(&self, org: OrgId) -> Result<Option<ApiKey>, ServerError> {
        let condition = "public_key = (SELECT public_key FROM links WHERE org_id = ?1)";
        Ok(self.keys(condition, &org.to_string())?.pop())
    }

    /// Links the organization with another key. The one before lives until `until`, all earlier ones end now.
    pub fn replace_link(&self, key: &ApiKey, until: Timestamp, now: Timestamp) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let org = key.org_id.to_string();
        transaction
            .execute("DELETE FROM api_keys WHERE is_link = 1 AND org_id = ?1 AND ends_at IS NOT NULL", [&org])?;
        let ended = "UPDATE api_keys SET ends_at = ?2 WHERE is_link = 1 AND org_id = ?1";
        transaction.execute(ended, params![org, until.0])?;
        transaction.execute("DELETE FROM api_keys WHERE is_link = 1 AND ends_at <= ?1", [now.0])?;
        transaction.execute("UPDATE links SET public_key = ?2 WHERE org_id = ?1", params![org, key.public_key])?;
        api_keys::insert(&transaction, key, &self.seal)?;
        Ok(transaction.commit()?)
    }

    /// Revokes the link, and what is left of those before it; `false` if there is none.
    pub fn delete_link(&self, org: OrgId) -> Result<bool, ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM api_keys WHERE is_link = 1 AND org_id = ?1", [org.to_string()])?;
        let deleted = transaction.execute("DELETE FROM links WHERE org_id = ?1", [org.to_string()])?;
        transaction.commit()?;
        drop(connection);
        self.wipe();
        Ok(deleted == 1)
    }
}
