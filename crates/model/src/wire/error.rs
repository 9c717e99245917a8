//! Errors as clients read them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// Which fields, with `VALIDATION_ERROR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub bad_request_detail: Option<BadRequestDetail>,
    /// What happened, in a sentence.
    #[schema(required = false)]
    pub detail: Option<String>,
    /// The HTTP status.
    #[schema(read_only)]
    pub error: i32,
    /// What machines compare.
    #[schema(read_only)]
    pub error_code: String,
    /// What the sentence names.
    #[schema(read_only)]
    pub parameters: Option<Vec<String>>,
    /// The status in words.
    #[schema(read_only)]
    pub reason: Option<String>,
}

/// Which fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BadRequestDetail {
    /// One each.
    #[schema(required = false)]
    pub fields: Vec<FieldViolation>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldViolation {
    /// What is wrong.
    pub description: String,
    /// Where.
    pub field: String,
}
