//! The program as its users run it: real processes, real servers.

mod again;
mod apart;
mod clients;
mod cutover;
mod docs;
mod faults;
mod flood;
mod install;
mod measure;
mod migrate;
mod package;
mod page;
mod preflight;
mod refused;
mod restarts;
mod service;
mod silent;
mod support;
mod terminal;
mod verify;
