//! Sessions of the page in the browser: a key or a service account signs in once and is known by a cookie from then on.
//! They live in memory, so that a restart signs everyone out, and name the key, or the service account and its secret:
//! each request looks these up again, and what is revoked or expired ends its sessions with it.

use crate::{
    App, ServerError,
    auth::{Credential, Principal, bearer, digest::REALM},
};
use axum::http::{HeaderMap, Uri, header};
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

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// The public key or the client id.
    pub name: String,
    /// Of a service account: which of its secrets opened it.
    pub secret: Option<String>,
    pub until: Timestamp,
}

/// All sessions, by the hash of their token.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    /// A new one; its token.
    pub fn open(&self, session: Session, now: Timestamp) -> Secret {
        let token = bearer::new_token();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, session| session.until > now);
        if known.len() >= MOST {
            let first = known.iter().min_by_key(|(_, session)| session.until).map(|(hash, _)| hash.clone());
            first.into_iter().for_each(|hash| drop(known.remove(&hash)));
        }
        known.insert(bearer::hash(token.expose()), session);
        token
    }

    /// The one whose token has this hash.
    pub fn get(&self, hash: &str, now: Timestamp) -> Option<Session> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).filter(|session| session.until > now).cloned()
    }

    pub fn close(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&bearer::hash(token));
    }
}

/// The cookie's name: over TLS one that no other host and no plain connection can set.
fn cookie_name(app: &App) -> &'static str {
    if app.is_secure() { "__Host-limosa_session" } else { "limosa_session" }
}

/// The header that sets the cookie; 0 seconds take it away.
pub(crate) fn cookie(app: &App, token: &str, seconds: i64) -> String {
    let secure = if app.is_secure() { "; Secure" } else { "" };
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
pub(crate) fn is_own(app: &App, headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // HTTP/2 has no Host: its authority is part of the address.
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text("host"));
    is_from(headers, host, app.public_url.as_deref())
}

/// The same, for a page that is reached at `host`, and at `public_url` if a proxy is before it.
fn is_from(headers: &HeaderMap, host: Option<&str>, public_url: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same_site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let is_host = |authority: &str| host.is_some_and(|host| authority.eq_ignore_ascii_case(host));
    let same_origin = text("origin").is_none_or(|origin| {
        let is_public = public_url.is_some_and(|url| url.eq_ignore_ascii_case(origin));
        is_public || origin.split_once("://").is_some_and(|(_, authority)| is_host(authority))
    });
    headers.contains_key(OWN) && same_site && same_origin
}

/// The caller behind a session, and until when it is one.
pub(crate) fn caller(app: &App, headers: &HeaderMap, now: Timestamp) -> Option<(Principal, Timestamp)> {
    by_hash(app, &bearer::hash(token(app, headers)?), now).ok()?
}

/// The caller behind the session whose token has this hash.
pub(crate) fn by_hash(app: &App, hash: &str, now: Timestamp) -> Result<Option<(Principal, Timestamp)>, ServerError> {
    let Some(Session { name, secret, until }) = app.sessions.get(hash, now) else { return Ok(None) };
    let credential = Credential::Session(hash.to_owned());
    let found = match secret {
        None => app.store.api_key(&name)?.filter(|key| !key.is_link).map(crate::store::ApiKey::principal),
        Some(secret) => {
            let account = app.store.service_account(&name)?;
            let account = account.filter(|account| account.secret(&secret, now).is_some());
            account.map(|account| account.principal(credential.clone()))
        }
    };
    Ok(found.map(|found| (Principal { credential, ..found }, until)))
}

/// Who signs in with a key or a service account, and with which secret of the latter. Unknown names and wrong secrets take
/// the same way.
pub(crate) fn check(app: &App, name: &str, secret: &str, now: Timestamp) -> Option<(Principal, Option<String>)> {
    let key = app.store.api_key(name).ok().flatten().filter(|key| !key.is_link);
    let ha1 = key.as_ref().map_or_else(|| digest::ha1("", REALM, ""), |key| key.ha1.expose().to_owned());
    let by_key: bool = digest::ha1(name, REALM, secret).as_bytes().ct_eq(ha1.as_bytes()).into();
    let account = bearer::check(app, name, secret, now);
    let key = key.filter(|_| by_key).map(|key| (key.principal(), None));
    key.or_else(|| {
        let (account, secret) = account?;
        Some((account.principal(Credential::Session(String::new())), Some(secret)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_time_and_by_being_closed() {
        let sessions = Sessions::default();
        let session = Session { name: "key".to_owned(), secret: None, until: Timestamp(1000) };
        let token = sessions.open(session.clone(), Timestamp(0));
        let hash = bearer::hash(token.expose());
        assert_eq!(sessions.get(&hash, Timestamp(999)), Some(session));
        assert_eq!(sessions.get(&hash, Timestamp(1000)), None);
        assert_eq!(sessions.get("other", Timestamp(0)), None);
        sessions.close(token.expose());
        assert_eq!(sessions.get(&hash, Timestamp(0)), None);
    }

    #[test]
    fn only_the_pages_own_requests_may_change_anything() {
        let from = |pairs: &[(&'static str, &'static str)], host: Option<&str>, public: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, axum::http::HeaderValue::from_static(value));
            }
            is_from(&headers, host, public)
        };
        let own = |pairs: &[(&'static str, &'static str)]| from(pairs, Some("limosa:8080"), None);
        let mark = (OWN, "1");
        assert!(own(&[mark]) && own(&[mark, ("origin", "http://limosa:8080")]));
        assert!(own(&[mark, ("sec-fetch-site", "same-origin")]));
        assert!(!own(&[]) && !own(&[mark, ("origin", "http://evil")]));
        assert!(!own(&[mark, ("sec-fetch-site", "same-site")]) && !own(&[mark, ("origin", "null")]));
        // Without a host nothing is taken for the same origin.
        assert!(from(&[mark], None, None) && !from(&[mark, ("origin", "http://evil")], None, None));
        let public = Some("https://limosa.example.com");
        assert!(from(&[mark, ("origin", "https://limosa.example.com")], Some("10.0.0.1:8080"), public));
        assert!(!from(&[mark, ("origin", "http://limosa.example.com")], Some("10.0.0.1:8080"), public));
    }
}
