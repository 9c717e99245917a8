//! One verb a file.

mod agent;
mod call;
mod check;
mod clusters;
mod doctor;
mod explain;
mod link;
mod manual;
mod migrate;
mod migration_handle;
mod migrations;
mod notify;
mod progress_loop;
mod report;
mod rerun;
mod server;
mod verify;

pub(crate) use migration_handle::MigrationHandle;

use crate::{
    args::{self, Arguments, Command},
    error::CliError,
    logging, ui,
};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Of each thread: a migration's calls lie deep in each other. Memory is taken only as far as it is used.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// What is kept over a restart is its owner's alone, whatever the directory; what a user asks for by name isn't.
fn keep_files_private(command: &Command) {
    if matches!(command, Command::Migrate(_) | Command::Server(_) | Command::Agent(_) | Command::RotateKey { .. }) {
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }
}

/// Carries the command out.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    keep_files_private(&arguments.command);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let runtime = runtime.map_err(|e| CliError::File("runtime".into(), e))?;
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Migrate(given) => migrate::run(*given).await,
            Command::Check(given) => check::run(given).await,
            Command::Verify(given) => verify::run(given).await,
            Command::Migrations(given) => migrations::run(given).await,
            Command::Server(given) => {
                logging::log(given.log.log_format);
                server::run(given).await
            }
            Command::RotateKey { data_dir } => {
                let sealed = limosa_server::rotate_key(&data_dir)?;
                ui::say(&format!("{sealed} secrets are sealed under a new key"));
                Ok(())
            }
            Command::Agent(given) => {
                logging::log(given.log.log_format);
                agent::run(given).await
            }
            Command::Clusters(given) => clusters::run(given).await,
            Command::Link(given) => link::run(given).await,
            Command::Notify(args::Notify::Test { file }) => notify::test(&file).await,
            Command::Explain { code } => explain::run(code.as_deref()),
            Command::Doctor(given) => doctor::run(&given).await,
            Command::Completions { shell } => {
                manual::completions(shell);
                Ok(())
            }
            Command::Man { dir } => manual::man(&dir),
            Command::Reference => {
                manual::reference();
                Ok(())
            }
        }
    });
    runtime.shutdown_background();
    done
}

/// Ctrl-C, or a service manager's wish.
struct Interrupt(Signal, Signal);

impl Interrupt {
    fn listen() -> Result<Self, CliError> {
        let open = |kind| signal(kind).map_err(|e: io::Error| CliError::File("signals".into(), e));
        Ok(Self(open(SignalKind::interrupt())?, open(SignalKind::terminate())?))
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
