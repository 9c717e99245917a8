//! `cargo x <verb>`: everything that a developer or CI runs.
#![allow(clippy::print_stdout)]

mod check;
mod demo;

use clap::{Parser, Subcommand};
use limosa_testkit::{Error, mongod};
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(name = "cargo x", about = "Everything that a developer or CI runs", bin_name = "cargo x")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Migrate a live replica set to another and compare both.
    Demo,
    /// All tests, on real servers.
    Test {
        /// The long ones too.
        #[arg(long)]
        full: bool,
    },
    /// Formatting, lints, documentation, licences.
    Check,
    /// Fetch a mongod into the cache and say where it is.
    Mongod {
        /// Which.
        #[arg(default_value = mongod::DEFAULT_VERSION)]
        version: String,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Demo => demo::run_demo(),
        Verb::Test { full } => test(full),
        Verb::Check => check::run_checks(),
        Verb::Mongod { version } => mongod::ensure(&version).map(|binary| println!("{}", binary.path.display())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn test(full: bool) -> Result<(), Error> {
    for version in mongod::VERSIONS {
        mongod::ensure(version)?;
    }
    let mut command = cargo(&["test", "--workspace"]);
    if full {
        command.env("LIMOSA_FULL", "1");
    }
    run(command)
}

/// This workspace's cargo.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Runs it; an error names what failed.
fn run(mut command: Command) -> Result<(), Error> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed").into()) }
}
