//! What a preflight or a rehearsal found.

use crate::{
    ErrorCode, Failure,
    plain::{MESSAGE, NAME, plain},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Whether it stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// The migration doesn't start.
    Error,
    /// It starts, and may come to grief or take long.
    Warning,
}

/// One thing that was seen, what it means and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its page in the documentation has this name.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// Whether it stands in the way.
    pub severity: Severity,
    /// The namespace, or the side, that it is about.
    #[serde(default)]
    pub subject: String,
    /// What was seen; never a secret.
    #[serde(alias = "message")]
    pub evidence: String,
    /// What to do.
    #[serde(default)]
    pub remedy: String,
}

impl Finding {
    /// Something that stands in the way.
    pub fn error(code: ErrorCode, subject: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self::new(code, Severity::Error, subject, evidence)
    }

    /// Something to know.
    pub fn warning(code: ErrorCode, subject: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        Self::new(code, Severity::Warning, subject, evidence)
    }

    fn new(code: ErrorCode, severity: Severity, subject: impl Into<String>, evidence: impl AsRef<str>) -> Self {
        let evidence = plain(&crate::secret::redact_uris(evidence.as_ref()), MESSAGE);
        let subject = plain(&subject.into(), NAME);
        Self { code, severity, subject, evidence, remedy: code.remedy().to_owned() }
    }

    /// What is stored of it where only one thing is shown.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure::new(self.code, &self.evidence)
    }

    /// Whether it stands in the way.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl From<Failure> for Finding {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, Severity::Error, "", failure.message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.evidence)
    }
}
