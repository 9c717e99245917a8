//! The words of the two processes of a service: the control plane and the migration host.

use super::{
    LogArgs, Namespaces, TuningArgs,
    parse::{seconds, secret},
};
use clap::Args;
use limosa_agent::{Bounds, Files};
use limosa_model::Secret;
use limosa_server::RequestLimits;
use std::{net::SocketAddr, path::PathBuf};

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
    /// How long a session of the page in the browser lasts: 30s, 90m, 12h
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = seconds)]
    pub session_life: i64,
    /// Notifications by webhook and e-mail: a TOML file, see docs/notifications.md
    #[arg(long, value_name = "FILE")]
    pub notify: Option<PathBuf>,
    /// Serve HTTPS with this certificate chain, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve plain HTTP to other machines; for behind a proxy that has TLS
    #[arg(long, conflicts_with = "tls_cert")]
    pub plain_http: bool,
    /// Where clients reach it through a proxy: its scheme and host. With https:// the page's cookie is for TLS alone
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// How many requests a minute one key may make for an organization's resources
    #[arg(long, value_name = "COUNT", default_value_t = RequestLimits::default().orgs)]
    pub org_requests: u32,
    /// How many requests a minute one key may make for a group's resources
    #[arg(long, value_name = "COUNT", default_value_t = RequestLimits::default().groups)]
    pub group_requests: u32,
    /// How many connections may be open at a time, half of them from one address; more close the longest idle ones
    #[arg(long, value_name = "COUNT", default_value_t = limosa_server::MOST_CONNECTIONS)]
    pub max_connections: usize,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Args)]
pub(crate) struct Agent {
    /// The control plane's URL
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// Speak plain HTTP to a server on another machine; anyone in between can read and change what is said
    #[arg(long)]
    pub plain_http: bool,
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
    /// Where /metrics is served for a Prometheus, without sign-in; not served unless given
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub namespaces: Namespaces,
    #[command(flatten)]
    pub bounds: BoundsArgs,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// What the server may order the agent to do.
#[derive(Args)]
#[command(next_help_heading = "Bounds")]
pub(crate) struct BoundsArgs {
    /// Write to this destination only; may be given several times. Without it: to any but the agent's own sources
    #[arg(long = "allow-destination", value_name = "HOST[:PORT]")]
    allow_destination: Vec<String>,
    /// Open files below this directory when a request or a registered URI names them; may be given several times. Without it:
    /// none
    #[arg(long = "allow-files-below", value_name = "DIR")]
    allow_files_below: Vec<PathBuf>,
    /// Carry out reverse migrations, which write to the source of a migration that this agent completed
    #[arg(long)]
    allow_reverse: bool,
}

impl BoundsArgs {
    pub fn bounds(self) -> Bounds {
        let files = Files::Below(self.allow_files_below);
        Bounds { destinations: self.allow_destination, files, allow_reverse: self.allow_reverse }
    }
}

fn named_uri(text: &str) -> Result<(String, Secret), String> {
    let (name, uri) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty() && !name.contains("://"))
        .ok_or("write it as NAME=URI")?;
    let uri = match uri.strip_prefix('@') {
        None => uri.to_owned(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("the file after the @: {e}"))?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
    };
    Ok((name.to_owned(), Secret::new(uri)))
}
