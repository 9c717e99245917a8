//! Sessions of the page in the browser: a key or a service account signs in once and is known by a cookie from then on.
//! They live in memory, so that a restart signs everyone out, and name the key only: each request looks it up again, and
//! a revoked key ends its sessions with it.

use super::{Principal, bearer, digest::REALM};
use crate::App;
use axum::http::{HeaderMap, header};
use limosa_model::{Secret, Timestamp, digest};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use subtle::ConstantTimeEq;

/// The header that the page's own requests carry. No other site can send it without being asked first.
pub(crate) const OWN: &str = "x-limosa-request";

/// Sessions kept at most; beyond, the one that ends first goes.
const MOST: usize = 10_000;

/// All sessions, by the hash of their token.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, (String, Timestamp)>>);

impl Sessions {
    /// A new one for `name`; its token.
    pub fn open(&self, name: &str, expires_at: Timestamp, now: Timestamp) -> Secret {
        let token = bearer::new_token();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, until)| *until > now);
        if known.len() >= MOST {
            let first = known.iter().min_by_key(|(_, (_, until))| *until).map(|(hash, _)| hash.clone());
            first.into_iter().for_each(|hash| drop(known.remove(&hash)));
        }
        known.insert(bearer::hash(token.expose()), (name.to_owned(), expires_at));
        token
    }

    /// Whose it is, and until when.
    pub fn name(&self, token: &str, now: Timestamp) -> Option<(String, Timestamp)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&bearer::hash(token)).filter(|(_, until)| *until > now).cloned()
    }

    pub fn close(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&bearer::hash(token));
    }
}

/// The cookie's name: over TLS one that no other host and no plain connection can set.
fn cookie_name(app: &App) -> &'static str {
    if app.tls { "__Host-limosa_session" } else { "limosa_session" }
}

/// The header that sets the cookie; 0 seconds take it away.
pub(crate) fn cookie(app: &App, token: &str, seconds: i64) -> String {
    let secure = if app.tls { "; Secure" } else { "" };
    format!("{}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", cookie_name(app))
}

/// The session's token that a request carries.
pub(crate) fn token<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(app);
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, token)| if found == name { Some(token) } else { None })
}

/// Whether a request that changes something was made by the page: it carries the page's header, and the browser
/// names no other origin.
pub(crate) fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").unwrap_or_default();
    let same_site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    // HTTP/2 has no Host; there `sec-fetch-site` and the page's header speak.
    let same_origin = text("origin").is_none_or(|origin| {
        host.is_empty() || origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    });
    headers.contains_key(OWN) && same_site && same_origin
}

/// The caller behind a session, and until when it is one.
pub(crate) fn caller(app: &App, headers: &HeaderMap, now: Timestamp) -> Option<(Principal, Timestamp)> {
    let (name, until) = app.sessions.name(token(app, headers)?, now)?;
    let key = app.store.api_key(&name).ok()?.filter(|key| !key.is_link).map(crate::store::ApiKey::principal);
    let account = || {
        let account = app.store.service_account(&name).ok()??;
        (account.expires_at > now).then(|| account.principal())
    };
    key.or_else(account).map(|principal| (principal, until))
}

/// Who signs in with a key or a service account. Unknown names and wrong secrets take the same way.
pub(crate) fn check(app: &App, name: &str, secret: &str, now: Timestamp) -> Option<Principal> {
    let key = app.store.api_key(name).ok().flatten().filter(|key| !key.is_link);
    let ha1 = key.as_ref().map_or_else(|| digest::ha1("", REALM, ""), |key| key.ha1.expose().to_owned());
    let by_key: bool = digest::ha1(name, REALM, secret).as_bytes().ct_eq(ha1.as_bytes()).into();
    let account = app.store.service_account(name).ok().flatten().filter(|account| account.expires_at > now);
    let hash = account.as_ref().map_or_else(|| bearer::hash(""), |account| account.secret_hash.clone());
    let by_account: bool = bearer::hash(secret).as_bytes().ct_eq(hash.as_bytes()).into();
    let key = key.filter(|_| by_key).map(crate::store::ApiKey::principal);
    key.or_else(|| account.filter(|_| by_account).map(crate::store::ServiceAccount::principal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_time_and_by_being_closed() {
        let sessions = Sessions::default();
        let token = sessions.open("key", Timestamp(1000), Timestamp(0));
        assert_eq!(sessions.name(token.expose(), Timestamp(999)), Some(("key".to_owned(), Timestamp(1000))));
        assert_eq!(sessions.name(token.expose(), Timestamp(1000)), None);
        assert_eq!(sessions.name("other", Timestamp(0)), None);
        sessions.close(token.expose());
        assert_eq!(sessions.name(token.expose(), Timestamp(0)), None);
    }

    #[test]
    fn only_the_pages_own_requests_may_change_anything() {
        let own = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, axum::http::HeaderValue::from_static(value));
            }
            is_own(&headers)
        };
        let (mark, host) = ((OWN, "1"), ("host", "limosa:8080"));
        assert!(own(&[mark, host]) && own(&[mark, host, ("origin", "http://limosa:8080")]));
        assert!(own(&[mark, host, ("sec-fetch-site", "same-origin")]));
        assert!(!own(&[host]) && !own(&[mark, host, ("origin", "http://evil")]));
        assert!(!own(&[mark, host, ("sec-fetch-site", "same-site")]) && !own(&[mark, host, ("origin", "null")]));
    }
}
