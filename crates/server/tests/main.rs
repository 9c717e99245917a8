//! The control plane over real HTTP.

mod authentication;
mod document;
mod job;
mod notify;
mod operation;
mod requests;
mod roles;
mod session;
mod steering;
mod store;
mod support;
