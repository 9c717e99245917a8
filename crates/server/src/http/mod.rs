//! A request's way to its handler and back: the table of routes, the layers, negotiation, bodies held against their schemas,
//! rendering, and the API document, which is made of the same table.

pub(crate) mod audit_log;
pub(crate) mod bodies;
pub(crate) mod body_validation;
pub(crate) mod connections;
pub(crate) mod context;
pub(crate) mod dispatch;
pub(crate) mod middleware;
pub(crate) mod negotiate;
pub(crate) mod openapi;
pub(crate) mod paging;
pub(crate) mod render;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod shape;
pub(crate) mod streams;
pub(crate) mod strict_json;
pub(crate) mod table;
