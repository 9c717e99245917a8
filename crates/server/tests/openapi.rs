//! The API document: against the published interface, and against itself a release ago.

use crate::support::{Answer, TestServer};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const CONTRACT: &str = include_str!("contract/live-migrations.openapi.json");

/// Statuses that are answered and that the published interface keeps quiet about.
const UNPUBLISHED: &[&str] = &["400", "406", "409", "413", "415"];

async fn served(server: &TestServer) -> Value {
    Answer::of(server.http.get(format!("{}/api/openapi.json", server.url))).await.json()
}

/// What `$ref` leads to.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("is there"),
        None => value,
    }
}

/// A schema without references and descriptions, null written in one way: as `nullable`.
fn plain(document: &Value, schema: &Value, depth: u32) -> Value {
    assert!(depth < 20, "endless");
    let mut schema = resolve(document, schema).clone();
    if let Some(choices) = schema["oneOf"].as_array() {
        let other = choices.iter().find(|c| c["type"] != "null").expect("one");
        let mut own = schema.as_object().cloned().unwrap_or_default();
        own.remove("oneOf");
        schema = resolve(document, other).clone();
        own.insert("nullable".to_owned(), true.into());
        own.into_iter().for_each(|(name, value)| schema[name] = value);
    }
    let Value::Object(mut fields) = schema else { return Value::Null };
    if let Some(types) = fields.get("type").and_then(Value::as_array).cloned() {
        fields.insert("nullable".to_owned(), types.iter().any(|t| t == "null").into());
        fields.insert("type".to_owned(), types.into_iter().find(|t| t != "null").expect("one"));
    }
    if let Some(allowed) = fields.get_mut("enum").and_then(Value::as_array_mut) {
        allowed.retain(|one| !one.is_null());
    }
    let mut kept = Map::new();
    for (name, value) in fields {
        let value = match name.as_str() {
            "properties" => {
                let inside = value.as_object().expect("an object").iter();
                Value::Object(inside.map(|(n, v)| (n.clone(), plain(document, v, depth + 1))).collect())
            }
            "items" => plain(document, &value, depth + 1),
            "required" => {
                let names: BTreeSet<&str> =
                    value.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
                json!(names)
            }
            "type" | "format" | "pattern" | "minLength" | "maxLength" | "minItems" | "maxItems" | "default" => value,
            "enum" => {
                let all: BTreeSet<&str> = value.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
                json!(all)
            }
            "nullable" | "readOnly" | "writeOnly" if value == true => value,
            _ => continue,
        };
        kept.insert(name, value);
    }
    Value::Object(kept)
}

/// Departures from the published schemas, each with its reason.
fn excused(mut schema: Value) -> Value {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return match schema["items"].is_object() {
            true => json!({"type": schema["type"], "items": excused(schema["items"].clone())}),
            false => schema,
        };
    };
    for (name, property) in properties {
        match name.as_str() {
            // They are strings; the published "object" is a generator's word for anything.
            "parameters" => *property = json!("anything"),
            // The published pattern matches every string.
            "migrationHosts" => {
                property["items"].as_object_mut().into_iter().for_each(|items| drop(items.remove("pattern")));
            }
            // The published interface doesn't say what an address looks like.
            "accessListIps" => {
                property["items"].as_object_mut().into_iter().for_each(|items| drop(items.remove("pattern")));
            }
            // Sharded destinations are refused as a whole.
            "sharding" => *property = json!("refused"),
            // No value of an enumeration is empty.
            "hostnameSchemaType" => drop(property.as_object_mut().and_then(|fields| fields.remove("minLength"))),
            _ => *property = excused(property.clone()),
        }
        property.as_object_mut().into_iter().for_each(|fields| {
            // That a whole object is read-only says nothing beyond its attributes' being so; lists say it of themselves.
            fields.remove("uniqueItems");
        });
    }
    schema
}

