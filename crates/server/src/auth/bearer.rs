//! OAuth 2.0 client credentials: service accounts get access tokens, of which only hashes are kept.

use crate::{App, store::ServiceAccount};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use limosa_model::{OrgId, Secret, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How long an access token lives.
pub(crate) const LIFE_SECONDS: i64 = 3600;

/// `mdb_sa_id_` and 24 hexadecimal digits.
pub(crate) fn new_client_id() -> String {
    format!("mdb_sa_id_{}", OrgId::generate())
}

/// `mdb_sa_sk_` and 30 random bytes.
pub(crate) fn new_client_secret() -> Secret {
    let bytes: [u8; 30] = rand::random();
    Secret::new(format!("mdb_sa_sk_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// SHA-256 in hexadecimal: enough for secrets that are random.
pub(crate) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// User and password of a `Basic` header.
pub(crate) fn basic(header: &str) -> Option<(String, String)> {
    let decoded = STANDARD.decode(header.strip_prefix("Basic ")?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// A token.
pub(crate) fn new_token() -> Secret {
    let bytes: [u8; 36] = rand::random();
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// The account that `secret` opens, and that secret's id. All secrets are compared, and one for an unknown client too.
pub(crate) fn check(app: &App, client: &str, secret: &str, now: Timestamp) -> Option<(ServiceAccount, String)> {
    let known = app.store.service_account(client).ok().flatten();
    let (given, none) = (hash(secret), hash(""));
    let _: bool = given.as_bytes().ct_eq(none.as_bytes()).into();
    let account = known?;
    let mut found = None;
    for own in &account.secrets {
        let equal: bool = given.as_bytes().ct_eq(own.hash.as_bytes()).into();
        if equal && own.expires_at > now {
            found = Some(own.id.clone());
        }
    }
    found.map(|id| (account, id))
}
