//! The command line's words. What they mean is in [`crate::commands`].

mod help;
mod how;
mod log;
mod parse;
mod refuse;
mod service;

pub(crate) use how::{LimitArgs, TuningArgs};
pub(crate) use log::{LogArgs, LogFormat};
pub(crate) use refuse::refuse;
pub(crate) use service::{Agent, Server};

use clap::{Args, Parser, Subcommand, ValueEnum};
use limosa_model::{MigrationId, NamespaceFilter, Secret, cutover::CutoverOptions, filter::NamespacePattern};
use parse::{percent, seconds, seconds_or_none, secret};
use std::{net::SocketAddr, path::PathBuf};

/// Moves a live MongoDB cluster to another one: copies it, follows its changes, cuts over when told to.
#[derive(Parser)]
#[command(name = "limosa", version, after_help = help::LIMOSA, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Migrate one cluster to another, on this machine, from beginning to end
    #[command(after_help = help::MIGRATE)]
    Migrate(Box<Migrate>),
    /// Say whether a migration could start, and if not, why; writes nothing
    #[command(after_help = help::CHECK)]
    Check(Check),
    /// Say whether two clusters hold the same, document by document; writes nothing
    #[command(after_help = help::VERIFY)]
    Verify(Verify),
    /// List, watch and steer migrations of a running server
    #[command(subcommand, after_help = help::MIGRATIONS)]
    Migrations(Migrations),
    /// Run the control plane: the API, the job store, the scheduler
    #[command(after_help = help::SERVER)]
    Server(Server),
    /// Seal all secrets of a server under a new key; the server must be stopped
    #[command(after_help = help::ROTATE_KEY)]
    RotateKey {
        /// The server's data directory
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Run a migration host: joins a server with a link token and carries migrations out
    #[command(after_help = help::AGENT)]
    Agent(Agent),
    /// Register and list the clusters that can be a destination
    #[command(subcommand, after_help = help::CLUSTERS)]
    Clusters(Clusters),
    /// Create, replace and delete the link token with which agents join
    #[command(subcommand, after_help = help::LINK)]
    Link(Link),
    /// Try whether webhooks and e-mail arrive
    #[command(subcommand, after_help = help::NOTIFY)]
    Notify(Notify),
    /// Say what an error code means and what to do about it
    #[command(after_help = help::EXPLAIN)]
    Explain {
        /// As the error names it; without it: all of them
        code: Option<String>,
    },
    /// Collect what someone who helps has to know, without secrets
    #[command(after_help = help::DOCTOR)]
    Doctor(Doctor),
    /// Print the completions for a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    #[command(after_help = help::MAN)]
    Man {
        /// Where to
        dir: PathBuf,
    },
    /// Print docs/reference.md
    #[command(hide = true)]
    Reference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cutover {
    /// Wait for 'limosa migrations cutover'
    Manual,
    /// Cut over as soon as the destination has caught up; only for a source that is no longer written to
    WhenReady,
}

/// Which two clusters.
#[derive(Args)]
pub(crate) struct EndpointArgs {
    /// The cluster to read: mongodb://… or mongodb+srv://…
    #[arg(long, value_name = "URI", env = "LIMOSA_SOURCE_URI", hide_env_values = true, value_parser = secret)]
    pub source: Secret,
    /// The cluster to write
    #[arg(long, value_name = "URI", env = "LIMOSA_DESTINATION_URI", hide_env_values = true, value_parser = secret)]
    pub destination: Secret,
    #[command(flatten)]
    pub namespaces: Namespaces,
    /// Drop what the destination holds under the namespaces to be migrated, before the copy
    #[arg(long)]
    pub drop_destination_data: bool,
    /// Take the place of this migration, which writes the same namespaces to the destination and isn't over: it stops
    /// permanently; may be given several times
    #[arg(long = "replace-migration", value_name = "MIGRATION_ID")]
    pub replaces: Vec<MigrationId>,
}

/// Which namespaces.
#[derive(Args)]
pub(crate) struct Namespaces {
    /// Only this: 'db.*' or 'db.collection'; may be given several times
    #[arg(long = "include-ns", value_name = "NAMESPACE")]
    include: Vec<NamespacePattern>,
    /// Not this; wins over --include-ns
    #[arg(long = "exclude-ns", value_name = "NAMESPACE")]
    exclude: Vec<NamespacePattern>,
}

impl Namespaces {
    pub fn filter(&self) -> NamespaceFilter {
        NamespaceFilter { include: self.include.clone(), exclude: self.exclude.clone() }
    }
}

#[derive(Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub ends: EndpointArgs,
    /// Where everything is kept that is needed to continue after an interruption
    #[arg(long, value_name = "DIR", default_value = "./.limosa")]
    pub state_dir: PathBuf,
    /// Make the copy again, after the source's history was lost; what is equal on the destination stays
    #[arg(long)]
    pub recopy: bool,
    /// When to cut over
    #[arg(long, value_enum, default_value = "manual")]
    pub cutover: Cutover,
    #[command(flatten)]
    pub how: CutoverHow,
    /// Where the API listens while the migration runs
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// How long it waits for the cutover once ready: 30s, 90m, 120h
    #[arg(long, value_name = "TIME", default_value = "120h", value_parser = seconds)]
    pub cutover_window: i64,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
    /// Notifications by webhook and e-mail: a TOML file, see docs/notifications.md
    #[arg(long, value_name = "FILE")]
    pub notify: Option<PathBuf>,
    /// Say only what someone must act on: ready, complete, failed
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub ends: EndpointArgs,
    /// What stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// One cluster
    #[arg(long, value_name = "URI", env = "LIMOSA_SOURCE_URI", hide_env_values = true, value_parser = secret)]
    pub source: Secret,
    /// The other
    #[arg(long, value_name = "URI", env = "LIMOSA_DESTINATION_URI", hide_env_values = true, value_parser = secret)]
    pub destination: Secret,
    #[command(flatten)]
    pub namespaces: Namespaces,
    /// Compare about this share of the documents, chosen at random, instead of all: 5%, 0.5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<f64>,
    /// Only what still differs after so many seconds counts
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub settle: u64,
    /// Ranges that are compared in parallel
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub workers: u8,
    /// What stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

/// How to reach the server.
#[derive(Args)]
pub(crate) struct Profile {
    /// Written by 'limosa migrate' into its state directory and by 'limosa server' into its data directory
    #[arg(long = "profile", value_name = "FILE", env = "LIMOSA_PROFILE", default_value = "./.limosa/profile.toml")]
    pub file: PathBuf,
    /// What stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Which migration.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    pub profile: Profile,
    /// Without it: the only one that isn't over, else the newest
    #[arg(value_name = "MIGRATION_ID")]
    pub id: Option<String>,
}

/// How to cut over. What isn't said stays as it was said before.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CutoverHow {
    /// Make the source refuse its users' writes (MongoDB 6.0 or later); they may write again if the cutover fails. With
    /// '=false': not, whatever was said before
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub block_source_writes: Option<bool>,
    /// Once complete, carry the destination's changes back to the source's cluster, as a migration of its own: 'cancel' ends
    /// it, 'cutover' returns to the source's cluster. With '=false': not, whatever was said before
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reversible: Option<bool>,
}