#[tokio::test]
async fn the_document_keeps_the_published_interface() {
    let server = TestServer::start().await;
    let ours = served(&server).await;
    let theirs: Value = serde_json::from_str(CONTRACT).expect("JSON");
    for (path, methods) in theirs["paths"].as_object().expect("paths") {
        for (method, wanted) in methods.as_object().expect("methods") {
            let at = format!("{method} {path}");
            let got = &ours["paths"][path][method];
            assert_eq!(got["operationId"], wanted["operationId"], "{at}");
            for parameter in wanted["parameters"].as_array().expect("parameters") {
                let parameter = resolve(&theirs, parameter);
                let own =
                    got["parameters"].as_array().expect("parameters").iter().find(|p| p["name"] == parameter["name"]);
                let own = own.unwrap_or_else(|| panic!("{at} lacks {parameter}"));
                for field in ["in", "required", "schema"] {
                    assert_eq!(own[field], parameter[field], "{at} {parameter}");
                }
            }
            let bodies = wanted["requestBody"]["content"].as_object().cloned().unwrap_or_default();
            assert_eq!(got["requestBody"]["required"], wanted["requestBody"]["required"], "{at}");
            for (media, body) in bodies {
                let own = &got["requestBody"]["content"][&media]["schema"];
                let (own, body) = (plain(&ours, own, 0), plain(&theirs, &body["schema"], 0));
                assert_eq!(excused(own), excused(body), "{at} {media}");
            }
            let mut statuses: BTreeSet<String> = BTreeSet::new();
            for (status, response) in wanted["responses"].as_object().expect("responses") {
                let status = match status.as_str() {
                    "200" if wanted["x-recorded-status"] == 201 => "201",
                    status => status,
                };
                statuses.insert(status.to_owned());
                let own = &got["responses"][status];
                assert!(own.is_object(), "{at} lacks {status}");
                for (media, body) in resolve(&theirs, response)["content"].as_object().expect("content") {
                    if body["schema"].is_null() {
                        continue;
                    }
                    let own = plain(&ours, &own["content"][media]["schema"], 0);
                    assert_eq!(excused(own), excused(plain(&theirs, &body["schema"], 0)), "{at} {status} {media}");
                }
            }
            for status in got["responses"].as_object().expect("responses").keys() {
                assert!(statuses.contains(status) || UNPUBLISHED.contains(&status.as_str()), "{at} has {status} too");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_as_it_was() {
    let server = TestServer::start().await;
    insta::assert_json_snapshot!(served(&server).await);
}

/// What is recorded of Atlas, in status, body and the headers that are kept.
#[tokio::test]
async fn recorded_answers_are_reproduced() {
    let server = TestServer::start().await;
    let path = server.org("liveMigrations/linkTokens");
    for (name, method, body) in [
        ("link-token-missing-delete", reqwest::Method::DELETE, None),
        ("link-token-create-post", reqwest::Method::POST, Some(json!({}))),
        ("link-token-delete-delete", reqwest::Method::DELETE, None),
    ] {
        let file = format!("{}/tests/contract/recorded/{name}.http", env!("CARGO_MANIFEST_DIR"));
        let recorded = std::fs::read_to_string(&file).expect("is there").replace("\r\n", "\n");
        let (head, text) = recorded.split_once("\n\n").unwrap_or((recorded.trim_end(), ""));
        let mut lines = head.lines();
        let status: u16 = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).expect("a status");
        let answer = server.call(method, &path, body).await;
        assert_eq!(answer.status, status, "{name}");
        for line in lines {
            let (header, value) = line.split_once(": ").expect("a header");
            match header.to_lowercase().as_str() {
                // Of this run, of Atlas's own inner parts, or only over TLS.
                "content-length" | "date" | "ratelimit-remaining" | "server" | "strict-transport-security" => {}
                inner
                    if inner.starts_with("x-java")
                        || inner.starts_with("x-envoy")
                        || inner.starts_with("x-mongodb") => {}
                header => assert_eq!(answer.header(header), value, "{name} {header}"),
            }
        }
        if name.contains("create") {
            assert_eq!(
                answer.json().as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()),
                Some(vec!["linkToken".to_owned()])
            );
        } else {
            assert_eq!(answer.text, text, "{name}");
        }
    }
}
