//! What must not be forgotten about a migration's troubles, in a file of its own on this host's disk: which write ended
//! the destination's process, and which documents were read again since the source couldn't tell their change.
//!
//! A process that ends is told from a network that breaks by its identity, which a server gives itself at its start. Two
//! ends in the middle of one write are counted as that write's doing. To know which of a transaction's many writes it was,
//! everything up to the events that were being written is sent one by one after the first end, and each is noted before.

use crate::{
    local_state,
    mongo::{cluster::Cluster, raw_value},
};
use bson::{RawDocument, Timestamp, doc};
use limosa_model::{ErrorCode, Failure, Namespace};
use mongodb::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Documents that are named.
const MOST_REREAD: usize = 100;

/// See the module; shared by all that reads and writes.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    file: PathBuf,
    state: Arc<Mutex<State>>,
    /// Only one worker at a time sends writes one by one.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State {
    /// The release on which the ends were counted.
    version: String,
    /// The process that was being written to when a connection broke.
    broken: Option<String>,
    /// Up to which event it was being written.
    broken_until: (u32, u32),
    /// Up to this event everything is sent one by one.
    careful_until: Option<(u32, u32)>,
    /// The write that is being sent alone.
    sending: Option<Write>,
    /// Those that ended a process while they were sent alone.
    deadly: Vec<Write>,
    reread: Vec<String>,
    /// The process that answered last; not kept.
    #[serde(skip)]
    process: Option<String>,
}

impl State {
    /// `now` answers. If it isn't the one to which a connection broke, or to which a write was sent whose arrival nobody saw,
    /// that one has ended.
    fn judge(&mut self, now: String) {
        if self.broken.take().is_some_and(|before| before != now) {
            self.careful_until = self.careful_until.max(Some(self.broken_until));
        }
        let ended = |write: &Write| write.process.as_ref().is_some_and(|before| *before != now);
        if self.sending.as_ref().is_some_and(ended)
            && let Some(mut write) = self.sending.take()
        {
            write.ends += 1;
            self.deadly.retain(|other| (&other.namespace, &other.bytes) != (&write.namespace, &write.bytes));
            self.deadly.push(write);
        }
        self.process = Some(now);
    }
}

/// One document's write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Write {
    namespace: String,
    /// As extended JSON, for people.
    id: String,
    /// `{_id: …}` in hexadecimal digits.
    bytes: String,
    ends: u32,
    /// Whether a run has failed because of it.
    told: bool,
    /// The process that it was sent to last.
    process: Option<String>,
}

impl Write {
    fn of(ns: &Namespace, id: &RawDocument, ends: u32) -> Self {
        let (namespace, bytes) = (ns.to_string(), hex(id.as_bytes()));
        Self { namespace, id: shown(id), bytes, ends, ..Self::default() }
    }

    fn is_of(&self, ns: &Namespace, id: &RawDocument) -> bool {
        self.namespace == ns.to_string() && self.bytes == hex(id.as_bytes())
    }

    fn failure(&self) -> Failure {
        let Self { namespace, id, ends, .. } = self;
        let message = format!(
            "the destination's process ended {ends} times while a write of {namespace}, _id {id}, was being sent to it; \
             it is not sent again"
        );
        Failure::new(ErrorCode::WriteEndsDestination, message)
    }
}

/// What is known of a write before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Harmless,
    /// It ended a process twice; to be sent whole, by a delete and an insert, and in no other way.
    Suspect,
}

/// The `_id` in `{_id: …}`, for people.
pub(crate) fn shown(id: &RawDocument) -> String {
    raw_value::shown_id(id).into_relaxed_extjson().to_string()
}

/// The identity of the process that answers as the primary.
async fn process(destination: &Cluster) -> Result<String, Error> {
    let hello = destination.db("admin").run_command(doc! {"hello": 1}).await?;
    let id = hello.get_document("topologyVersion").and_then(|version| version.get_object_id("processId"));
    Ok(id.map(|id| id.to_hex()).unwrap_or_default())
}

/// Whether the connection broke while an answer was awaited.
pub(crate) fn is_break(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
}

