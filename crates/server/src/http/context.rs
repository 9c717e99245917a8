//! What a handler gets to see of a request.

use crate::{
    App,
    auth::Principal,
    http::{bodies::HeldBody, render::ApiError},
};
use limosa_model::{ApiVersion, Secret};
use serde_json::Value;
use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// One authenticated request, its body of the documented shape.
pub(crate) struct Call {
    pub app: Arc<App>,
    pub principal: Principal,
    pub params: HashMap<String, String>,
    /// In which version its body is written.
    pub body_version: ApiVersion,
    /// From where it came.
    pub address: IpAddr,
    /// The header in which an agent's secret comes.
    pub agent_secret: Option<Secret>,
    /// Where the client reached us, for links: scheme and host.
    pub base: String,
    pub path: String,
    /// What a client that follows events has seen already.
    pub last_event_id: i64,
    /// The body, where it has a documented shape.
    pub body: Value,
    /// The body as it came, where it has no documented shape.
    pub raw: HeldBody,
    pub query: Vec<(String, String)>,
    /// Where all of the request is logged; a stream outlives it.
    pub span: tracing::Span,
}

impl Call {
    /// The body. An agent's is read straight into `T`: a tree of it would take ten times its size.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        let parsed = match self.raw.bytes.is_empty() {
            true => serde_json::from_value(self.body.clone()),
            false => serde_json::from_slice(&self.raw.bytes),
        };
        parsed.map_err(|e| ApiError::bad("INVALID_JSON_ATTRIBUTE", format!("Received JSON does not match: {e}."), &[]))
    }

    /// A path parameter.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// This request's address with another page asked for; filters stay.
    pub fn address_with(&self, page: usize, size: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("pageNum", &page.to_string()).append_pair("itemsPerPage", &size.to_string());
        query.extend_pairs(self.query.iter().filter(|(name, _)| name != "pageNum" && name != "itemsPerPage"));
        format!("{}{}?{}", self.base, self.path, query.finish())
    }

    /// A query parameter that is a number from `least` to `most`.
    pub fn number(&self, name: &str, default: usize, least: usize, most: usize) -> Result<usize, ApiError> {
        let Some(text) = self.query(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| ApiError::query(name))
    }

    /// A query parameter that is true or false.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.query(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(ApiError::query(name)),
        }
    }
}
