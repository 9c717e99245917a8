//! The API document, made of the table of routes and the bodies' own schemas.

use crate::http::{route::Route, shape::collect, table::routes};
use axum::http::StatusCode;
use limosa_model::wire::error::ApiError;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// All bodies' schemas by name.
pub(crate) fn components() -> &'static Value {
    static COMPONENTS: OnceLock<Value> = OnceLock::new();
    COMPONENTS.get_or_init(|| {
        let mut all = Vec::new();
        collect::<ApiError>(&mut all);
        collect::<limosa_model::wire::live_migration::Link>(&mut all);
        for route in routes() {
            route.bodies().iter().for_each(|(_, shape)| (shape.collect)(&mut all));
            (route.answer.collect)(&mut all);
        }
        let schemas: Map<String, Value> =
            all.into_iter().map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or(Value::Null))).collect();
        let mut schemas = Value::Object(schemas);
        hoist(&mut schemas);
        close(&mut schemas);
        schemas
    })
}

/// Those that the document refers to: not the agents' protocol's.
fn documented() -> Value {
    let mut hidden = Vec::new();
    let mut shown = Vec::new();
    for route in routes() {
        let all = if route.documented { &mut shown } else { &mut hidden };
        route.bodies().iter().for_each(|(_, shape)| (shape.collect)(all));
        (route.answer.collect)(all);
    }
    let mut schemas = components().clone();
    for (name, _) in hidden.iter().filter(|(name, _)| !shown.iter().any(|(known, _)| known == name)) {
        schemas.as_object_mut().into_iter().for_each(|all| drop(all.remove(name)));
    }
    schemas
}

/// `utoipa` writes a list's being read- or write-only at its items; it belongs to the list.
fn hoist(value: &mut Value) {
    if let Some(items) = value.get_mut("items").and_then(Value::as_object_mut) {
        let found = ["readOnly", "writeOnly"].map(|name| items.remove(name).map(|flag| (name, flag)));
        found.into_iter().flatten().for_each(|(name, flag)| value[name] = flag);
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(hoist),
        Value::Array(items) => items.iter_mut().for_each(hoist),
        _ => {}
    }
}

/// What a request may hold is all that its schema names; answers may grow, and so may what agents of later versions say.
fn close(schemas: &mut Value) {
    let (mut taken, mut told) = (Vec::new(), Vec::new());
    for route in routes() {
        let all = if route.documented { &mut taken } else { &mut told };
        route.bodies().iter().for_each(|(_, shape)| (shape.collect)(all));
    }
    let mut set = |name: &str, is_open: bool| {
        if schemas[name]["type"] == "object" && schemas[name].get("additionalProperties").is_none() {
            schemas[name]["additionalProperties"] = is_open.into();
        }
    };
    taken.iter().for_each(|(name, _)| set(name, false));
    told.iter().for_each(|(name, _)| set(name, true));
}

/// The document.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut paths: Map<String, Value> = Map::new();
        for route in routes().iter().filter(|route| route.documented) {
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method.as_str().to_ascii_lowercase()] = operation(route);
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Limosa",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "The Cloud Migration Service of the Atlas Administration API v2, and what Limosa adds to it.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "security": [{"DigestAuth": []}, {"ServiceAccounts": []}],
            "paths": paths,
            "components": {
                "headers": {
                    "RateLimit-Limit": {"description": "Requests a minute", "schema": {"type": "integer"}},
                    "RateLimit-Remaining": {"description": "What is left of them", "schema": {"type": "integer"}},
                    "Retry-After": {"description": "Seconds", "schema": {"type": "integer"}},
                },
                "schemas": documented(),
                "securitySchemes": {
                    "DigestAuth": {"type": "http", "scheme": "digest"},
                    "ServiceAccounts": {"type": "oauth2", "flows": {
                        "clientCredentials": {"tokenUrl": "/api/oauth/token", "scopes": {}},
                    }},
                },
            },
        })
    })
}

