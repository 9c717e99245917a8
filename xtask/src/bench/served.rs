//! `limosa server` with a store of many migrations, and connections to it that are kept open.

use super::program::{Migration, limosa};
use bson::doc;
use limosa_testkit::{Error, ReplicaSet};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Stored migrations.
pub(crate) const STORED: u64 = 10_000;

/// How long the server may take to be there, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The data directory of a server that holds [`STORED`] migrations, all copies of one that was really made. `state` is
/// where it is put.
pub(crate) async fn store_of_many(state: &Path) -> Result<PathBuf, Error> {
    let (source, destination) = (ReplicaSet::start().await?, ReplicaSet::start().await?);
    let client = source.client().await;
    for n in 0..20 {
        client.database("app").collection(&format!("c{n}")).insert_one(doc! {"_id": 1}).await?;
    }
    let mut migration = Migration::start(&source, &destination, &["--cutover", "when-ready"])?;
    migration.until("complete").await?;
    migration.end()?;
    let home = state.join("server");
    let made = migration.profile().parent().ok_or("the profile has no directory")?.join("server");
    fs::create_dir_all(&home)?;
    for file in fs::read_dir(made)? {
        let file = file?;
        fs::copy(file.path(), home.join(file.file_name()))?;
    }
    multiply(&home.join("limosa.db"))?;
    Ok(home)
}

/// Copies the one migration that is stored, with its events and report, until there are enough.
fn multiply(store: &Path) -> Result<(), Error> {
    let connection = rusqlite::Connection::open(store)?;
    connection.execute_batch(&format!(
        "BEGIN;
         CREATE TEMP TABLE made AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {STORED})
            SELECT printf('%024x', i) AS id FROM n;
         INSERT INTO migrations (id, org_id, group_id, credentials, version, final, body)
            SELECT made.id, org_id, group_id, credentials, version, final, json_set(body, '$.id', made.id)
            FROM (SELECT * FROM migrations LIMIT 1), made;
         INSERT INTO events (migration_id, at, kind, message)
            SELECT made.id, at, kind, message FROM (SELECT * FROM events), made;
         INSERT INTO reports SELECT made.id, body FROM (SELECT * FROM reports LIMIT 1), made;
         COMMIT;"
    ))?;
    let stored: i64 = connection.query_row("SELECT count(*) FROM migrations", [], |row| row.get(0))?;
    println!("  {stored} migrations stored");
    Ok(())
}

/// `limosa server` and a token for it; killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub address: SocketAddr,
    pub token: String,
    keys: Value,
}

impl Served {
    pub fn start(home: &Path) -> Result<Self, Error> {
        let profile = home.join("profile.toml");
        let child = limosa()
            .args(["server", "--listen", "127.0.0.1:0", "--group-requests", "1000000000", "--data-dir"])
            .arg(home)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut served =
            Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), token: String::new(), keys: Value::Null };
        let began = Instant::now();
        served.address = loop {
            let text = fs::read_to_string(&profile).unwrap_or_default();
            let url = text.lines().find_map(|line| line.strip_prefix("url = \"http://")?.strip_suffix('"'));
            match url {
                Some(address) => break address.parse()?,
                None if began.elapsed() > PATIENCE => return Err("the server never came".into()),
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        served.keys = serde_json::from_slice(&fs::read(home.join("bootstrap.json"))?)?;
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            served.key("clientId"),
            served.key("clientSecret")
        );
        let request = format!(
            "POST /api/oauth/token HTTP/1.1\r\nhost: limosa\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{form}",
            form.len()
        );
        let answer: Value = serde_json::from_slice(&Connection::open(served.address)?.ask(&request)?)?;
        served.token = answer["access_token"].as_str().ok_or("there is no token")?.to_owned();
        Ok(served)
    }

    /// Of the first organization, group and keys.
    pub fn key(&self, name: &str) -> &str {
        self.keys[name].as_str().unwrap_or_default()
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection that is kept open.
pub(crate) struct Connection {
    answers: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { answers: BufReader::new(stream) })
    }

    /// The body of a 200; everything else is an error.
    pub fn ask(&mut self, request: &str) -> Result<Vec<u8>, Error> {
        let answer = self.exchange(request)?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(format!("it answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into())
    }

    pub fn exchange(&mut self, request: &str) -> Result<Answer, Error> {
        self.answers.get_mut().write_all(request.as_bytes())?;
        let mut answer = Answer { status: 0, challenge: String::new(), body: Vec::new() };
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            self.answers.read_line(&mut line)?;
            let text = line.trim_end();
            match text.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
                _ if text.is_empty() => break,
                Some((name, value)) if name == "content-length" => length = value.parse()?,
                Some((name, value)) if name == "www-authenticate" => value.clone_into(&mut answer.challenge),
                Some(_) => {}
                None => answer.status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0),
            }
        }
        answer.body = vec![0; length];
        self.answers.read_exact(&mut answer.body)?;
        Ok(answer)
    }
}

/// What came back.
pub(crate) struct Answer {
    pub status: u16,
    /// What it wants signed, if anything.
    pub challenge: String,
    pub body: Vec<u8>,
}

/// Of values that ascend.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
