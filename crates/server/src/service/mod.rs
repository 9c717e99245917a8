//! What the server does with migrations and agents: it asks `limosa_model::transition` what becomes of a migration, and the
//! store to keep that. Nothing else calls either of the two to change a migration.
//!
//! All of it may wait for the disk: it is called by handlers and by [`crate::App::blocking`].

pub(crate) mod agent_reports;
pub(crate) mod deadlines;
pub(crate) mod migration_reports;
pub(crate) mod migrations;
pub(crate) mod reverse;
pub(crate) mod validations;
pub(crate) mod work;
