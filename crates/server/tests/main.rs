//! The control plane over real HTTP.

mod authentication;
mod document;
mod flood;
mod job;
mod notify;
mod operation;
mod requests;
mod roles;
mod session;
mod steering;
mod store;
mod support;
