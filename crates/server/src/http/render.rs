//! The only place where a response is made: media type, envelope, pretty print, errors, headers.

use crate::rate_limits::RateLimitExceeded;
use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, Uri, header},
};
use limosa_model::{ApiVersion, wire::error::FieldViolation};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What a handler answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    /// Absent with 202 and 204.
    pub body: Option<Value>,
    /// This version of the resource goes away: `Deprecation` and `Sunset`.
    pub sunset: bool,
}

impl Reply {
    pub fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Some(body), sunset: false }
    }

    pub fn with(status: StatusCode, body: Option<Value>) -> Self {
        Self { status, body, sunset: false }
    }
}

/// An error as clients read it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    /// `None` is written as null.
    pub parameters: Option<Vec<String>>,
    pub violations: Vec<FieldViolation>,
    pub retry_after: Option<i64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, parameters: &[&str]) -> Self {
        let parameters = Some(parameters.iter().map(|p| (*p).to_owned()).collect());
        Self { status, code, detail: detail.into(), parameters, violations: Vec::new(), retry_after: None }
    }

    pub fn bad(code: &'static str, detail: impl Into<String>, parameters: &[&str]) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail, parameters)
    }

    pub fn not_found(code: &'static str, detail: impl Into<String>, parameters: &[&str]) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail, parameters)
    }

    pub fn missing(name: &str) -> Self {
        Self::bad("MISSING_ATTRIBUTE", format!("The required attribute {name} was not specified."), &[name])
    }

    pub fn invalid(name: &str) -> Self {
        Self::bad("INVALID_ATTRIBUTE", format!("Invalid attribute {name} specified."), &[name])
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>, parameters: &[&str]) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail, parameters)
    }

    pub fn rate_limited(detail: impl Into<String>, parameters: &[&str], too_many: &RateLimitExceeded) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", detail, parameters);
        Self { retry_after: Some(too_many.retry_after_seconds), ..error }
    }

    /// The caller's access list doesn't have the address from which it asks.
    pub fn not_on_access_list(address: IpAddr) -> Self {
        let address = address.to_string();
        let detail = format!("IP address {address} is not allowed to access this resource.");
        Self::new(StatusCode::FORBIDDEN, "IP_ADDRESS_NOT_ON_ACCESS_LIST", detail, &[&address])
    }

    pub fn resource(what: &str) -> Self {
        Self::not_found("RESOURCE_NOT_FOUND", format!("Cannot find resource {what}."), &[what])
    }

    /// A path parameter that can't be an id.
    pub fn path_parameter(path: &str) -> Self {
        let detail = format!("One or more path parameter in the request URI {path} is malformed.");
        Self::bad("PATH_PARAM_PARSE_ERROR", detail, &[path])
    }

    pub fn malformed() -> Self {
        Self::bad("MALFORMED_JSON", "Received JSON is malformed.", &[])
    }

    pub fn query(name: &str) -> Self {
        Self::bad("INVALID_QUERY_PARAMETER", format!("Invalid query parameter {name} specified."), &[name])
    }

    /// Attributes that are of the right type and out of bounds.
    pub fn violations(violations: Vec<FieldViolation>) -> Self {
        let detail = "The request content produced validation errors.";
        Self { violations, ..Self::bad("VALIDATION_ERROR", detail, &[]) }
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "detail": self.detail,
            "error": self.status.as_u16(),
            "errorCode": self.code,
            "parameters": self.parameters,
            "reason": self.status.canonical_reason(),
        });
        if !self.violations.is_empty() {
            body["badRequestDetail"] = json!({"fields": self.violations});
        }
        body
    }
}

impl From<crate::ServerError> for ApiError {
    fn from(error: crate::ServerError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNEXPECTED_ERROR", "Unexpected error.", &[])
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        crate::ServerError::Store(error).into()
    }
}

/// How the client wants its answer written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RenderOptions {
    pub envelope: bool,
    pub pretty: bool,
}

impl RenderOptions {
    /// Those of the query.
    pub fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        let has = |name: &str| url::form_urlencoded::parse(query).any(|(n, v)| n == name && v == "true");
        Self { envelope: has("envelope"), pretty: has("pretty") }
    }
}

