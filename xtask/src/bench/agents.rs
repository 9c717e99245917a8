//! What migration hosts cost a control plane: each of them, on a connection of its own, signs and sends a heartbeat and a
//! report of its migration every second, to one server that holds 10,000 migrations. With twice as many of them the
//! server's processor time must be about twice as much.

use super::{
    program::cpu_seconds,
    report::{Measured, Report, Target},
    served::{Connection, STORED, Served, percentile, store_of_many},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use limosa_model::{
    AgentId, DeploymentId, MigrationId, PhaseKind, Progress, Secret,
    digest::{self, parse_parameters},
    protocol,
};
use limosa_testkit::Error;
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// How many there are, in turn.
const HOSTS: [usize; 3] = [250, 500, 1_000];

/// How long they are watched.
const SPAN: Duration = Duration::from_secs(20);

/// Seconds before that, in which they come and take their migrations.
const WARM_UP: u32 = 5;

/// The deployment that all announce.
const DEPLOYMENT: &str = "old";

pub(crate) async fn measure(report: &mut Report) -> Result<(), Error> {
    let state = tempfile::tempdir()?;
    let home = store_of_many(state.path()).await?;
    let served = Served::start(&home)?;
    let token = link_token(&served)?;
    let group = activate(&home.join("limosa.db"))?;
    let ids: Vec<AgentId> = (0..HOSTS[HOSTS.len() - 1]).map(|_| AgentId::generate()).collect();
    let mut each = Vec::new();
    for hosts in HOSTS {
        let (taken, cpu) = watch(&served, &token, &group, &ids[..hosts])?;
        let share = 100.0 * cpu / SPAN.as_secs_f64();
        each.push(share / hosts as f64);
        let mut figure = |what: &str, unit: &str, value: f64, target| {
            report.figure("agents", &format!("{hosts} hosts, {what}"), unit, &Measured(vec![value]), target);
        };
        figure("requests", "/s", taken.len() as f64 / SPAN.as_secs_f64(), None);
        figure("the server's processor time, of one core", "%", share, None);
        figure("its memory", "MB", resident_megabytes(served.process()), None);
        figure("half answered within", "ms", percentile(&taken, 0.5), None);
        figure("99 % answered within", "ms", percentile(&taken, 0.99), None);
    }
    let growth = Measured(vec![each[each.len() - 1] / each[0]]);
    let target = Some(Target::AtMost(1.25));
    report.figure(
        "agents",
        "processor time for each of the most hosts, by that of the fewest",
        "ratio",
        &growth,
        target,
    );
    Ok(())
}

fn resident_megabytes(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.map_or(f64::NAN, |kilobytes: f64| kilobytes * 1024.0 / 1e6)
}

/// User and secret that hosts sign with.
fn link_token(served: &Served) -> Result<(String, String), Error> {
    let (org, bearer) = (served.key("orgId"), &served.token);
    let path = format!("/api/atlas/v2/orgs/{org}/liveMigrations/linkTokens");
    let head = format!(
        "host: limosa\r\nauthorization: Bearer {bearer}\r\naccept: application/vnd.atlas.2025-03-12+json\r\n\
         content-type: application/json\r\n"
    );
    let mut connection = Connection::open(served.address)?;
    // The one that the template's own host joined with; its secret isn't kept.
    connection.exchange(&format!("DELETE {path} HTTP/1.1\r\n{head}\r\n"))?;
    let body = r#"{"accessListIps": []}"#;
    let answer =
        connection.exchange(&format!("POST {path} HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}", body.len()))?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let token = answer["linkToken"].as_str().ok_or_else(|| format!("there is no link token: {answer}"))?;
    let token: Value = serde_json::from_slice(&STANDARD.decode(token)?)?;
    let part = |name: &str| token[name].as_str().unwrap_or_default().to_owned();
    Ok((part("publicApiKey"), part("privateApiKey")))
}

/// Lets as many of the stored migrations as there are hosts wait, one for each. Returns the name of their group.
fn activate(store: &Path) -> Result<String, Error> {
    let connection = rusqlite::Connection::open(store)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let most = HOSTS[HOSTS.len() - 1] as u64;
    assert!(most <= STORED);
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE made AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})
            SELECT printf('%024x', i) AS id, printf('host%d', i - 1) AS host FROM n;
         UPDATE migrations SET final = 0, body = json_set(body, '$.phase', json('{{\"kind\":\"scheduled\"}}'),
            '$.lease', NULL, '$.migrationHost', made.host, '$.source.clusterName', '{DEPLOYMENT}',
            '$.carried', json('{{}}'))
            FROM made WHERE made.id = migrations.id;"
    ))?;
    let query = "SELECT name FROM groups WHERE id = (SELECT group_id FROM migrations LIMIT 1)";
    Ok(connection.query_row(query, [], |row| row.get(0))?)
}

/// Milliseconds of every request of all hosts, ascending, and the seconds of processor time that the server took.
fn watch(served: &Served, token: &(String, String), group: &str, ids: &[AgentId]) -> Result<(Vec<f64>, f64), Error> {
    let ready = Barrier::new(ids.len() + 1);
    let mut taken = Vec::new();
    let mut cpu = 0.0;
    thread::scope(|scope| {
        let hosts: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(number, id)| {
                let ready = &ready;
                let host = thread::Builder::new().stack_size(256 * 1024);
                host.spawn_scoped(scope, move || {
                    let host = Host::join(served.address, token, group, number, *id);
                    ready.wait();
                    // Spread evenly over each second.
                    let offset = Duration::from_secs(1) * number as u32 / ids.len() as u32;
                    host.and_then(|mut host| host.live(Instant::now() + offset)).map_err(|e| e.to_string())
                })
            })
            .collect::<Result<_, _>>()?;
        ready.wait();
        thread::sleep(Duration::from_secs(1) * WARM_UP);
        let before = cpu_seconds(served.process());
        thread::sleep(SPAN);
        cpu = cpu_seconds(served.process()) - before;
        for host in hosts {
            taken.extend(host.join().map_err(|_| "a host's thread ended")??);
        }
        Ok::<_, Error>(())
    })?;
    taken.sort_by(f64::total_cmp);
    Ok((taken, cpu))
}

