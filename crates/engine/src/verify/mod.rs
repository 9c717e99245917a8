//! Proves that both sides hold the same: document by document, definition by definition.
//!
//! [`scan`] joins both sides range by range; whatever doesn't match becomes an entry of the [`dirty`] set, and
//! [`lookup`] settles it. [`standalone`] does this for two clusters that nobody migrates just now, [`beside`] for a
//! migration while its changes are applied, [`pass`] after pass and [`look`] after look, with its [`notes`] on the agent's disk. [`natural`] tells
//! whether a capped collection's documents stand in the same order.

pub(crate) mod beside;
pub(crate) mod collection_pair;
pub(crate) mod dirty;
pub(crate) mod document_stream;
mod doubts;
mod look;
pub(crate) mod lookup;
pub(crate) mod metadata;
pub(crate) mod natural;
pub(crate) mod notes;
pub(crate) mod order;
mod pass;
pub(crate) mod path;
pub(crate) mod scan;
pub(crate) mod standalone;
