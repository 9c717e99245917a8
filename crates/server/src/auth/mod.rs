//! Who is asking: digest, bearer or a session, all yield one [`Principal`].

pub(crate) mod access_list;
pub(crate) mod bearer;
pub(crate) mod digest;
pub(crate) mod nonce;
pub(crate) mod roles;
pub(crate) mod session;

use limosa_model::{OrgId, Secret, ids::ApiKeyId, wire::account::Role};
use rand::RngExt;

/// An authenticated caller: all keys are of one organization.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub org_id: OrgId,
    /// The public key or client id: the name under which requests are counted.
    pub name: String,
    /// With digest authentication.
    pub key: Option<ApiKeyId>,
    pub roles: Vec<Role>,
    /// An agent's key: may speak as an agent, and nothing else.
    pub is_link: bool,
    /// From where it works; empty is everywhere.
    pub access_list: Vec<String>,
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
