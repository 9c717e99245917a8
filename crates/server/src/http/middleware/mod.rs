//! What happens to a request before its handler. [`paths`] comes before the router; the router puts the others around its
//! routes, from the outside: [`request_id`], [`panics`], [`headers`], [`authenticate`], [`rate_limit`], [`access_list`],
//! [`body`].
//!
//! The body comes last: of a caller who isn't known, or may not ask, nothing is held.

pub(crate) mod access_list;
pub(crate) mod authenticate;
pub(crate) mod body;
pub(crate) mod headers;
pub(crate) mod panics;
pub(crate) mod paths;
pub(crate) mod rate_limit;
pub(crate) mod request_id;
