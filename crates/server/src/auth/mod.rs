//! Who is asking: digest, bearer or a session, all yield one [`Principal`].

pub(crate) mod access_list;
pub(crate) mod bearer;
pub(crate) mod digest;
pub(crate) mod nonce;
pub(crate) mod roles;
pub(crate) mod session;

use crate::{App, ServerError, store::Allowed};
use limosa_model::{OrgId, Secret, Timestamp, ids::ApiKeyId, wire::account::Role};
use rand::RngExt;
use std::net::IpAddr;

/// An authenticated caller: all keys are of one organization.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub org_id: OrgId,
    /// The public key or client id: the name under which requests are counted.
    pub name: String,
    /// With digest authentication.
    pub key: Option<ApiKeyId>,
    /// By what it was let in.
    pub credential: Credential,
    pub roles: Vec<Role>,
    /// An agent's key: may speak as an agent, and nothing else.
    pub is_link: bool,
    /// An agent's key that was replaced: lets no other agent join.
    pub is_replaced: bool,
    /// From where it works; empty is everywhere.
    pub access_list: Vec<Allowed>,
}

/// By what a caller was let in: what outlives one request is ended with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The key that [`Principal::name`] names.
    Key,
    /// A bearer token, by its hash.
    Token(String),
    /// A session of the page, by its token's hash.
    Session(String),
}

/// The caller as it is now, or none if what let it in doesn't any more: revoked, expired, or bound to other addresses.
pub(crate) fn renewed(
    app: &App,
    known: &Principal,
    address: IpAddr,
    now: Timestamp,
) -> Result<Option<Principal>, ServerError> {
    let found = match &known.credential {
        Credential::Key => app.store.api_key(&known.name)?.map(crate::store::ApiKey::principal),
        Credential::Token(hash) => {
            app.store.token(hash, now)?.map(|account| account.principal(known.credential.clone()))
        }
        Credential::Session(hash) => session::by_hash(app, hash, now)?.map(|(principal, _)| principal),
    };
    Ok(found.filter(|found| found.key == known.key && access_list::admits(&found.access_list, address)))
}

/// Eight lowercase letters.
pub(crate) fn new_public_key() -> String {
    let mut rng = rand::rng();
    (0..8).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}

/// A UUID of version 4.
pub(crate) fn new_private_key() -> Secret {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Secret::new(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
