//! One verb a file.

mod agent;
mod check;
mod clusters;
mod follow;
mod link;
mod migrate;
mod migrations;
mod server;

use crate::{
    args::{Arguments, Command},
    error::CliError,
    ui,
};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Carries the command out.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| CliError::File("runtime".into(), e))?;
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Migrate(given) => migrate::run(*given).await,
            Command::Check(given) => check::run(given).await,
            Command::Migrations(given) => migrations::run(given).await,
            Command::Server(given) => {
                ui::log("info");
                server::run(given).await
            }
            Command::Agent(given) => {
                ui::log("info");
                agent::run(given).await
            }
            Command::Clusters(given) => clusters::run(given).await,
            Command::Link(given) => link::run(given).await,
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
