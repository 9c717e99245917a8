//! What is known of MongoDB on either side: connections, calls and their errors, catalogs, indexes as they are listed, BSON
//! as bytes. Nothing here knows of a migration.

pub(crate) mod calls;
pub(crate) mod capabilities;
pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod codes;
pub(crate) mod connect;
pub(crate) mod current_op;
pub(crate) mod definition_diff;
pub(crate) mod diagnose;
pub(crate) mod error;
pub(crate) mod find_by_id;
pub(crate) mod id_order;
pub(crate) mod incidents;
pub(crate) mod index_spec;
pub(crate) mod latency;
pub(crate) mod privileges;
pub(crate) mod range_read;
pub(crate) mod raw_bson;
pub(crate) mod raw_builder;
pub(crate) mod raw_value;
pub(crate) mod refused_writes;
pub(crate) mod side;
