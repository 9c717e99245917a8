//! Reading the source: its change stream, split events put together, what was read kept until it is applied, and how far
//! its oplog reaches back.

pub(crate) mod event;
pub(crate) mod left_behind;
pub(crate) mod oplog_window;
pub(crate) mod position;
pub(crate) mod reader;
pub(crate) mod split_events;
pub(crate) mod spool;
pub(crate) mod unreadable_event;
