//! A server under hostile connections: what it holds in memory, and how soon others are answered.

use crate::{dashboard::Served, support::bearer_token};
use limosa_testkit::tool;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

/// Bytes of resident memory, in MiB.
fn resident_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("is there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

/// One connection that means harm, held for as long as the server lets it: it says nothing, drips headers, announces a
/// body that doesn't come, or speaks HTTP/2 and asks nothing.
async fn attack(kind: usize, to: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 1, (kind % 16) as u8 + 1], 0)))?;
    let mut stream = socket.connect(to).await?;
    let opening: &[u8] = match kind % 4 {
        0 => b"",
        1 => b"GET /api/atlas/v2/groups HTTP/1.1\r\nHost: x\r\nX: ",
        2 => b"POST /api/atlas/v2/groups HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
        _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    };
    stream.write_all(opening).await?;
    if kind % 4 == 2 {
        stream.write_all(&vec![b'['; 256 * 1024]).await?;
    }
    let mut answer = [0; 1024];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}

/// How long a good request takes, on a connection of its own.
async fn good_request(to: SocketAddr, token: &str) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(to).await.expect("connects");
    let request = format!(
        "GET /api/atlas/v2/groups HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/vnd.atlas.2023-01-01+json\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("is answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    began.elapsed()
}

async fn flood(connections: usize, good: usize) -> (u64, Duration) {
    let served = Served::start(&["--group-requests", "1000000"]);
    let token = bearer_token(&served.url, served.key("clientId"), served.key("clientSecret"));
    let to: SocketAddr = served.url.trim_start_matches("http://").parse().expect("an address");
    let mut attackers = JoinSet::new();
    let (mut times, mut memory) = (Vec::new(), 0);
    for n in 0..connections {
        attackers.spawn(attack(n, to));
        if n % (connections / good) == 0 {
            times.push(good_request(to, &token).await);
            memory = memory.max(resident_memory(served.process.pid()));
        }
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    eprintln!("{connections} hostile connections: {memory} MiB resident, {good} good requests, p99 {p99:?}");
    (memory, p99)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_take_little_memory_and_keep_nobody_out() {
    let (connections, good) = if tool::in_full() { (10_000, 500) } else { (1_000, 100) };
    let (memory, p99) = flood(connections, good).await;
    assert!(memory < 256, "{memory} MiB");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
}
