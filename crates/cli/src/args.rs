//! The command line's words. What they mean is in [`crate::commands`].

use clap::{Args, Parser, Subcommand, ValueEnum};
use limosa_model::{NamespaceFilter, Secret, filter::NamespacePattern};
use std::{net::SocketAddr, path::PathBuf};

/// Moves a live MongoDB cluster to another one: copies it, follows its changes, cuts over when told to.
#[derive(Parser)]
#[command(name = "limosa", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  A whole migration on this machine; the source goes on being used until the cutover:
    export LIMOSA_SOURCE_URI='mongodb://user:password@old:27017/?replicaSet=rs0'
    export LIMOSA_DESTINATION_URI='mongodb://user:password@new:27017/?replicaSet=rs0'
    limosa migrate
  When it says that it is ready, stop the application's writes and, in another terminal:
    limosa migrations cutover --wait

Environment:
  LIMOSA_SOURCE_URI, LIMOSA_DESTINATION_URI   keep passwords out of the process list
  LIMOSA_PROFILE                              the file that --profile names
  LIMOSA_LOG                                  what to log, for instance 'debug' or 'limosa_engine=debug'";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Migrate one cluster to another, on this machine, from beginning to end
    #[command(after_help = MIGRATE_HELP)]
    Migrate(Box<Migrate>),
    /// Say whether a migration could start, and if not, why; writes nothing
    Check(Check),
    /// List, watch and steer migrations of a running server
    #[command(subcommand)]
    Migrations(Migrations),
    /// Run the control plane: the API, the job store, the scheduler
    Server(Server),
    /// Run a migration host: joins a server with a link token and carries migrations out
    #[command(after_help = AGENT_HELP)]
    Agent(Agent),
    /// Register and list the clusters that can be a destination
    #[command(subcommand)]
    Clusters(Clusters),
    /// Create and delete the link token with which agents join
    #[command(subcommand)]
    Link(Link),
}

const MIGRATE_HELP: &str = "\
Exit status:
  0 complete   1 failed   2 wrong usage, or refused before anything was written   3 expired
  130 interrupted; run the same command again and it goes on where it was

Everything for people goes to stderr. With --output json, stdout has one object a line, each with
\"event\", \"time\" and \"migrationId\": started, phase, progress, readyForCutover, complete, failed.";

const AGENT_HELP: &str = "\
Example:
  limosa agent --server https://limosa.example.com --link-token \"$TOKEN\" --host-name mover1.example.com \\
         --source orders=mongodb://user:password@old:27017/?replicaSet=rs0

A source may be given as NAME=@FILE: the URI is then read from the file's first line.";

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
pub(crate) struct Ends {
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
    pub ends: Ends,
    /// Where everything is kept that is needed to go on after an interruption
    #[arg(long, value_name = "DIR", default_value = "./.limosa")]
    pub state_dir: PathBuf,
    /// When to cut over
    #[arg(long, value_enum, default_value = "manual")]
    pub cutover: Cutover,
    /// Where the API listens while the migration runs
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// How long it waits for the cutover once ready: 30s, 90m, 120h
    #[arg(long, value_name = "TIME", default_value = "120h", value_parser = seconds)]
    pub cutover_window: i64,
    /// What stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub ends: Ends,
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
    List(Profile),
    /// Where one is
    Describe(Which),
    /// Follow one until it is over
    Watch(Which),
    /// Make the destination take over; stop the source's writers first
    Cutover(Waiting),
    /// What happened to one so far
    Events(Which),
    /// Stop where it is; 'resume' goes on
    Pause(Which),
    /// Go on after a pause or a failure
    Resume(Which),
    /// Give more time for the cutover
    Extend {
        #[command(flatten)]
        which: Which,
        /// How much
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Give up; the source is as it was
    Cancel {
        #[command(flatten)]
        which: Which,
        /// Drop what was copied to the destination
        #[arg(long)]
        drop_copied: bool,
    },
}

#[derive(Args)]
pub(crate) struct Server {
    /// Store, keys, bootstrap.json and profile.toml
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// How long a migration waits for its cutover once ready: 30s, 90m, 120h
    #[arg(long, value_name = "TIME", default_value = "120h", value_parser = seconds)]
    pub cutover_window: i64,
    /// Serve HTTPS with this certificate chain, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Agent {
    /// The control plane's URL
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// From 'limosa link create'
    #[arg(long, value_name = "TOKEN", env = "LIMOSA_LINK_TOKEN", hide_env_values = true, value_parser = secret)]
    pub link_token: Secret,
    /// The name under which migrations ask for this host
    #[arg(long, value_name = "NAME")]
    pub host_name: String,
    /// A deployment to announce: its name and its URI; may be given several times
    #[arg(long = "source", value_name = "NAME=URI", required = true, value_parser = named_uri)]
    pub sources: Vec<(String, Secret)>,
    /// The group that the deployments belong to; made if there is none of that name
    #[arg(long, value_name = "NAME", default_value = "limosa")]
    pub group_name: String,
    /// Identity and spool
    #[arg(long, value_name = "DIR", default_value = "./.limosa-agent")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub namespaces: Namespaces,
}

#[derive(Subcommand)]
pub(crate) enum Clusters {
    /// Register a destination, or change its URI
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
    List(Profile),
}

#[derive(Subcommand)]
pub(crate) enum Link {
    /// Create the organization's link token and print it; it is shown only once
    Create(Profile),
    /// Revoke it: agents that joined with it are shut out
    Delete(Profile),
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// A positive number of seconds, minutes or hours.
fn seconds(text: &str) -> Result<i64, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let span = number.parse::<u32>().ok().map(|n| i64::from(n) * factor).filter(|s| *s > 0);
    span.ok_or_else(|| "write it as 30s, 90m or 120h".to_owned())
}

fn named_uri(text: &str) -> Result<(String, Secret), String> {
    let (name, uri) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty() && !name.contains("://"))
        .ok_or("write it as NAME=URI")?;
    let uri = match uri.strip_prefix('@') {
        None => uri.to_owned(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
    };
    Ok((name.to_owned(), Secret::new(uri)))
}
