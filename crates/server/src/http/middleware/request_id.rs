//! Names each request in the log.

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, Response},
    middleware::Next,
};
use tracing::Instrument;

/// The header in which a client may choose the id; its answer then has it too.
const HEADER: &str = "x-request-id";

/// The longest id that a client may choose.
const LONGEST: usize = 64;

/// Logs all of the request in a span of its own: id, method, and the path as in the API document, without a value of it.
pub(crate) async fn name(request: Request, next: Next) -> Response<Body> {
    let chosen = chosen(request.headers());
    let id = chosen.clone().unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let span = tracing::info_span!("request", %id, method = method(request.method()), route);
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "the request was answered"));
    if let Some(id) = chosen.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}

/// The client's own id, if it is short and of letters, digits, `.`, `_` and `-`.
fn chosen(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    ((1..=LONGEST).contains(&id.len()) && is_plain).then(|| id.to_owned())
}

/// The method, if it is a known one: what a client makes up becomes neither a line of the log nor a series.
pub(crate) fn method(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "POST" | "PUT" | "DELETE" | "PATCH" | "HEAD" | "OPTIONS") => known,
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_and_plain_id_is_taken_from_a_client() {
        let chosen = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(id).expect("a header's value"));
            chosen(&headers)
        };
        assert_eq!(chosen(b"0f-1.B_2"), Some("0f-1.B_2".to_owned()));
        assert_eq!(chosen(&[b'a'; LONGEST]), Some("a".repeat(LONGEST)));
        for refused in [b"".as_slice(), &[b'a'; LONGEST + 1], b"a b", b"a\tb", b"\"a\"", "\u{e4}".as_bytes(), b"a=b"] {
            assert_eq!(chosen(refused), None);
        }
    }
}
