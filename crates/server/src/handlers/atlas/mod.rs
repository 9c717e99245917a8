//! Operations of the Atlas Administration API.

pub(crate) mod account;
pub(crate) mod api_keys;
pub(crate) mod available_projects;
pub(crate) mod clusters;
pub(crate) mod link_tokens;
pub(crate) mod live_migrations;
pub(crate) mod oauth;
pub(crate) mod service_accounts;
pub(crate) mod surroundings;
pub(crate) mod telemetry;
pub(crate) mod validations;
