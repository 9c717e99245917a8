//! Clients that open many connections, send nothing, or send much: others are answered all the same.

use crate::support::{Answer, TestServer};
use limosa_model::{PhaseKind, Progress};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A connection from another address of this machine.
async fn connect_from(n: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("is one");
    socket.bind(SocketAddr::from(([127, 0, 0, n], 0))).expect("binds");
    socket.connect(to).await.expect("connects")
}

fn address(server: &TestServer) -> SocketAddr {
    server.url.trim_start_matches("http://").parse().expect("an address")
}

/// Whether the server has closed it, within the time.
async fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    let mut buffer = [0; 64];
    matches!(tokio::time::timeout(within, stream.read(&mut buffer)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let server = TestServer::with_connections(64).await;
    let to = address(&server);
    let mut idle = Vec::new();
    for n in 0..500_u16 {
        idle.push(connect_from(2 + (n % 8) as u8, to).await);
        if n % 50 == 0 {
            let began = Instant::now();
            let fresh = reqwest::Client::new();
            let asked = fresh.get(format!("{}{}", server.url, server.group("clusters")));
            assert_eq!(Answer::of(asked).await.status, 401);
            assert_eq!(server.get(&server.group("clusters")).await.status, 200, "with {n} idle ones");
            assert!(began.elapsed() < Duration::from_secs(5), "{:?} with {n} idle ones", began.elapsed());
        }
    }
    let metrics = server.get("/metrics").await.text;
    let open = metrics.lines().find_map(|line| line.strip_prefix("limosa_http_connections ")).expect("is measured");
    assert!(open.parse::<f64>().expect("a number") <= 64.0, "{open}");
    assert!(is_closed(&mut idle[0], Duration::from_secs(2)).await, "the oldest was not closed");
}

#[tokio::test]
async fn a_connection_without_a_whole_request_is_closed() {
    let server = TestServer::start().await;
    let to = address(&server);
    let began = Instant::now();
    let mut silent = connect_from(1, to).await;
    let mut slow = connect_from(1, to).await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("writes");
    let mut slow_h2 = connect_from(1, to).await;
    slow_h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("writes");
    let drip = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if slow.write_all(b"x: y\r\n").await.is_err() {
                return;
            }
        }
    });
    assert!(is_closed(&mut silent, Duration::from_secs(20)).await, "one that says nothing stays open");
    tokio::time::timeout(Duration::from_secs(20), drip).await.expect("one that drips stays open").expect("ends");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), slow_h2.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "one of HTTP/2 without a request stays open");
    assert!(began.elapsed() > Duration::from_secs(5), "closed before anyone could have sent a request");
}

/// Sends headers that announce a large body, and a little of it; the status of the answer, if one comes.
async fn announce(server: &TestServer, path: &str, headers: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address(server)).await.expect("connects");
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n{headers}\r\n{{\"a\":");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await.ok()?.ok()?;
    std::str::from_utf8(&answer).ok()?.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn a_body_is_not_waited_for_before_its_sender_is_known() {
    let server = TestServer::start().await;
    let path = server.group("liveMigrations");
    assert_eq!(announce(&server, &path, "").await, Some(401), "without credentials");
    assert_eq!(announce(&server, &path, "Authorization: Bearer wrong\r\n").await, Some(401), "with wrong ones");
    for path in ["/api/oauth/token", "/api/oauth/revoke", "/api/limosa/v1/session"] {
        assert_eq!(announce(&server, path, "").await, Some(413), "{path}");
    }
}

#[tokio::test]
async fn only_the_report_of_a_held_migration_may_be_large() {
    let server = TestServer::start().await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    let padding = "x".repeat(2 * 1024 * 1024);
    let large = json!({"deployments": [], "idle": false, "kept": [], "padding": padding});
    let id = |path: &str| path.rsplit('/').next().expect("an id").to_owned();
    let own = agent.path("");
    let report_path = format!("{own}/migrations/{}/report", id(&migration));
    for path in [
        format!("{own}/heartbeat"),
        report_path.clone(),
        format!("{own}/migrations/nonsense/report"),
        format!("{own}/validations/1/report"),
    ] {
        assert_eq!(agent.post_raw(&path, &large).await.status, 413, "{path}");
    }
    agent.claim().await;
    let progress = Progress::default();
    let mut report = json!({"epoch": agent.epoch(), "phase": PhaseKind::Copying, "progress": progress});
    report["failure"] = Value::Null;
    report["padding"] = padding.into();
    let told = agent.post_raw(&report_path, &report).await;
    assert_eq!(told.status, 200, "{}", &told.text[..told.text.len().min(300)]);
}

#[tokio::test]
async fn a_caller_follows_a_bounded_number_of_streams() {
    let server = TestServer::start().await;
    let path = "/api/limosa/v1/changes";
    let follow = async || {
        let request = server.http.get(format!("{}{path}", server.url)).bearer_auth(server.token());
        request.header("accept", "text/event-stream").send().await.expect("answers")
    };
    let mut streams = Vec::new();
    for n in 0..50 {
        let stream = follow().await;
        assert_eq!(stream.status(), 200, "stream {n}");
        streams.push(stream);
    }
    let refused = follow().await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["x-error-code"], "RATE_LIMITED");
    assert_eq!(server.call(Method::GET, path, None).await.status, 200, "what isn't a stream is answered");
    streams.truncate(10);
    let again = async {
        while follow().await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("an ended stream makes room");
}
