//! `cargo x <verb>`: everything that a developer or CI runs.
#![allow(clippy::print_stdout)]

mod bench;
mod check;
mod demo;
mod directions;
mod soak;
mod supply_chain;
mod unused;
mod words;

use clap::{Parser, Subcommand};
use limosa_testkit::{Error, mongod, tool};
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
    /// The Debian packages, into target/debian.
    Package,
    /// Migrate under writers while everything breaks, again and again.
    Soak {
        /// For how long a new round is begun.
        #[arg(long, default_value_t = 20)]
        minutes: u64,
        /// Of an earlier run, to break the same again.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Measure, each figure beside an anchor of the same run.
    Bench(bench::Arguments),
    /// Formatting, imports, unused dependencies, words, lints, documentation, licences.
    Check,
    /// List all components with versions and licences, in the format CycloneDX, into target/.
    Sbom,
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
        Verb::Package => package(),
        Verb::Soak { minutes, seed } => soak::soak(minutes, seed),
        Verb::Bench(arguments) => bench::run_benches(&arguments),
        Verb::Check => check::run_checks(),
        Verb::Sbom => supply_chain::write_sbom().map(|file| println!("{}", file.display())),
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

fn package() -> Result<(), Error> {
    run(cargo(&["build", "--release", "--package", "limosa"]))?;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(root.join("packaging/debian/build"));
    build.arg(tool::target().join("release/limosa")).arg(tool::target().join("debian"));
    run(build)
}

fn test(full: bool) -> Result<(), Error> {
    for version in mongod::VERSIONS {
        mongod::ensure(version)?;
    }
    tool::install()?;
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
