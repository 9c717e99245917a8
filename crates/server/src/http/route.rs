//! One operation of the API: what it is called by, what it asks of its caller, what it takes and gives.

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
use utoipa::ToSchema;

pub(crate) type Handler = fn(&Call) -> Result<Reply, ApiError>;

/// One operation.
pub(crate) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub operation: &'static str,
    pub summary: &'static str,
    pub handler: Handler,
    /// Ascending; none outside of the Atlas part, where there is nothing to negotiate.
    pub versions: &'static [ApiVersion],
    /// Versions that there were: who asks for one is told that it is gone.
    pub removed: &'static [ApiVersion],
    /// The caller's kind; what it needs beside is the handler's to ask.
    pub may: fn(&Principal) -> Result<(), ApiError>,
    /// The weakest role that serves, in Atlas's words.
    pub role: &'static str,
    /// The body, by the version from which on it is this one.
    pub takes: Vec<(ApiVersion, Shape)>,
    pub gives: Answer,
    /// Query parameters beside `envelope` and `pretty`.
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
            handler,
            versions: &[],
            removed: &[],
            may: |principal| {
                if principal.is_link { Err(crate::auth::roles::denied("USER_UNAUTHORIZED")) } else { Ok(()) }
            },
            role: "",
            takes: Vec::new(),
            gives: Answer::nothing(StatusCode::OK),
            query: Vec::new(),
            stream: None,
        }
    }

    pub fn about(mut self, summary: &'static str) -> Self {
        self.summary = summary;
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

    pub fn takes_body<T: ToSchema>(self) -> Self {
        self.takes_from::<T>(ApiVersion::V2023_01_01)
    }

    pub fn takes_from<T: ToSchema>(mut self, version: ApiVersion) -> Self {
        self.takes.push((version, Shape::of::<T>(true)));
        self
    }

    pub fn may_take<T: ToSchema>(mut self) -> Self {
        self.takes.push((ApiVersion::V2023_01_01, Shape::of::<T>(false)));
        self
    }

    pub fn takes_list<T: ToSchema>(mut self) -> Self {
        self.takes.push((ApiVersion::V2023_01_01, Shape::list_of::<T>()));
        self
    }

    pub fn gives(mut self, answer: Answer) -> Self {
        if answer.paged {
            self.query.extend(["includeCount", "itemsPerPage", "pageNum"]);
        }
        self.gives = answer;
        self
    }

    pub fn query(mut self, names: &[&'static str]) -> Self {
        self.query.extend(names);
        self
    }

    /// The body at `version`.
    pub fn takes(&self, version: ApiVersion) -> Option<&Shape> {
        self.takes.iter().rev().find(|(from, _)| *from <= version).map(|(_, shape)| shape)
    }

    /// All shapes of the body.
    pub fn bodies(&self) -> &[(ApiVersion, Shape)] {
        &self.takes
    }

    /// Whether this version of the operation goes away: one whose body has a successor.
    pub fn is_deprecated(&self, version: ApiVersion) -> bool {
        self.takes.last().is_some_and(|(last, _)| self.takes.len() > 1 && version < *last)
    }
}
