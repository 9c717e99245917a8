//! The program as its users run it: real processes, real servers.

mod benchmarks;
mod clients;
mod commands_across_restarts;
mod completed_again;
mod connection_flood;
mod cutover;
mod dashboard;
mod docs;
mod install;
mod kills;
mod migrate;
mod package;
mod preflight;
mod refusals;
mod server_and_agent;
mod service;
mod silent_agent;
mod support;
mod tui;
mod verify;
