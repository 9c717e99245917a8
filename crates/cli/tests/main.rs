//! The program as its users run it: real processes, real servers.

mod apart;
mod migrate;
mod refused;
mod support;
