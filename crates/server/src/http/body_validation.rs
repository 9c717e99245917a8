//! Holds a request's body against the schema that the API document shows, so that what is published and what is
//! accepted can't differ. Each departure has the error that Atlas has for it.

use crate::http::render::ApiError;
use limosa_model::wire::error::FieldViolation;
use regex::Regex;
use serde_json::{Map, Number, Value};
use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

/// Checks `body` against `schema`, following references into `components`. Attributes that are read-only are dropped,
/// as is a null where the schema has room for one.
pub(crate) fn check(body: &mut Value, schema: &Value, components: &Value) -> Result<(), ApiError> {
    let mut check = Check { components, violations: Vec::new() };
    match check.value(body, schema, "") {
        // Enough were found.
        Err(_) if check.violations.len() == MOST_VIOLATIONS => {}
        checked => checked?,
    }
    if check.violations.is_empty() { Ok(()) } else { Err(ApiError::violations(check.violations)) }
}

/// Violations that are told at most: a body may have as many as it has bytes.
const MOST_VIOLATIONS: usize = 20;

struct Check<'a> {
    components: &'a Value,
    /// What is of the right type and out of bounds: all are told at once.
    violations: Vec<FieldViolation>,
}

impl<'a> Check<'a> {
    /// The schema itself, and whether null fits too.
    fn resolve(&self, schema: &'a Value) -> (&'a Value, bool) {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
            return self.resolve(&self.components[name]);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let is_null = |choice: &&Value| choice["type"] == "null";
            let nullable = choices.iter().any(|choice| is_null(&choice));
            if let Some(other) = choices.iter().find(|choice| !is_null(choice)) {
                return (self.resolve(other).0, nullable);
            }
        }
        let nullable = schema["type"].as_array().is_some_and(|types| types.iter().any(|t| t == "null"));
        (schema, nullable)
    }

    fn value(&mut self, value: &mut Value, schema: &'a Value, path: &str) -> Result<(), ApiError> {
        let (schema, nullable) = self.resolve(schema);
        if value.is_null() && nullable {
            return Ok(());
        }
        let mismatch = || {
            let detail = format!("Received JSON for the {path} attribute does not match expected format.");
            ApiError::bad("INVALID_JSON_ATTRIBUTE", detail, &[path])
        };
        let kind = match &schema["type"] {
            Value::Array(types) => types.iter().find(|t| *t != "null").unwrap_or(&Value::Null),
            kind => kind,
        };
        match (kind.as_str(), &mut *value) {
            (Some("object"), Value::Object(fields)) => return self.object(fields, schema, path),
            (Some("array"), Value::Array(items)) => {
                self.bounds(schema, path, "Items", items.len())?;
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, &schema["items"], &format!("{path}[{index}]"))?;
                }
            }
            (Some("string"), Value::String(text)) => self.text(text, schema, path)?,
            (Some("boolean"), Value::Bool(_)) | (None, _) => {}
            (Some("integer"), Value::Number(written)) => {
                let number = whole(written).ok_or_else(mismatch)?;
                *written = number.into();
                if schema["format"] == "int32" && i32::try_from(number).is_err() {
                    return Err(mismatch());
                }
                let out = schema["minimum"].as_f64().is_some_and(|least| (number as f64) < least)
                    || schema["maximum"].as_f64().is_some_and(|most| number as f64 > most);
                if out {
                    self.violate(path, format!("must be between {} and {}", schema["minimum"], schema["maximum"]))?;
                }
            }
            _ if path.is_empty() => return Err(ApiError::malformed()),
            _ => return Err(mismatch()),
        }
        Ok(())
    }

    fn object(&mut self, fields: &mut Map<String, Value>, schema: &'a Value, path: &str) -> Result<(), ApiError> {
        let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let is_open = schema["additionalProperties"] == true || schema["additionalProperties"].is_object();
        let Some(known) = schema["properties"].as_object() else {
            // An object of any shape, or one without attributes.
            let closed = schema["additionalProperties"] == false;
            return match fields.keys().next() {
                Some(name) if closed => Err(ApiError::invalid(&inside(name))),
                _ => Ok(()),
            };
        };
        for name in fields.keys() {
            if !known.contains_key(name) && !is_open {
                return Err(ApiError::invalid(&inside(name)));
            }
        }
        fields.retain(|name, _| known.get(name).is_some_and(|known| known["readOnly"] != true));
        self.bounds(schema, path, "Properties", fields.len())?;
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if known[name]["readOnly"] != true && fields.get(name).is_none_or(Value::is_null) {
                return Err(ApiError::missing(&inside(name)));
            }
        }
        fields.retain(|name, value| !(value.is_null() && self.resolve(&known[name]).1));
        for (name, value) in fields.iter_mut() {
            self.value(value, &known[name], &inside(name))?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str, schema: &Value, path: &str) -> Result<(), ApiError> {
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.iter().any(|one| one == text)
        {
            let detail = format!("An invalid enumeration value {text} was specified.");
            return Err(ApiError::bad("INVALID_ENUM_VALUE", detail, &[text]));
        }
        self.bounds(schema, path, "Length", text.chars().count())?;
        if let Some(pattern) = schema["pattern"].as_str()
            && !matches(pattern, text)
        {
            let detail = format!("Received JSON for the {path} attribute does not match expected format.");
            return Err(ApiError::bad("INVALID_JSON_ATTRIBUTE", detail, &[path]));
        }
        Ok(())
    }

    fn bounds(&mut self, schema: &Value, path: &str, what: &str, size: usize) -> Result<(), ApiError> {
        let size = size as u64;
        if let Some(least) = schema[format!("min{what}")].as_u64().filter(|least| size < *least) {
            self.violate(path, format!("size must be at least {least}"))?;
        }
        if let Some(most) = schema[format!("max{what}")].as_u64().filter(|most| size > *most) {
            self.violate(path, format!("size must be at most {most}"))?;
        }
        Ok(())
    }

    /// Notes a violation; an error once there are enough.
    fn violate(&mut self, path: &str, description: String) -> Result<(), ApiError> {
        self.violations.push(FieldViolation { description, field: path.to_owned() });
        if self.violations.len() < MOST_VIOLATIONS { Ok(()) } else { Err(ApiError::malformed()) }
    }
}

/// The integer that `number` is; JSON may write it with a point, as 60.0.
fn whole(number: &Number) -> Option<i64> {
    /// From here on not every integer is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let pointed = || number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < EXACT);
    number.as_i64().or_else(|| pointed().map(|value| value as i64))
}

/// Whether `text` matches; patterns are ours and few, and are compiled once.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: OnceLock<Mutex<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let mut compiled = COMPILED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern that can't be compiled would let everything pass.
    #[test]
    fn every_pattern_is_one() {
        fn check(schema: &Value) {
            match schema {
                Value::Object(fields) => {
                    if let Some(pattern) = fields.get("pattern").and_then(Value::as_str) {
                        assert!(Regex::new(pattern).is_ok(), "{pattern}");
                    }
                    fields.values().for_each(check);
                }
                Value::Array(items) => items.iter().for_each(check),
                _ => {}
            }
        }
        check(crate::http::openapi::components());
        assert!(!matches(r"^\P{C}+$", "a\u{1b}b") && matches(r"^\P{C}+$", "a b-ü"));
    }
}
