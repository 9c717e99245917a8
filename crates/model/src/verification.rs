//! What a verification found, as it is shown, stored and given to programs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// How two documents of one `_id` differ where they differ first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Departure)]
pub enum DifferenceKind {
    /// The destination lacks it.
    Missing,
    /// The source lacks it.
    Extra,
    /// Other BSON types.
    Type,
    /// Other values of one type.
    Value,
    /// The same fields in another order.
    FieldOrder,
}

impl DifferenceKind {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing on the destination",
            Self::Extra => "not on the source",
            Self::Type => "of another type",
            Self::Value => "another value",
            Self::FieldOrder => "in another place among the fields",
        }
    }
}

/// One document that isn't the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Its `_id`, as extended JSON.
    #[schema(value_type = Object)]
    pub id: Value,
    /// What is the matter.
    pub departure: DifferenceKind,
    /// The first field that differs, where both sides have the document.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// One namespace compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceVerification {
    /// `db.collection`; a time-series collection's data is under `db.system.buckets.…`.
    pub namespace: String,
    /// Documents of the source that were held against the destination's.
    pub documents_compared: u64,
    /// Bytes of these.
    pub bytes_compared: u64,
    /// Documents that only the source has.
    pub missing: u64,
    /// Documents that only the destination has.
    pub extra: u64,
    /// Documents that differ.
    pub different: u64,
    /// The first of those.
    pub differences: Vec<Difference>,
    /// The `_id`s of two documents, in the source's order, that stand the other way round on the destination; empty
    /// where the order is the same, and for collections that aren't capped: they have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub out_of_order: Vec<Value>,
    /// Options that differ, one a line.
    pub options: Vec<String>,
    /// Indexes that differ, one a line.
    pub indexes: Vec<String>,
    /// XXH3 of each document that was found equal, added up: the same on both sides, whatever the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl NamespaceVerification {
    /// Whether both sides hold the same here.
    pub fn is_equal(&self) -> bool {
        self.missing == 0
            && self.extra == 0
            && self.different == 0
            && self.out_of_order.is_empty()
            && self.options.is_empty()
            && self.indexes.is_empty()
    }
}

/// A whole comparison of two clusters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VerificationReport {
    /// Whether both sides hold the same.
    pub equal: bool,
    /// When it began.
    pub began_at: String,
    /// When it ended.
    pub ended_at: String,
    /// The source's version.
    pub source_version: String,
    /// The destination's version.
    pub destination_version: String,
    /// How much of the documents was compared, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_percent: Option<f64>,
    /// How long a difference had to last to count.
    pub settle_seconds: u64,
    /// Each namespace, by name.
    pub namespaces: Vec<NamespaceVerification>,
}

impl VerificationReport {
    /// Documents compared in all namespaces.
    pub fn documents_compared(&self) -> u64 {
        self.namespaces.iter().map(|n| n.documents_compared).sum()
    }
}
