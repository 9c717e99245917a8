//! How long `GET` of one migration takes, asked 2,000 times a second of a server that holds 10,000 of them. The anchor
//! is a server that always gives the same answer, so that what the machine itself makes of it can be seen.

use super::{
    Arguments,
    program::{Migration, limosa},
    report::{Measured, Report, Target},
    server,
};
use bson::doc;
use limosa_testkit::Error;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Requests a second, of all connections together.
const RATE: u32 = 2_000;

/// How long they are made in each run.
const SPAN: Duration = Duration::from_secs(20);

/// Connections, each kept open.
const CONNECTIONS: u32 = 32;

/// Stored migrations.
const STORED: u64 = 10_000;

/// How long the server may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the anchor answers: about as long as a migration's answer with its headers.
const SAME: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 131\r\n\r\n\
    {\"_id\":\"0123456789abcdef01234567\",\"lagTimeSeconds\":null,\"migrationHosts\":[\"localhost\"],\
    \"readyForCutover\":false,\"status\":\"COMPLETE\"}";

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let (source, destination) = (server(1, 1000).await?, server(1, 1000).await?);
    let client = source.client().await;
    for n in 0..20 {
        client.database("app").collection(&format!("c{n}")).insert_one(doc! {"_id": 1}).await?;
    }
    let mut migration = Migration::start(&source, &destination, &["--cutover", "when-ready"])?;
    migration.until("complete").await?;
    let profile = migration.profile();
    migration.end()?;
    let home = profile.parent().ok_or("the profile has no directory")?.join("server");
    multiply(&home.join("limosa.db"))?;
    drop((source, destination));
    let served = Served::start(&home)?;
    let paths = paths(&home, &served)?;
    let anchor = same_answers()?;
    let (mut half, mut most, mut worst) = (Measured(Vec::new()), Measured(Vec::new()), Measured(Vec::new()));
    let (mut bare_half, mut bare_most) = (Measured(Vec::new()), Measured(Vec::new()));
    for _ in 0..arguments.runs {
        let bare = load(anchor, "", &paths)?;
        bare_half.0.push(percentile(&bare, 0.5));
        bare_most.0.push(percentile(&bare, 0.99));
        let found = load(served.address, &served.token, &paths)?;
        half.0.push(percentile(&found, 0.5));
        most.0.push(percentile(&found, 0.99));
        worst.0.push(percentile(&found, 1.0));
    }
    report.figure("api", "the same answer always, half within", "ms", &bare_half, None);
    report.figure("api", "the same answer always, 99 % within", "ms", &bare_most, None);
    report.figure("api", "GET of one migration, half within", "ms", &half, None);
    report.figure("api", "GET of one migration, 99 % within", "ms", &most, Some(Target::AtMost(5.0)));
    report.figure("api", "GET of one migration, the longest", "ms", &worst, None);
    Ok(())
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
struct Served {
    child: Child,
    address: SocketAddr,
    token: String,
}

impl Served {
    fn start(home: &Path) -> Result<Self, Error> {
        let profile = home.join("profile.toml");
        let child = limosa()
            .args(["server", "--listen", "127.0.0.1:0", "--group-requests", "1000000000", "--data-dir"])
            .arg(home)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut served = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), token: String::new() };
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
        let keys: Value = serde_json::from_slice(&fs::read(home.join("bootstrap.json"))?)?;
        let key = |name: &str| keys[name].as_str().unwrap_or_default().to_owned();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            key("clientId"),
            key("clientSecret")
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
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of so many migrations that no cache of a few hides the store.
fn paths(home: &Path, served: &Served) -> Result<Vec<String>, Error> {
    let keys: Value = serde_json::from_slice(&fs::read(home.join("bootstrap.json"))?)?;
    let group = keys["groupId"].as_str().ok_or("there is no group")?;
    let paths: Vec<String> =
        (1..=STORED).map(|n| format!("/api/atlas/v2/groups/{group}/liveMigrations/{n:024x}")).collect();
    let first = Connection::open(served.address)?.ask(&get(&paths[0], &served.token))?;
    let first: Value = serde_json::from_slice(&first)?;
    if first["status"] == "COMPLETE" { Ok(paths) } else { Err(format!("it answered {first}").into()) }
}

fn get(path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: limosa\r\nauthorization: Bearer {token}\r\n\
         accept: application/vnd.atlas.2025-03-12+json\r\n\r\n"
    )
}

/// One connection that is kept open.
struct Connection {
    answers: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { answers: BufReader::new(stream) })
    }

    /// The body of a 200; everything else is an error.
    fn ask(&mut self, request: &str) -> Result<Vec<u8>, Error> {
        self.answers.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut status, mut length) = (String::new(), String::new(), 0);
        loop {
            line.clear();
            self.answers.read_line(&mut line)?;
            let text = line.trim_end().to_ascii_lowercase();
            match text.split_once(": ") {
                _ if text.is_empty() => break,
                Some(("content-length", value)) => length = value.parse()?,
                Some(_) => {}
                None => status = text,
            }
        }
        let mut body = vec![0; length];
        self.answers.read_exact(&mut body)?;
        if status.starts_with("http/1.1 200") {
            return Ok(body);
        }
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into())
    }
}

/// Answers the same to everyone, as long as this process lives.
fn same_answers() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut requests = BufReader::new(stream);
                let mut line = String::new();
                while requests.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" && requests.get_mut().write_all(SAME).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    Ok(address)
}

/// Milliseconds of every request, ascending, from the moment at which it was due: what waits behind a slow one counts.
fn load(address: SocketAddr, token: &str, paths: &[String]) -> Result<Vec<f64>, Error> {
    let began = Instant::now() + Duration::from_millis(200);
    let each = SPAN.as_secs() as u32 * RATE / CONNECTIONS;
    let mut taken = Vec::new();
    thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                scope.spawn(move || {
                    let mut connection = Connection::open(address).map_err(|e| e.to_string())?;
                    let mut taken = Vec::with_capacity(each as usize);
                    for turn in 0..each {
                        let nth = turn * CONNECTIONS + number;
                        let due = began + Duration::from_secs(1) * nth / RATE;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        // A large step that has no factor in common with their number: each in its turn, far apart.
                        let path = &paths[nth as usize * 7_919 % paths.len()];
                        connection.ask(&get(path, token)).map_err(|e| e.to_string())?;
                        taken.push(due.elapsed().as_secs_f64() * 1000.0);
                    }
                    Ok::<_, String>(taken)
                })
            })
            .collect();
        for connection in connections {
            taken.extend(connection.join().map_err(|_| "a connection's thread ended")??);
        }
        Ok::<_, Error>(())
    })?;
    taken.sort_by(f64::total_cmp);
    Ok(taken)
}

/// Of values that ascend.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
