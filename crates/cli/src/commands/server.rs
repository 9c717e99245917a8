//! `limosa server`

use super::Interrupt;
use crate::{args, error::CliError, profile::Profile, ui};
use limosa_server::{NotifyConfig, RequestLimits, Server, ServerConfig};

pub(crate) async fn run(given: args::Server) -> Result<(), CliError> {
    if given.tls_cert.is_none() && !given.plain_http && !given.listen.ip().is_loopback() {
        let refused = "other machines reach it: give --tls-cert and --tls-key, or say --plain-http where a proxy before it has TLS";
        return Err(CliError::Usage(format!("plain HTTP on {}: {refused}", given.listen)));
    }
    let mut interrupt = Interrupt::listen()?;
    let config = ServerConfig {
        data_dir: given.data_dir.clone(),
        listen: given.listen,
        cutover_window_seconds: given.cutover_window,
        session_seconds: given.session_life,
        notify: given.notify.as_deref().map(NotifyConfig::read).transpose()?,
        tls: given.tls_cert.zip(given.tls_key),
        limits: RequestLimits { orgs: given.org_requests, groups: given.group_requests },
        most_connections: given.max_connections,
        public_url: given.public_url,
    };
    let server = Server::start(&config)?;
    let profile = given.data_dir.join("profile.toml");
    let everywhere = if given.listen.ip().is_unspecified() { ", on all addresses of this machine" } else { "" };
    ui::say(&format!("serving {}{everywhere}; the page in the browser is there too", server.url()));
    if server.bootstrap().is_some() {
        ui::say(&format!("first owner's keys: {}", given.data_dir.join("bootstrap.json").display()));
    }
    // Whoever noted the keys may have deleted the profile as well.
    if let Ok(known) = Profile::of(&server, &profile) {
        known.write(&profile)?;
        ui::say(&format!("for the client verbs: --profile {}", profile.display()));
    }
    server.serve_until(async move { interrupt.came().await }).await?;
    Ok(())
}
