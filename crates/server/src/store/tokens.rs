//! Bearer tokens that secrets of service accounts were exchanged for; only their hashes are kept.

use crate::{
    ServerError,
    auth::bearer,
    store::{ServiceAccount, Store},
};
use limosa_model::{Secret, Timestamp};
use rusqlite::{OptionalExtension, params};

impl Store {
    /// Keeps the hash of a token that `secret` of `client` was exchanged for.
    pub fn create_token(&self, token: &Secret, client: &str, secret: &str, now: Timestamp) -> Result<(), ServerError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM tokens WHERE expires_at <= ?1", [now.0])?;
        let row = params![bearer::hash(token.expose()), client, now.plus_seconds(bearer::LIFE_SECONDS).0, secret];
        let insert = "INSERT INTO tokens (hash, client_id, expires_at, secret_id) VALUES (?1, ?2, ?3, ?4)";
        transaction.execute(insert, row)?;
        let used = "UPDATE service_account_secrets SET last_used_at = ?2 WHERE id = ?1";
        transaction.execute(used, params![secret, now.0])?;
        Ok(transaction.commit()?)
    }

    /// Whose token has this hash, as long as the secret that it came from is good.
    pub fn token(&self, hash: &str, now: Timestamp) -> Result<Option<ServiceAccount>, ServerError> {
        match self.client_of(hash, now)? {
            Some(client) => self.service_account(&client),
            None => Ok(None),
        }
    }

    fn client_of(&self, hash: &str, now: Timestamp) -> Result<Option<String>, ServerError> {
        let connection = self.reader();
        let mut query = connection.prepare_cached(
            "SELECT t.client_id FROM tokens t JOIN service_account_secrets s ON s.id = t.secret_id
             WHERE t.hash = ?1 AND t.expires_at > ?2 AND s.expires_at > ?2",
        )?;
        Ok(query.query_row(params![hash, now.0], |r| r.get(0)).optional()?)
    }

    pub fn delete_token(&self, token: &str, client: &str) -> Result<(), ServerError> {
        let row = params![bearer::hash(token), client];
        self.lock().execute("DELETE FROM tokens WHERE hash = ?1 AND client_id = ?2", row)?;
        Ok(())
    }
}
