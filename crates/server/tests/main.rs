//! The control plane over real HTTP.

mod authentication;
mod document;
mod job;
mod requests;
mod roles;
mod steering;
mod support;
