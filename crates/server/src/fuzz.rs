//! Broken input for all that reads what clients send before anything is known of them. Nothing panics, and what is read
//! strictly is read as every other reader would read it.
//!
//! Each target is a test of a second or so; see the engine's for long runs.

use crate::{
    auth::bearer,
    http::{body_validation, negotiate::negotiate, openapi, strict_json::Strict, table},
};
use bolero::check;
use limosa_model::{ApiVersion, Secret, digest, uri::Uri};
use serde_json::Value;

const VERSIONS: &[ApiVersion] = &[ApiVersion::V2023_01_01, ApiVersion::V2024_05_30];

#[test]
fn any_accept_header_is_negotiated_or_refused() {
    check!().for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        for accept in [text.to_string(), format!("application/vnd.atlas.{text}+json")] {
            if let Ok(version) = negotiate(&accept, VERSIONS, &[]) {
                assert!(VERSIONS.contains(&version));
            }
        }
    });
}

#[test]
fn any_authorization_header_is_read_or_refused() {
    check!().for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let _ = (bearer::basic(&text), bearer::basic(&format!("Basic {text}")));
        for header in [text.to_string(), format!("Digest {text}"), format!("Digest username=\"{text}\", nc=1")] {
            for (name, _) in digest::parse_parameters(&header).unwrap_or_default() {
                assert!(header.to_ascii_lowercase().contains(&name));
            }
        }
    });
}

#[test]
fn what_is_read_strictly_is_what_everyone_reads() {
    check!().for_each(|input: &[u8]| {
        if let Ok(Strict(value)) = serde_json::from_slice::<Strict>(input) {
            assert_eq!(serde_json::from_slice::<Value>(input).ok(), Some(value));
        }
    });
}

#[test]
fn any_uri_is_read_whole_or_refused_without_a_word_of_it() {
    const PASSWORD: &str = "hunter2";
    check!().for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let forms =
            [text.to_string(), format!("mongodb://{text}"), format!("mongodb://u:{PASSWORD}{text}@h/?w=1&{text}")];
        for form in forms {
            match Uri::parse(&Secret::new(form)) {
                Ok(uri) => {
                    assert!(!uri.shown().contains(PASSWORD));
                    let again = Uri::parse(&uri.to_secret()).expect("what was read is written to be read");
                    assert_eq!(again.shown(), uri.shown());
                }
                Err(fault) => assert!(!fault.to_string().contains(PASSWORD), "{fault}"),
            }
        }
    });
}

/// Bodies that are nearly right, for every shape that there is.
#[test]
fn any_body_is_held_against_its_schema() {
    let shapes: Vec<_> = table::routes().iter().flat_map(|route| route.bodies()).map(|(_, shape)| shape).collect();
    let names: Vec<&str> = openapi::components()
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, schema)| schema["properties"].as_object())
        .flat_map(|properties| properties.keys().map(String::as_str))
        .collect();
    check!().for_each(|input: &[u8]| {
        let Some((which, rest)) = input.split_first() else { return };
        let fields = rest.chunks(3).map(|chunk| {
            let name = names[usize::from(chunk[0]) * 7 % names.len()].to_owned();
            (name, value(chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)))
        });
        let mut body = Value::Object(fields.collect());
        let shape = shapes[usize::from(*which) % shapes.len()];
        let _ = body_validation::check(&mut body, &shape.schema, openapi::components());
    });
}

fn value(kind: u8, of: u8) -> Value {
    match kind % 7 {
        0 => Value::Null,
        1 => Value::Bool(of.is_multiple_of(2)),
        2 => Value::from(i64::from(of) << (of % 56)),
        3 => Value::from(f64::from(of) * 1e300),
        4 => Value::from("x".repeat(usize::from(of))),
        5 => Value::from(vec![Value::from("y"); usize::from(of % 40)]),
        _ => serde_json::json!({"id": of, "name": [of]}),
    }
}
