//! Whole migrations by the engine, on real servers.

mod path;
mod resume;
mod support;
