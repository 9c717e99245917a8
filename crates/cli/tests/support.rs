//! Runs the program and reads what it says.

use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn limosa() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limosa"));
    for name in [
        "LIMOSA_SOURCE_URI",
        "LIMOSA_DESTINATION_URI",
        "LIMOSA_PROFILE",
        "LIMOSA_LINK_TOKEN",
        "LIMOSA_LOG",
        "LIMOSA_LOG_FORMAT",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// `limosa migrate` between two URIs that no process list shows.
pub fn migrate(source: &str, destination: &str, state: &Path) -> Command {
    let mut command = limosa();
    command.env("LIMOSA_SOURCE_URI", source).env("LIMOSA_DESTINATION_URI", destination);
    command.args(["migrate", "--output", "json", "--state-dir"]).arg(state);
    command
}

/// Runs to the end: status, stdout, stderr.
pub fn finish(command: &mut Command) -> (i32, String, String) {
    let done = command.output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("is text");
    (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
}

/// A process whose stdout is read line by line; killed when dropped.
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// All that was read of stdout.
    pub said: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("is piped"));
        Self { child, lines, said: String::new() }
    }

    /// The next event; `None` at the end.
    pub fn event(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("is text");
        self.said.push_str(&line);
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
    }

    /// Reads until an event for which `wanted` holds.
    pub fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let began = Instant::now();
        while let Some(event) = self.event() {
            if wanted(&event) {
                return event;
            }
            let patience = if limosa_testkit::tool::in_full() { PATIENCE * 20 } else { PATIENCE };
            assert!(began.elapsed() < patience, "never came; it said {}", self.said);
        }
        let mut errors = String::new();
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut errors));
        panic!("it ended before; it said {} {errors}", self.said)
    }

    pub fn until_event(&mut self, name: &str) -> Value {
        self.until(|event| event["event"] == name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().expect("runs");
        assert!(sent.success());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("is there");
        self.child.wait().expect("ends");
    }

    /// Reads stdout to its end; the status, and stderr.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        while self.event().is_some() {}
        let mut errors = String::new();
        self.child.stderr.take().expect("is piped").read_to_string(&mut errors).expect("is text");
        (self.child.wait().expect("ends"), std::mem::take(&mut self.said), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that nobody listens to; killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
    }

    /// What it says on stderr goes to `log`.
    pub fn start_logging(command: &mut Command, log: File) -> Self {
        Self(command.stdout(Stdio::null()).stderr(log).spawn().expect("starts"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.0.id().to_string()]).status().expect("runs");
        assert!(sent.success());
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("can be asked").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let patience = if limosa_testkit::tool::in_full() { PATIENCE * 20 } else { PATIENCE };
        assert!(began.elapsed() < patience, "{what} never came");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until the server of this profile answers.
pub fn serves(profile: &Path) {
    wait_for("the server", || {
        let listed = limosa().args(["clusters", "list", "--profile"]).arg(profile).output().expect("runs");
        listed.status.success().then_some(())
    });
}

/// A client verb's answer.
pub fn verb(profile: &Path, words: &[&str]) -> Value {
    let (status, said, errors) = finish(limosa().args(words).args(["--output", "json", "--profile"]).arg(profile));
    assert_eq!(status, 0, "{words:?}: {errors}");
    serde_json::from_str(&said).unwrap_or(Value::Null)
}

/// The body of the request that comes on a connection.
pub fn body_of(stream: &TcpStream) -> String {
    let (mut reader, mut line, mut length) = (BufReader::new(stream), String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        let header = line.to_ascii_lowercase();
        length = header.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap_or(0));
        line.clear();
    }
    let mut body = String::new();
    let _ = reader.take(length).read_to_string(&mut body);
    body
}

/// A bearer token, by curl.
pub fn bearer_token(url: &str, client_id: &str, client_secret: &str) -> String {
    let user = format!("{client_id}:{client_secret}");
    let mut command = Command::new("curl");
    command.args(["--silent", "--user", &user, "--data", "grant_type=client_credentials"]);
    let (_, said, errors) = finish(command.arg(format!("{url}/api/oauth/token")));
    let answer: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said} {errors}"));
    answer["access_token"].as_str().expect("a token").to_owned()
}