/// One migration host.
struct Host {
    connection: Connection,
    user: String,
    secret: String,
    /// The server's nonce and how often it was used.
    nonce: Option<(String, u32)>,
    id: AgentId,
    deployments: Vec<protocol::Deployment>,
    migration: Option<(MigrationId, limosa_model::Epoch)>,
}

impl Host {
    fn join(
        address: SocketAddr,
        (user, secret): &(String, String),
        group: &str,
        number: usize,
        id: AgentId,
    ) -> Result<Self, Error> {
        let deployments = vec![protocol::Deployment {
            name: DEPLOYMENT.to_owned(),
            cluster_id: DeploymentId::generate(),
            db_size_bytes: 1_000_000_000,
            feature_compatibility_version: "6.0".to_owned(),
            mongo_db_version: "6.0.5".to_owned(),
            oplog_size_mb: 1_000,
            sharded: false,
            shards_size: 1,
            tls_enabled: false,
            managed: false,
        }];
        let mut host = Self {
            connection: Connection::open(address)?,
            user: user.clone(),
            secret: secret.clone(),
            nonce: None,
            id,
            deployments: deployments.clone(),
            migration: None,
        };
        let join = protocol::Join {
            agent_id: id,
            host_name: format!("host{number}"),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            group_name: group.to_owned(),
            secret: Some(Secret::new(host.own_secret())),
            deployments,
        };
        host.post("", &join)?;
        Ok(host)
    }

    /// Milliseconds of every request within [`SPAN`], from the moment at which it was due.
    fn live(&mut self, begin: Instant) -> Result<Vec<f64>, Error> {
        let mut taken = Vec::new();
        for second in 0..WARM_UP + SPAN.as_secs() as u32 {
            let due = begin + Duration::from_secs(1) * second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let heartbeat = protocol::Heartbeat {
                deployments: self.deployments.clone(),
                idle: self.migration.is_none(),
                kept: Vec::new(),
            };
            let work: protocol::Work =
                serde_json::from_slice(&self.post(&format!("/{}/heartbeat", self.id), &heartbeat)?)?;
            let beaten = due.elapsed();
            self.migration = self.migration.or(work.migration.map(|given| (given.migration_id, given.epoch)));
            let Some((migration, epoch)) = self.migration else {
                return Err(format!("host {} was given no migration", self.id).into());
            };
            let due = Instant::now();
            let progress = Progress {
                documents_total: 1_000_000,
                documents_copied: 1_000_000,
                events_applied: u64::from(second) * 1_000,
                lag_seconds: Some(1),
                ..Progress::default()
            };
            let (phase, failure) = (PhaseKind::CatchingUp, None);
            let (rehearsal, destination, record) = (None, None, None);
            let report =
                protocol::Report { epoch, phase, progress, failure, rehearsal, destination, record, identities: None };
            self.post(&format!("/{}/migrations/{migration}/report", self.id), &report)?;
            if second >= WARM_UP {
                taken.extend([beaten, due.elapsed()].map(|took| took.as_secs_f64() * 1000.0));
            }
        }
        Ok(taken)
    }

    /// What proves that it is the host of its id.
    fn own_secret(&self) -> String {
        format!("the secret of the bench's host {}", self.id)
    }

    /// The body of a 200, signed as an agent signs.
    fn post(&mut self, path: &str, body: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
        let path = format!("/api/limosa/v1/agents{path}");
        let body = serde_json::to_string(body)?;
        for _ in 0..2 {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: limosa\r\naccept: application/vnd.atlas.2024-05-30+json\r\n\
                 content-type: application/json\r\n{}{}: {}\r\ncontent-length: {}\r\n\r\n{body}",
                self.signature(&path),
                protocol::SECRET_HEADER,
                self.own_secret(),
                body.len()
            );
            let answer = self.connection.exchange(&request)?;
            match answer.status {
                200 => return Ok(answer.body),
                401 => {
                    let parameters = parse_parameters(&answer.challenge).ok_or("there is no challenge")?;
                    self.nonce = parameters.into_iter().find(|(name, _)| name == "nonce").map(|(_, nonce)| (nonce, 0));
                }
                status => return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&answer.body)).into()),
            }
        }
        Err(format!("{path}: the signature is refused").into())
    }

    fn signature(&mut self, uri: &str) -> String {
        const REALM: &str = "MMS Public API";
        let Some((nonce, count)) = &mut self.nonce else { return String::new() };
        *count += 1;
        let (nc, cnonce) = (format!("{count:08x}"), "0123456789abcdef");
        let challenge = digest::Challenge { method: "POST", uri, nonce, nc: &nc, cnonce, qop: "auth" };
        let response = digest::response(&digest::ha1(&self.user, REALM, &self.secret), challenge);
        format!(
            "authorization: Digest username=\"{}\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm=MD5, \
             qop=auth, nc={nc}, cnonce=\"{cnonce}\", response=\"{response}\"\r\n",
            self.user
        )
    }
}
