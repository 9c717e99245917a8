//! Proves that both sides hold the same: document by document, definition by definition.
//!
//! [`scan`] joins both sides range by range; whatever doesn't match becomes an entry of the [`dirty_set`] set, and
//! [`id_lookup`] settles it. [`compare_clusters`] does this for two clusters that nobody migrates just now, [`online`] for a
//! migration while its changes are applied, [`full_scan`] after scan and [`recheck`] after recheck, with its [`state`] on the agent's disk. [`capped_order`] tells
//! whether a capped collection's documents stand in the same order.

pub(crate) mod capped_order;
pub(crate) mod collection_pair;
pub(crate) mod compare_clusters;
pub(crate) mod diff;
pub(crate) mod dirty_set;
pub(crate) mod document_stream;
pub(crate) mod doubts;
pub(crate) mod full_scan;
pub(crate) mod id_lookup;
pub(crate) mod online;
pub(crate) mod recheck;
pub(crate) mod scan;
pub(crate) mod state;