fn save(file: &Path, state: &State) -> io::Result<()> {
    let bytes = serde_json::to_vec(state)?;
    let next = file.with_extension("next");
    let mut written = fs::File::create(&next)?;
    io::Write::write_all(&mut written, &bytes)?;
    written.sync_all()?;
    fs::rename(next, file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn pair(time: Timestamp) -> (u32, u32) {
    (time.time, time.increment)
}

impl Trouble {
    /// What was kept in `file`, if anything was.
    pub fn open(file: PathBuf) -> Result<Self, Failure> {
        file.parent().map_or(Ok(PathBuf::new()), |dir| local_state::create_dir(dir.to_owned()))?;
        let state = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, file = %file.display(), "can't be read; it begins again");
                State::default()
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => State::default(),
            Err(e) => return Err(Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", file.display()))),
        };
        Ok(Self { file, state: Arc::new(Mutex::new(state)), turn: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is kept, on the disk before anything else happens.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Failure> {
        let mut state = self.state();
        let before = state.clone();
        let told = change(&mut state);
        if *state != before {
            save(&self.file, &state)
                .map_err(|e| Failure::new(ErrorCode::LocalStorage, format!("{}: {e}", self.file.display())))?;
        }
        Ok(told)
    }

    /// Learns which process answers now, before anything is written to it.
    pub async fn begin(&self, destination: &Cluster) -> Result<(), Failure> {
        let (major, minor, patch) = destination.version;
        let version = format!("{major}.{minor}.{patch}");
        self.change(|state| {
            if state.version != version {
                *state = State { version, reread: std::mem::take(&mut state.reread), ..State::default() };
            }
        })?;
        self.look(destination).await?;
        self.verdict()
    }

    /// Asks the destination which process it is. Judges a broken connection, if there was one: was it the process's end?
    async fn look(&self, destination: &Cluster) -> Result<(), Failure> {
        let now = process(destination).await.map_err(|e| destination.failure(&e))?;
        self.change(|state| state.judge(now))
    }

    /// A connection broke while events up to `until` were being written.
    pub fn broke(&self, until: Timestamp) -> Result<(), Failure> {
        self.change(|state| {
            if state.broken.is_none() {
                state.broken.clone_from(&state.process);
                state.broken_until = pair(until);
            }
            state.broken_until = state.broken_until.max(pair(until));
        })
    }

    /// Whether events up to `until` are to be sent one by one.
    pub fn is_careful(&self, until: Timestamp) -> bool {
        self.state().careful_until.is_some_and(|careful| pair(until) <= careful)
    }

    /// After a connection broke, or before the next try: learns what became of the process. `true` if from now on events up to `until` are to be
    /// sent one by one.
    pub async fn judge(&self, destination: &Cluster, until: Timestamp) -> Result<bool, Failure> {
        if self.state().broken.is_some() {
            self.look(destination).await?;
        }
        self.verdict()?;
        Ok(self.is_careful(until))
    }

    /// How the write of this document may be sent; an error if it may not any more.
    pub fn standing(&self, ns: &Namespace, id: &RawDocument) -> Result<Standing, Failure> {
        let state = self.state();
        match state.deadly.iter().find(|write| write.is_of(ns, id)) {
            None => Ok(Standing::Harmless),
            Some(write) if write.ends == 2 => Ok(Standing::Suspect),
            Some(write) => Err(write.failure()),
        }
    }

    /// The write of this document is about to be sent alone. It counts as having been sent once, with others, when the process ended.
    pub fn sends(&self, ns: &Namespace, id: &RawDocument) -> Result<(), Failure> {
        self.change(|state| {
            let known = state.deadly.iter().find(|write| write.is_of(ns, id)).map_or(1, |write| write.ends);
            state.sending = Some(Write { process: state.process.clone(), ..Write::of(ns, id, known) });
        })
    }

    /// What was sent alone arrived.
    pub fn arrived(&self) -> Result<(), Failure> {
        self.change(|state| state.sending = None)
    }

    /// An error if a write ended a process twice and no run has failed because of it yet.
    fn verdict(&self) -> Result<(), Failure> {
        let failure = self.change(|state| {
            let write = state.deadly.iter_mut().find(|write| !write.told)?;
            write.told = true;
            Some(write.failure())
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// A document was read again since the source couldn't tell its change.
    pub fn reread(&self, line: String) -> Result<(), Failure> {
        tracing::warn!("{line}");
        self.change(|state| {
            if state.reread.len() < MOST_REREAD && !state.reread.contains(&line) {
                state.reread.push(line);
            }
        })
    }

    /// Lines for the report.
    pub fn summary(&self) -> Vec<String> {
        self.state().reread.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, rawdoc};

    fn ns() -> Namespace {
        Namespace::new("d", "c")
    }

    fn id(id: i32) -> RawDocumentBuf {
        rawdoc! {"_id": id}
    }

    const UNTIL: Timestamp = Timestamp { time: 5, increment: 1 };

    /// What `look` does with the process that answers now.
    fn answers(trouble: &Trouble, process: &str) {
        trouble.change(|state| state.judge(process.to_owned())).expect("is kept");
    }

    #[test]
    fn a_write_is_named_after_the_second_end_and_the_count_outlives_the_agent() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("trouble").join("m.json");
        let open = || Trouble::open(file.clone()).expect("opens");
        let trouble = open();
        answers(&trouble, "first");
        trouble.broke(UNTIL).expect("is kept");
        answers(&trouble, "first");
        assert!(!trouble.is_careful(UNTIL), "only the network broke");
        trouble.broke(UNTIL).expect("is kept");
        answers(&trouble, "second");
        assert!(trouble.is_careful(UNTIL) && !trouble.is_careful(Timestamp { time: 5, increment: 2 }));
        trouble.sends(&ns(), &id(1)).expect("is kept");
        trouble.arrived().expect("is kept");
        trouble.sends(&ns(), &id(2)).expect("is kept");
        // The agent ends before it sees the connection break.
        let trouble = open();
        answers(&trouble, "third");
        let failure = trouble.verdict().expect_err("is named");
        assert_eq!(failure.code, ErrorCode::WriteEndsDestination);
        assert!(failure.message.contains("d.c, _id 2,"), "{failure}");
        // A resume may try once more, by a delete and an insert.
        let trouble = open();
        trouble.verdict().expect("was named");
        assert_eq!(trouble.standing(&ns(), &id(1)), Ok(Standing::Harmless));
        assert_eq!(trouble.standing(&ns(), &id(2)), Ok(Standing::Suspect));
        answers(&trouble, "third");
        trouble.sends(&ns(), &id(2)).expect("is kept");
        trouble.broke(UNTIL).expect("is kept");
        answers(&trouble, "fourth");
        trouble.verdict().expect_err("is named again");
        trouble.standing(&ns(), &id(2)).expect_err("is never sent again");
    }
}
