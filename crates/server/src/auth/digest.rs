//! Checks a `Digest` header. Unknown keys and wrong secrets take the same way, so that neither time nor answer tells
//! them apart.

use crate::{
    App, ServerError,
    auth::{Principal, nonce::Nonce},
};
use limosa_model::{Timestamp, digest};
use subtle::ConstantTimeEq;

/// The realm that clients know from Atlas.
pub(crate) const REALM: &str = "MMS Public API";

/// Why the credentials don't serve.
#[derive(Debug)]
pub(crate) enum DigestError {
    Wrong,
    Stale,
    /// The store can't be asked.
    Unknown(ServerError),
}

/// The header that asks for credentials. Go's client splits it on `", "` and knows just these parameters.
pub(crate) fn challenge(nonce: &str, stale: bool) -> String {
    format!(r#"Digest realm="{REALM}", domain="", nonce="{nonce}", algorithm=MD5, qop="auth", stale={stale}"#)
}

/// Who sent this `Authorization`. `target` is the request's path with its query.
pub(crate) fn check(
    app: &App,
    header: &str,
    method: &str,
    target: &str,
    now: Timestamp,
) -> Result<Principal, DigestError> {
    let parameters = digest::parse_parameters(header).ok_or(DigestError::Wrong)?;
    let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let uri = get("uri");
    if (uri != target && uri != path) || get("realm") != REALM || get("qop") != "auth" {
        return Err(DigestError::Wrong);
    }
    let key = app.store.api_key(get("username")).map_err(DigestError::Unknown)?;
    let ha1 = key.as_ref().map_or_else(|| digest::ha1("", REALM, ""), |key| key.ha1.expose().to_owned());
    let signed =
        digest::Challenge { method, uri, nonce: get("nonce"), nc: get("nc"), cnonce: get("cnonce"), qop: "auth" };
    let expected = digest::response(&ha1, signed);
    let equal: bool = expected.as_bytes().ct_eq(get("response").as_bytes()).into();
    match (equal, key) {
        (true, Some(key)) => match app.nonces.take(get("nonce"), get("nc"), now) {
            Nonce::Fresh => Ok(key.principal()),
            Nonce::Stale => Err(DigestError::Stale),
            Nonce::Replayed => Err(DigestError::Wrong),
        },
        _ => Err(DigestError::Wrong),
    }
}
