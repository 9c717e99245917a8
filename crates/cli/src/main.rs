//! `limosa`: moves a live MongoDB cluster to another one.

mod args;
mod commands;
mod error;
mod logging;
mod profile;
mod screen;
mod terminal;
mod ui;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::Arguments::try_parse() {
        Ok(given) => ui::end(commands::run(given)),
        Err(error) => args::refuse(&error),
    }
}
