//! The shapes of requests' bodies and of answers, as schemas.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::{ToSchema, openapi::RefOr, openapi::Schema};

/// Adds a type's schema and those it refers to.
pub(crate) type Collect = fn(&mut Vec<(String, RefOr<Schema>)>);

/// Adds `T`'s schema and those it refers to.
pub(crate) fn collect<T: ToSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
    all.push((T::name().into_owned(), T::schema()));
    T::schemas(all);
}

fn reference<T: ToSchema>() -> Value {
    json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

/// A request's body.
pub(crate) struct Shape {
    pub schema: Value,
    pub required: bool,
    /// Adds the schemas that it refers to.
    pub collect: Collect,
}

impl Shape {
    pub fn of<T: ToSchema>(required: bool) -> Self {
        Self { schema: reference::<T>(), required, collect: collect::<T> }
    }

    pub fn list_of<T: ToSchema>() -> Self {
        let schema = json!({"type": "array", "items": reference::<T>(), "minItems": 1});
        Self { schema, required: true, collect: collect::<T> }
    }

    /// Whatever the handler can read.
    pub fn any() -> Self {
        Self { schema: json!({"type": "object", "additionalProperties": true}), required: true, collect: |_| {} }
    }

    /// Whether it is [`Self::any`]: its reader holds it against a type.
    pub fn is_any(&self) -> bool {
        self.schema.get("properties").is_none() && self.schema.get("additionalProperties") == Some(&json!(true))
    }
}

/// A success.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub schema: Option<Value>,
    pub paged: bool,
    /// Adds the schemas that it refers to.
    pub collect: Collect,
}

impl Answer {
    pub fn nothing(status: StatusCode) -> Self {
        Self { status, schema: None, paged: false, collect: |_| {} }
    }

    pub fn one<T: ToSchema>(status: StatusCode) -> Self {
        Self { status, schema: Some(reference::<T>()), paged: false, collect: collect::<T> }
    }

    /// A bare array.
    pub fn array<T: ToSchema>(status: StatusCode) -> Self {
        let schema = Some(json!({"type": "array", "items": reference::<T>()}));
        Self { status, schema, paged: false, collect: collect::<T> }
    }

    /// A page of a list.
    pub fn page<T: ToSchema>() -> Self {
        let schema = json!({
            "type": "object",
            "required": ["links", "results", "totalCount"],
            "properties": {
                "links": {"type": "array", "items": {"$ref": "#/components/schemas/Link"}},
                "results": {"type": "array", "items": reference::<T>()},
                "totalCount": {"type": "integer", "format": "int32", "minimum": 0},
            },
        });
        Self { status: StatusCode::OK, schema: Some(schema), paged: true, collect: collect::<T> }
    }
}
