//! The bodies of the API, one file a resource.

pub mod account;
pub mod address;
pub mod error;
pub mod live_migration;
pub mod own;
