//! Runs `limosa` and watches it: its events, its memory and its processor time, and those of the servers.

use limosa_testkit::{Error, ReplicaSet};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How often memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// The release build.
pub(crate) fn limosa() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/limosa"))
}

/// `limosa migrate` under way; killed if a bench ends early.
pub(crate) struct Migration {
    child: Child,
    state: tempfile::TempDir,
    events: UnboundedReceiver<(Instant, Value)>,
    pub started: Instant,
    /// When each phase was told, in order.
    pub phases: Vec<(String, Instant)>,
    pub last: Value,
    memory: Memory,
}

impl Migration {
    pub fn start(source: &ReplicaSet, destination: &ReplicaSet, arguments: &[&str]) -> Result<Self, Error> {
        let state = tempfile::tempdir()?;
        let started = Instant::now();
        let mut child = limosa()
            .args(["migrate", "--output", "json", "--state-dir"])
            .arg(state.path().join("state"))
            .args(arguments)
            .env("LIMOSA_SOURCE_URI", source.uri())
            .env("LIMOSA_DESTINATION_URI", destination.uri())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("limosa has no output")?);
        let (sender, events) = unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { continue };
                if sender.send((Instant::now(), event)).is_err() {
                    return;
                }
            }
        });
        let memory = Memory::watch(child.id());
        Ok(Self { child, state, events, started, phases: Vec::new(), last: Value::Null, memory })
    }

    pub fn profile(&self) -> PathBuf {
        self.state.path().join("state/profile.toml")
    }

    /// Reads events until one of this name; `phase` names count too.
    pub async fn until(&mut self, wanted: &str) -> Result<Instant, Error> {
        while let Some((at, event)) = self.events.recv().await {
            let name = event["event"].as_str().unwrap_or_default().to_owned();
            let phase = event["phase"].as_str().unwrap_or_default().to_owned();
            match name.as_str() {
                "phase" => self.phases.push((phase.clone(), at)),
                "failed" => return Err(format!("the migration failed: {event}").into()),
                _ => {}
            }
            let reached = name == wanted || name == "phase" && phase == wanted;
            if name == "progress" || name == "complete" {
                self.last = event;
            }
            if reached {
                return Ok(at);
            }
        }
        Err(format!("limosa ended before {wanted}").into())
    }

    /// Waits until the program has ended; its state stays.
    pub fn end(&mut self) -> Result<(), Error> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("limosa ended with {status}").into()) }
    }

    /// The steps of the cutover and the seconds that each took, as the report has them that stays behind after the end.
    pub fn cutover_steps(&self) -> Result<Vec<(String, f64)>, Error> {
        let report: Value = serde_json::from_slice(&fs::read(self.state.path().join("state/report.json"))?)?;
        let steps = report["cutoverSteps"].as_array().ok_or("the report has no steps")?;
        let told = |step: &Value| Some((step["step"].as_str()?.to_owned(), step["millis"].as_f64()? / 1e3));
        Ok(steps.iter().filter_map(told).collect())
    }

    /// A verb of `limosa migrations` on this one.
    pub fn verb(&self, arguments: &[&str]) -> Result<(), Error> {
        let (verb, rest) = arguments.split_first().ok_or("which verb?")?;
        let done = limosa().args(["migrations", verb, "--profile"]).arg(self.profile()).args(rest).output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(format!("limosa migrations {verb}: {}", String::from_utf8_lossy(&done.stderr)).into())
    }

    /// From the start of one phase to that of the next.
    pub fn seconds_in(&self, phase: &str) -> Option<f64> {
        let index = self.phases.iter().position(|(name, _)| name == phase)?;
        let (_, next) = self.phases.get(index + 1)?;
        Some((*next - self.phases[index].1).as_secs_f64())
    }

    pub fn peak_megabytes(&self) -> f64 {
        self.memory.peak.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Seconds since the start and resident megabytes.
    pub fn memory(&self) -> Vec<(f64, f64)> {
        self.memory.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a process's resident memory until dropped.
pub(crate) struct Memory {
    pub peak: Arc<AtomicU64>,
    pub samples: Arc<Mutex<Vec<(f64, f64)>>>,
    stop: Arc<AtomicBool>,
}

impl Memory {
    pub fn watch(process: u32) -> Self {
        let memory = Self { peak: Arc::default(), samples: Arc::default(), stop: Arc::default() };
        let (peak, samples, stop) = (Arc::clone(&memory.peak), Arc::clone(&memory.samples), Arc::clone(&memory.stop));
        std::thread::spawn(move || {
            let began = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let Some(bytes) = resident_bytes(process) else { return };
                peak.fetch_max(bytes, Ordering::Relaxed);
                let sample = (began.elapsed().as_secs_f64(), bytes as f64 / 1e6);
                samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        memory
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn resident_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kb| kb * 1024)
}

/// User and system time so far; the kernel counts in hundredths of a second.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