/// Writes a handler's result. `version` is absent outside of the Atlas part.
pub(crate) fn respond(
    result: Result<Reply, ApiError>,
    version: Option<ApiVersion>,
    options: RenderOptions,
) -> Response<Body> {
    let (status, body, media, extra) = match result {
        Ok(reply) => {
            let media = match version {
                Some(version) => format!("application/vnd.atlas.{version}+json;charset=utf-8"),
                None => "application/json".to_owned(),
            };
            (reply.status, reply.body, media, Extra { sunset: reply.sunset, ..Extra::default() })
        }
        Err(error) => {
            let extra = Extra { code: Some(error.code), retry_after: error.retry_after, sunset: false };
            (error.status, Some(error.body()), "application/json".to_owned(), extra)
        }
    };
    let (shown_status, body) = match body {
        Some(body) if options.envelope => (StatusCode::OK, Some(envelope(body, status))),
        body => (status, body),
    };
    let text = body.map(|body| if options.pretty { pretty(&body) } else { body.to_string() }).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = shown_status;
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set("content-type", media);
    extra.code.into_iter().for_each(|code| set("x-error-code", code.to_owned()));
    extra.retry_after.into_iter().for_each(|seconds| set("retry-after", seconds.to_string()));
    if extra.sunset {
        set("deprecation", "Thu, 30 May 2024 00:00:00 GMT".to_owned());
        set("sunset", "Thu, 1 Jul 2027 00:00:00 GMT".to_owned());
    }
    response
}

#[derive(Default)]
struct Extra {
    code: Option<&'static str>,
    retry_after: Option<i64>,
    sunset: bool,
}

/// The answer to missing or wrong credentials: always pretty, and with another order of fields.
pub(crate) fn unauthorized(challenge: &str) -> Response<Body> {
    const BODY: &str = "{\n  \"error\" : 401,\n  \"reason\" : \"Unauthorized\",\n  \"detail\" : \"You are not authorized for this \
                        resource.\",\n  \"errorCode\" : \"UNEXPECTED_ERROR\"\n}";
    let mut response = Response::new(Body::from(BODY));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(challenge) = HeaderValue::from_str(challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The answer to a method that a path doesn't have; `Allow` says which it has.
pub(crate) fn method_not_allowed(
    answer: &Response<Body>,
    method: &Method,
    path: &str,
    options: RenderOptions,
) -> Response<Body> {
    let detail = format!("Method {method} is not allowed for resource {path}.");
    let parameters = [method.as_str(), path];
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail, &parameters);
    let mut response = respond(Err(error), None, options);
    if let Some(allow) = answer.headers().get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    for (name, value) in answer.headers().iter().filter(|(name, _)| name.as_str().starts_with("ratelimit-")) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// Lists get a status next to their results, everything else a box.
fn envelope(body: Value, status: StatusCode) -> Value {
    match body {
        Value::Object(mut fields) if fields.contains_key("results") => {
            fields.insert("status".to_owned(), status.as_u16().into());
            Value::Object(fields)
        }
        body => json!({"content": body, "status": status.as_u16()}),
    }
}

/// Two spaces, a blank on both sides of the colon, arrays on one line.
fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_pretty(value, 0, &mut out);
    out
}

fn write_pretty(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => write_object(fields, depth, out),
        Value::Object(_) => out.push_str("{ }"),
        Value::Array(items) if items.is_empty() => out.push_str("[ ]"),
        Value::Array(items) => {
            out.push_str("[ ");
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_pretty(item, depth, out);
            }
            out.push_str(" ]");
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn write_object(fields: &Map<String, Value>, depth: usize, out: &mut String) {
    out.push('{');
    for (index, (name, value)) in fields.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.push_str(&"  ".repeat(depth + 1));
        out.push_str(&Value::String(name.clone()).to_string());
        out.push_str(" : ");
        write_pretty(value, depth + 1, out);
    }
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_print_is_that_of_atlas() {
        let body = json!({"b": ["x", "y"], "a": null, "c": {"d": []}, "e": {}});
        let expected =
            "{\n  \"a\" : null,\n  \"b\" : [ \"x\", \"y\" ],\n  \"c\" : {\n    \"d\" : [ ]\n  },\n  \"e\" : { }\n}";
        assert_eq!(pretty(&body), expected);
    }

    #[test]
    fn lists_carry_their_status_beside_the_results() {
        assert_eq!(envelope(json!({"results": []}), StatusCode::OK), json!({"results": [], "status": 200}));
        assert_eq!(envelope(json!({"x": 1}), StatusCode::NOT_FOUND), json!({"content": {"x": 1}, "status": 404}));
    }
}
