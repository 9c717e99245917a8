//! The bodies of the Atlas Administration API, one file a resource.

pub mod live_migration;
