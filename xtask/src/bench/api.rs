//! How long `GET` of one migration takes, asked 2,000 times a second of a server that holds 10,000 of them. The anchor
//! is a server that always gives the same answer, so that what the machine itself makes of it can be seen.

use super::{
    Arguments,
    report::{Measured, Report, Target},
    served::{Connection, STORED, Served, percentile, store_of_many},
};
use limosa_testkit::Error;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

/// Requests a second, of all connections together.
const RATE: u32 = 2_000;

/// How long they are made in each run.
const SPAN: Duration = Duration::from_secs(20);

/// Connections, each kept open.
const CONNECTIONS: u32 = 32;

/// What the anchor answers: about as long as a migration's answer with its headers.
const SAME: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 131\r\n\r\n\
    {\"_id\":\"0123456789abcdef01234567\",\"lagTimeSeconds\":null,\"migrationHosts\":[\"localhost\"],\
    \"readyForCutover\":false,\"status\":\"COMPLETE\"}";

pub(crate) async fn measure(arguments: &Arguments, report: &mut Report) -> Result<(), Error> {
    let state = tempfile::tempdir()?;
    let home = store_of_many(state.path()).await?;
    let served = Served::start(&home)?;
    let paths = paths(&served)?;
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

/// Of so many migrations that no cache of a few hides the store.
fn paths(served: &Served) -> Result<Vec<String>, Error> {
    let group = served.key("groupId");
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
