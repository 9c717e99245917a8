//! Proves that both sides hold the same: document by document, definition by definition.
//!
//! [`scan`] joins both sides range by range; whatever doesn't match becomes an entry of the [`dirty`] set, and
//! [`lookup`] settles it. [`standalone`] does this for two clusters that nobody migrates just now, [`beside`] for a
//! migration while its changes are applied, with its [`notes`] on the agent's disk.

pub(crate) mod beside;
pub(crate) mod dirty;
pub(crate) mod lookup;
pub(crate) mod metadata;
pub(crate) mod notes;
pub(crate) mod order;
pub(crate) mod path;
pub(crate) mod scan;
pub(crate) mod standalone;
