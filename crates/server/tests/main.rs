//! The control plane over real HTTP.

mod authentication;
mod job;
mod support;
