//! The control plane over real HTTP.

mod agents_trust;
mod atlas_clients;
mod authentication;
mod flood;
mod fuzz;
mod limits_of_access;
mod migration_commands;
mod migration_status;
mod notify;
mod observability;
mod openapi;
mod requests;
mod revoked;
mod roles;
mod session;
mod stable_metrics;
mod store;
mod stored_rows;
mod support;
