//! People are told: by a signed webhook that is retried, by a letter to a mail server, once for each occasion.

use crate::support::TestServer;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use limosa_model::{PhaseKind, Progress};
use limosa_server::NotifyConfig;
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

const SECRET: &str = "a secret of the test's own";

type Requests = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// An HTTP receiver that refuses its first request.
async fn receiver() -> (String, Requests) {
    let got = Requests::default();
    let take = async |State(got): State<Requests>, headers: HeaderMap, body: Bytes| {
        let mut got = got.lock().expect("is whole");
        got.push((headers, String::from_utf8(body.to_vec()).expect("is text")));
        if got.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let app = Router::new().route("/hook", post(take)).with_state(Arc::clone(&got));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/hook", listener.local_addr().expect("has one"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, got)
}

/// A mail server that takes every letter.
async fn mail_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let letters = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("smtp://{}", listener.local_addr().expect("has one"));
    let kept = Arc::clone(&letters);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                let mut letter: Option<String> = None;
                write.write_all(b"220 sink\r\n").await?;
                while let Some(line) = lines.next_line().await? {
                    let answer = match (&mut letter, line.as_str()) {
                        (Some(text), ".") => {
                            kept.lock().expect("is whole").push(std::mem::take(text));
                            letter = None;
                            "250 taken\r\n"
                        }
                        (Some(text), line) => {
                            text.push_str(line);
                            text.push('\n');
                            continue;
                        }
                        (None, "DATA") => {
                            letter = Some(String::new());
                            "354 continue\r\n"
                        }
                        (None, "QUIT") => "221 bye\r\n",
                        (None, _) => "250 fine\r\n",
                    };
                    write.write_all(answer.as_bytes()).await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    (url, letters)
}

fn config(dir: &Path, hook: &str, mail: &str) -> NotifyConfig {
    written(
        dir,
        &format!(
            "page = \"https://limosa.example.com\"\n[[webhook]]\nurl = \"{hook}\"\nsecret = \"{SECRET}\"\n\
             [mail]\nserver = \"{mail}\"\nfrom = \"Limosa <limosa@example.com>\"\nto = [\"dba@example.com\"]\n"
        ),
    )
}

fn written(dir: &Path, text: &str) -> NotifyConfig {
    let file = dir.join("notify.toml");
    std::fs::write(&file, text).expect("writes");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("sets");
    NotifyConfig::read(&file).expect("is fine")
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As any receiver checks it, with another program.
fn is_signed(signature: &str, body: &str) -> bool {
    let (seconds, given) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature");
    let script =
        "import hmac,hashlib,sys;print(hmac.new(sys.argv[1].encode(),sys.argv[2].encode(),hashlib.sha256).hexdigest())";
    let done =
        std::process::Command::new("python3").args(["-c", script, SECRET, &format!("{seconds}.{body}")]).output();
    String::from_utf8_lossy(&done.expect("python3 runs").stdout).trim() == given
}

#[tokio::test]
async fn what_happens_is_told_once_and_tried_until_it_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let ((hook, requests), (mail, letters)) = (receiver().await, mail_server().await);
    let config = config(dir.path(), &hook, &mail);
    let server = TestServer::launch(360_000, Some(config)).await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Copying, None).await;
    let progress = Progress { lag_seconds: Some(1), oplog_window_seconds: Some(300), ..Progress::default() };
    agent.report_with(&migration, PhaseKind::Synced, progress.clone()).await;
    for documents_repaired in [1, 2, 2] {
        let progress = Progress { documents_repaired, ..progress.clone() };
        agent.report_with(&migration, PhaseKind::Synced, progress).await;
    }
    let events = || -> Vec<Value> {
        let requests = requests.lock().expect("is whole");
        requests.iter().map(|(_, body)| serde_json::from_str(body).expect("JSON")).collect()
    };
    let has = |wanted: &str| events().iter().any(|event| event["event"] == wanted).then_some(());
    until("ready", || has("ready")).await;
    until("the oplog", || has("oplogShort")).await;
    until("a mismatch", || has("mismatch")).await;
    agent.report(&migration, PhaseKind::Failed, None).await;
    until("failed", || has("failed")).await;
    until("four letters", || (letters.lock().expect("is whole").len() == 4).then_some(())).await;
    // The refused one came again, with its id.
    until("the refused one", || (requests.lock().expect("is whole").len() == 5).then_some(())).await;
    let requests = requests.lock().expect("is whole").clone();
    let id = |n: usize| requests[n].0["limosa-delivery"].to_str().expect("is text").to_owned();
    assert!((1..5).any(|n| id(n) == id(0) && requests[n].1 == requests[0].1), "{requests:?}");
    for (headers, body) in &requests {
        assert!(is_signed(headers["limosa-signature"].to_str().expect("is text"), body), "{headers:?}");
        assert!(!body.contains("hidden"), "{body}");
    }
    let failed = events().into_iter().find(|event| event["event"] == "failed").expect("is there");
    assert_eq!(
        (failed["failure"]["code"].as_str(), failed["migration"]["source"].as_str()),
        (Some("HISTORY_LOST"), Some("old"))
    );
    assert!(failed["link"].as_str().is_some_and(|link| link.starts_with("https://limosa.example.com/#/migrations/")));
    let letters = letters.lock().expect("is whole").join("\n----\n");
    for part in ["To: dba@example.com", "From:", "HISTORY_LOST", "ready for cutover", "What to do"] {
        // Long lines and other letters are quoted.
        assert!(
            letters.replace("=\n", "").replace("=20", " ").contains(part) || letters.contains("Subject: =?utf-8?b?"),
            "{part}: {letters}"
        );
    }
}

#[tokio::test]
async fn a_test_message_tells_which_way_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mail, letters) = mail_server().await;
    let results = limosa_server::send_test(&config(dir.path(), "http://127.0.0.1:1/hook-with-a-token", &mail)).await;
    let results = results.expect("is configured");
    assert_eq!(results.iter().map(|(_, done)| done.is_ok()).collect::<Vec<_>>(), [false, true], "{results:?}");
    assert!(!format!("{results:?}").contains("with-a-token"), "{results:?}");
    assert!(letters.lock().expect("is whole")[0].contains("Messages arrive here."));
}

#[tokio::test]
async fn what_happened_last_is_told_before_the_server_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = Arc::new(Mutex::new(Vec::new()));
    // Longer than a look at what is new takes. Whoever hangs up before is not noted.
    let take = async |State(taken): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| {
        tokio::time::sleep(Duration::from_secs(3)).await;
        taken.lock().expect("is whole").push(body);
    };
    let app = Router::new().route("/hook", post(take)).with_state(Arc::clone(&taken));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let hook = format!("http://{}/hook", listener.local_addr().expect("has one"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let text = format!("on = [\"failed\"]\n[[webhook]]\nurl = \"{hook}\"\nsecret = \"{SECRET}\"\n");
    let server = TestServer::launch(360_000, Some(written(dir.path(), &text))).await;
    let mut agent = server.agent().await;
    let migration = server.migration().await;
    agent.claim().await;
    agent.report(&migration, PhaseKind::Failed, None).await;
    server.stop().await;
    let taken = taken.lock().expect("is whole");
    assert!(taken.len() == 1 && String::from_utf8_lossy(&taken[0]).contains("HISTORY_LOST"), "{taken:?}");
}
