//! Real servers for tests: fetched once, started on free ports, killed when dropped. Development only.

pub mod browser;
pub mod compare;
pub mod disk;
pub mod mongod;
pub mod proxy;
pub mod random;
pub mod replica_set;
pub mod tls;
pub mod tool;
pub mod uris;
pub mod workload;

pub use compare::compare;
pub use mongod::DEFAULT_VERSION;
pub use proxy::{Network, Proxy};
pub use replica_set::ReplicaSet;

/// What goes wrong in a test's surroundings.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
