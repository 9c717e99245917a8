//! `limosa doctor`: what someone who helps from afar has to know, in one file, without secrets. What is secret is known
//! exactly, from the profile and the environment, and is cut out of every string, whatever it stands in.

use crate::{
    args::Doctor,
    error::CliError,
    profile::{Profile, write_private},
    ui,
};
use limosa_agent::http::Client;
use limosa_model::{Timestamp, secret::redact_uris};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

/// How much of the log's end goes in.
const LOG_BYTES: usize = 512 * 1024;

/// A part of a secret shorter than this is not looked for: it would cut words apart.
const LEAST: usize = 6;

pub(crate) async fn run(given: &Doctor) -> Result<(), CliError> {
    let profile = Profile::read(&given.profile);
    let mut secrets = Secrets::of_environment();
    let mut report = json!({
        "made": Timestamp::now().rfc3339(),
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine(),
        "environment": env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|n| n.starts_with("LIMOSA_")).collect::<BTreeSet<_>>(),
        "profile": given.profile,
    });
    let home = given.profile.parent().unwrap_or(Path::new("."));
    report["files"] = files(home);
    secrets.of_files(home);
    report["log"] = tail(&home.join("limosa.log"));
    match &profile {
        Ok(profile) => {
            secrets.add(profile.private_key.expose());
            report["server"] = server(profile).await;
        }
        Err(error) => report["server"] = json!({"error": error.to_string()}),
    }
    secrets.cut(&mut report);
    let text = serde_json::to_string_pretty(&report).unwrap_or_default();
    write_private(&given.file, text.as_bytes())?;
    ui::say(&format!("written: {}; look it over before you send it", given.file.display()));
    Ok(())
}

/// What must not be in the report.
struct Secrets(BTreeSet<String>);

impl Secrets {
    fn of_environment() -> Self {
        let mut secrets = Self(BTreeSet::new());
        for (name, value) in env::vars() {
            match name.as_str() {
                "LIMOSA_SOURCE_URI" | "LIMOSA_DESTINATION_URI" => secrets.of_uri(&value),
                "LIMOSA_LINK_TOKEN" => secrets.add(&value),
                _ => {}
            }
        }
        secrets
    }

    fn of_uri(&mut self, uri: &str) {
        let user = uri.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
        user.and_then(|user| user.split_once(':')).into_iter().for_each(|(_, password)| self.add(password));
    }

    /// The keys that a state or data directory holds in the clear.
    fn of_files(&mut self, home: &Path) {
        for name in ["bootstrap.json", "server/bootstrap.json"] {
            let text = fs::read_to_string(home.join(name)).unwrap_or_default();
            let keys: Value = serde_json::from_str(&text).unwrap_or_default();
            ["privateKey", "clientSecret"].iter().filter_map(|n| keys[n].as_str()).for_each(|secret| self.add(secret));
        }
        self.add(fs::read_to_string(home.join("link-token")).unwrap_or_default().trim());
    }

    fn add(&mut self, secret: &str) {
        if secret.len() >= LEAST {
            self.0.insert(secret.to_owned());
        }
    }

    fn cut(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                *text = self.0.iter().fold(redact_uris(text), |text, secret| text.replace(secret, "***"));
            }
            Value::Array(all) => all.iter_mut().for_each(|value| self.cut(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.cut(value)),
            _ => {}
        }
    }
}

fn machine() -> Value {
    let said = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let read = |file: &str| fs::read_to_string(file).ok();
    let release = read("/etc/os-release").and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned()))
    });
    let memory = read("/proc/meminfo").and_then(|text| text.lines().next().map(ToOwned::to_owned));
    json!({
        "os": release, "kernel": said("uname", &["-sr"]), "architecture": env::consts::ARCH,
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": memory, "limits": read("/proc/self/limits"), "disks": said("df", &["-h", "."]),
    })
}

/// Names and sizes.
fn files(home: &Path) -> Value {
    let Ok(entries) = fs::read_dir(home) else { return Value::Null };
    let all = entries.flatten().map(|entry| {
        let size = entry.metadata().map(|m| m.len()).unwrap_or_default();
        (entry.file_name().to_string_lossy().into_owned(), json!(size))
    });
    Value::Object(Map::from_iter(all))
}

fn tail(file: &Path) -> Value {
    let Ok(bytes) = fs::read(file) else { return Value::Null };
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_BYTES)..]).into_owned();
    json!(text.lines().collect::<Vec<_>>())
}

/// What the server says of itself and of its migrations.
async fn server(profile: &Profile) -> Value {
    let client: Client = match profile.client() {
        Ok(client) => client,
        Err(error) => return json!({"url": profile.url, "error": error.to_string()}),
    };
    let ask = async |path: String| match client.call(Method::GET, &path, None).await {
        Ok(answer) => answer,
        Err(error) => json!({"error": error.to_string()}),
    };
    let migrations = ask(profile.own("liveMigrations")).await;
    let mut events = Map::new();
    let newest = migrations["results"].as_array().map(Vec::as_slice).unwrap_or_default().iter().take(5);
    for id in newest.filter_map(|migration| migration["id"].as_str()) {
        events.insert(id.to_owned(), ask(profile.own(&format!("liveMigrations/{id}/events"))).await);
    }
    json!({
        "url": profile.url, "about": ask("/api/atlas/v2".to_owned()).await, "migrations": migrations, "events": events,
        "hosts": ask(profile.org("liveMigrations/availableProjects")).await, "clusters": ask(profile.atlas("clusters")).await,
    })
}