impl CutoverHow {
    /// `held` with what was said changed; `None` when that is what is held.
    pub fn change(self, held: CutoverOptions) -> Option<CutoverOptions> {
        let wanted = CutoverOptions {
            block_source_writes: self.block_source_writes.unwrap_or(held.block_source_writes),
            reversible: self.reversible.unwrap_or(held.reversible),
        };
        (wanted != held).then_some(wanted)
    }
}

/// Which migration, and whether to wait for the effect.
#[derive(Args)]
pub(crate) struct Waiting {
    #[command(flatten)]
    pub which: Which,
    /// Return when it is done, not when it is accepted
    #[arg(long)]
    pub wait: bool,
}

#[derive(Subcommand)]
pub(crate) enum Migrations {
    /// All of the group, newest first
    #[command(after_help = help::LIST)]
    List(Profile),
    /// Where one is
    #[command(after_help = help::DESCRIBE)]
    Describe(Which),
    /// Follow one until it is over: full-screen on a terminal, else in lines
    #[command(after_help = help::WATCH)]
    Watch {
        #[command(flatten)]
        which: Which,
        /// Say only what someone must act on: ready, complete, failed
        #[arg(long, short)]
        quiet: bool,
    },
    /// Make the destination take over; stop the source's writers first
    #[command(after_help = help::CUTOVER)]
    Cutover {
        #[command(flatten)]
        waiting: Waiting,
        #[command(flatten)]
        how: CutoverHow,
    },
    /// End the cutover under way: the source takes writes again, and the migration is ready as before
    #[command(after_help = help::ABORT_CUTOVER)]
    AbortCutover(Which),
    /// Say what a cutover would do and how long it would take; changes nothing
    #[command(after_help = help::REHEARSE)]
    Rehearse(Which),
    /// What happened to one so far
    #[command(after_help = help::EVENTS)]
    Events(Which),
    /// The report of one that is over: a page in Markdown, or with --output json the whole document
    #[command(after_help = help::REPORT)]
    Report(Which),
    /// Stop where it is; 'resume' continues
    #[command(after_help = help::PAUSE)]
    Pause(Which),
    /// Continue after a pause or a failure
    #[command(after_help = help::RESUME)]
    Resume {
        #[command(flatten)]
        which: Which,
        /// Make the copy again, after the source's history was lost; what is equal on the destination stays
        #[arg(long)]
        recopy: bool,
    },
    /// Change how hard one goes, while it runs; what isn't given stays as it is
    #[command(after_help = help::LIMIT)]
    Limit {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Give more time for the cutover
    #[command(after_help = help::EXTEND)]
    Extend {
        #[command(flatten)]
        which: Which,
        /// How much
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Give up; the source is as it was
    #[command(after_help = help::CANCEL)]
    Cancel {
        #[command(flatten)]
        which: Which,
        /// Drop what was copied to the destination
        #[arg(long)]
        drop_copied: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Clusters {
    /// Register a destination, or change its URI
    #[command(after_help = help::CLUSTERS_ADD)]
    Add {
        #[command(flatten)]
        profile: Profile,
        /// The name by which migrations ask for it
        #[arg(long)]
        name: String,
        /// How agents reach it; kept encrypted and never shown again
        #[arg(long, env = "LIMOSA_DESTINATION_URI", hide_env_values = true, value_parser = secret)]
        uri: Secret,
    },
    /// All of the group
    #[command(after_help = help::CLUSTERS_LIST)]
    List(Profile),
}

#[derive(Subcommand)]
pub(crate) enum Notify {
    /// Send a test message to everyone that the file names
    #[command(after_help = help::NOTIFY_TEST)]
    Test {
        /// What --notify gets
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Doctor {
    /// Written by 'limosa migrate' or 'limosa server'; the log next to it is included
    #[arg(long, value_name = "FILE", env = "LIMOSA_PROFILE", default_value = "./.limosa/profile.toml")]
    pub profile: PathBuf,
    /// What to write
    #[arg(long, value_name = "FILE", default_value = "./limosa-doctor.json")]
    pub file: PathBuf,
}

#[derive(Subcommand)]
pub(crate) enum Link {
    /// Create the organization's link token and print it; it is shown only once
    #[command(after_help = help::LINK_CREATE)]
    Create(Profile),
    /// Replace it by another one, also while migrations run, and print that; it is shown only once
    #[command(after_help = help::LINK_ROTATE)]
    Rotate(RotateLink),
    /// Revoke it: agents that joined with it are shut out
    #[command(after_help = help::LINK_DELETE)]
    Delete(DeleteLink),
}

#[derive(Args)]
pub(crate) struct RotateLink {
    /// How long agents that have joined may use the token before: 30s, 90m, 24h; 0s ends it at once
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds_or_none)]
    pub grace: i64,
    #[command(flatten)]
    pub profile: Profile,
}

#[derive(Args)]
pub(crate) struct DeleteLink {
    /// Also while migrations run: they wait for an agent that joins with another token
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub profile: Profile,
}

#[cfg(test)]
mod tests;
