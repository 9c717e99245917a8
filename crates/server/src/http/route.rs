//! One operation of the API: what it is called by, which callers it serves, its body and its answer.

use crate::{
    auth::Principal,
    http::{
        context::Call,
        render::{ApiError, Reply},
        shape::{Answer, Shape},
    },
};
use axum::http::{Method, Response, StatusCode};
use limosa_model::ApiVersion;
use serde_json::Value;
use utoipa::ToSchema;

pub(crate) type Handler = fn(&Call) -> Result<Reply, ApiError>;

/// One operation.
pub(crate) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub operation: &'static str,
    pub summary: &'static str,
    /// Its section in the API document.
    pub tag: &'static str,
    pub handler: Handler,
    /// Ascending; none outside of the Atlas part, where there is nothing to negotiate.
    pub versions: &'static [ApiVersion],
    /// Versions that there were: who asks for one is told that it is gone.
    pub removed: &'static [ApiVersion],
    /// Which kind of caller it serves; the handler checks the roles.
    pub authorize: fn(&Principal) -> Result<(), ApiError>,
    /// The weakest role that serves, in Atlas's words.
    pub role: &'static str,
    /// Shapes of the body, each with the version that it came with; ascending.
    pub bodies: Vec<(ApiVersion, Shape)>,
    /// Brings the body of a client that takes liberties into the form of the schema, before it is held against that.
    pub normalize: fn(&mut Value),
    pub answer: Answer,
    /// Query parameters besides `envelope` and `pretty`.
    pub query: Vec<&'static str>,
    /// Changes something that an owner wants to know of.
    pub audited: bool,
    /// Part of the API document.
    pub documented: bool,
    /// Instead of the answer, for a client that asks for `text/event-stream`.
    pub stream: Option<fn(Call) -> Response<axum::body::Body>>,
}

impl Route {
    pub fn new(method: Method, path: &'static str, operation: &'static str, handler: Handler) -> Self {
        Self {
            audited: method != Method::GET,
            documented: true,
            method,
            path,
            operation,
            summary: "",
            tag: "Limosa",
            handler,
            versions: &[],
            removed: &[],
            authorize: |principal| {
                if principal.is_link { Err(crate::auth::roles::denied("USER_UNAUTHORIZED")) } else { Ok(()) }
            },
            role: "",
            bodies: Vec::new(),
            normalize: |_| {},
            answer: Answer::nothing(StatusCode::OK),
            query: Vec::new(),
            stream: None,
        }
    }

    pub fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    pub fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    pub fn versions(mut self, versions: &'static [ApiVersion]) -> Self {
        self.versions = versions;
        self
    }

    pub fn role(mut self, role: &'static str) -> Self {
        self.role = role;
        self
    }

    pub fn body<T: ToSchema>(self) -> Self {
        self.body_since::<T>(ApiVersion::V2023_01_01)
    }

    pub fn body_since<T: ToSchema>(mut self, version: ApiVersion) -> Self {
        self.bodies.push((version, Shape::of::<T>(true)));
        self
    }

    pub fn optional_body<T: ToSchema>(mut self) -> Self {
        self.bodies.push((ApiVersion::V2023_01_01, Shape::of::<T>(false)));
        self
    }

    pub fn body_list<T: ToSchema>(mut self) -> Self {
        self.bodies.push((ApiVersion::V2023_01_01, Shape::list_of::<T>()));
        self
    }

    pub fn normalize(mut self, normalize: fn(&mut Value)) -> Self {
        self.normalize = normalize;
        self
    }

    pub fn responds(mut self, answer: Answer) -> Self {
        if answer.paged {
            self.query.extend(["includeCount", "itemsPerPage", "pageNum"]);
        }
        self.answer = answer;
        self
    }

    pub fn query(mut self, names: &[&'static str]) -> Self {
        self.query.extend(names);
        self
    }

    /// The body at `version`.
    pub fn body_at(&self, version: ApiVersion) -> Option<&Shape> {
        self.bodies.iter().rev().find(|(from, _)| *from <= version).map(|(_, shape)| shape)
    }

    /// All shapes of the body.
    pub fn bodies(&self) -> &[(ApiVersion, Shape)] {
        &self.bodies
    }

    /// Whether this version of the operation goes away: one whose body has a successor.
    pub fn is_deprecated(&self, version: ApiVersion) -> bool {
        self.bodies.last().is_some_and(|(last, _)| self.bodies.len() > 1 && version < *last)
    }
}