fn operation(route: &Route) -> Value {
    let limits = json!({
        "RateLimit-Limit": {"$ref": "#/components/headers/RateLimit-Limit"},
        "RateLimit-Remaining": {"$ref": "#/components/headers/RateLimit-Remaining"},
    });
    let mut success = json!({"description": route.summary, "headers": limits});
    success["content"] = content(route, |version| {
        let mut media = route.answer.schema.clone().map_or(json!({}), |schema| json!({"schema": schema}));
        if let Some(version) = version.filter(|version| route.is_deprecated(*version)) {
            media["x-sunset"] = "2027-07-01".into();
            media["x-xgen-version"] = version.to_string().into();
        }
        media
    });
    if route.answer.schema.is_none() {
        // There is no body, only its media type.
        success.as_object_mut().into_iter().for_each(|fields| drop(fields.remove("content")));
    }
    if route.stream.is_some() {
        success["content"]["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let mut responses = Map::from_iter([(route.answer.status.as_str().to_owned(), success)]);
    let mut refusals = vec![400, 401, 403, 404, 429, 500];
    if route.method != axum::http::Method::GET {
        refusals.push(409);
    }
    if !route.versions.is_empty() {
        refusals.push(406);
    }
    if !route.bodies().is_empty() {
        refusals.extend([413, 415]);
    }
    for status in refusals {
        responses.insert(status.to_string(), refusal(status, &limits));
    }
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": parameters(route),
        "responses": responses,
    });
    if !route.role.is_empty() {
        operation["x-rolesRequirements"] = json!([route.role]);
    }
    if let [(_, first), ..] = route.bodies() {
        let content = content(route, |version| {
            let shape = version.and_then(|version| route.body_at(version)).unwrap_or(first);
            json!({"schema": shape.schema})
        });
        operation["requestBody"] = json!({"required": first.required, "content": content});
    }
    operation
}

/// One entry a version, or one for plain JSON.
fn content(route: &Route, entry: impl Fn(Option<limosa_model::ApiVersion>) -> Value) -> Value {
    if route.versions.is_empty() {
        return json!({"application/json": entry(None)});
    }
    let media = |version: &limosa_model::ApiVersion| format!("application/vnd.atlas.{version}+json");
    Value::Object(route.versions.iter().map(|version| (media(version), entry(Some(*version)))).collect())
}

fn refusal(status: u16, limits: &Value) -> Value {
    let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let mut headers = if status == 401 { json!({}) } else { limits.clone() };
    if status == 429 {
        headers["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After"});
    }
    json!({
        "description": reason,
        "headers": headers,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ApiError"}}},
    })
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let is_id = matches!(name, "groupId" | "orgId" | "liveMigrationId" | "validationId" | "apiUserId");
        let schema = if is_id {
            json!({"type": "string", "pattern": "^([a-f0-9]{24})$"})
        } else {
            json!({"type": "string", "minLength": 1})
        };
        parameters.push(json!({"in": "path", "name": name, "required": true, "schema": schema}));
    }
    for name in ["envelope", "pretty"].iter().chain(&route.query) {
        let schema = match *name {
            "envelope" | "pretty" => json!({"type": "boolean", "default": false}),
            "includeCount" => json!({"type": "boolean", "default": true}),
            "pageNum" => json!({"type": "integer", "default": 1, "minimum": 0, "maximum": 1_000_000}),
            "itemsPerPage" => json!({"type": "integer", "default": 100, "minimum": 1, "maximum": 500}),
            "status" => json!({"type": "string", "enum": ["NEW", "WORKING", "FAILED", "COMPLETE", "EXPIRED"]}),
            "phase" => json!({"$ref": "#/components/schemas/PhaseKind"}),
            _ => json!({"type": "string"}),
        };
        parameters.push(json!({"in": "query", "name": name, "schema": schema}));
    }
    parameters
}
