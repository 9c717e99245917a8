//! Operations that Atlas's API lacks.

pub(crate) mod audit;
pub(crate) mod clusters;
pub(crate) mod cutover;
pub(crate) mod events;
pub(crate) mod link_tokens;
pub(crate) mod migrations;
pub(crate) mod reports;
pub(crate) mod validations;
