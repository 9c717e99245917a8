//! `limosa`: moves a live MongoDB cluster to another one.

mod args;
mod commands;
mod error;
mod profile;
mod screen;
mod ui;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    ui::end(commands::run(args::Arguments::parse()))
}
