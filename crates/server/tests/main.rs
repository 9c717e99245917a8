//! The control plane over real HTTP.

mod agents_trust;
mod atlas_clients;
mod authentication;
mod document;
mod flood;
mod fuzz;
mod job;
mod limits_of_access;
mod notify;
mod operation;
mod requests;
mod revoked;
mod roles;
mod session;
mod stable_metrics;
mod steering;
mod store;
mod stored_rows;
mod support;
