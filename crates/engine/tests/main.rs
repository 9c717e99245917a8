//! Whole migrations by the engine, on real servers.

mod cases;
mod connection;
mod cutover;
mod disk;
mod filter;
mod hazards;
mod limits;
mod network;
mod owner;
mod path;
mod random;
mod random_faults;
mod readiness;
mod renames;
mod resume;
mod silence;
mod sparing;
mod support;
mod texts;
mod transactions;
mod verify;
mod windows;
