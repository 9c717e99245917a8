//! Whole migrations by the engine, on real servers.

mod cases;
mod connection;
mod cutover;
mod disk;
mod filter;
mod hazards;
mod limits;
mod network;
mod path;
mod random;
mod renames;
mod resume;
mod silence;
mod support;
mod transactions;
mod verify;
mod windows;
