//! What goes wrong beside a random workload: answers that are lost, elections, engines that die. By turns on every kind of
//! command that the engine sends to either side, so that a few dozen faults meet them all.

use super::{Command, Random, Step};
use bson::{Document, doc};
use mongodb::Client;
use std::{fmt, time::Duration};

/// The client whose commands fail; all others aren't touched.
const ENGINE: &str = "limosa";

/// Which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It is read.
    Source,
    /// It is written.
    Destination,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It isn't carried out, and the answer is this error.
    Refused(i32),
    /// It is carried out, and the answer says that the majority may not have it.
    Unconfirmed(i32),
    /// The connection is closed instead of an answer.
    Closed,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next commands of this kind.
    Command {
        /// Where.
        side: Side,
        /// The command's name.
        name: &'static str,
        /// How they end.
        how: How,
        /// How many of them.
        times: i32,
    },
    /// The primary steps down, and is elected again.
    Election(Side),
    /// The engine dies, and another continues.
    Kill,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { side, name, how, times } => write!(f, "fault: {side:?} {name} {how:?} x{times}"),
            Self::Election(side) => write!(f, "fault: {side:?} election"),
            Self::Kill => f.write_str("fault: the engine is killed"),
        }
    }
}

/// Everything that the engine sends to the source while it migrates.
const TO_SOURCE: &[&str] = &[
    "aggregate",
    "getMore",
    "find",
    "listCollections",
    "listIndexes",
    "listDatabases",
    "hello",
    "count",
    "killCursors",
];

/// The same for the destination; definitions twice.
const TO_DESTINATION: &[&str] = &[
    "renameCollection",
    "create",
    "drop",
    "createIndexes",
    "collMod",
    "dropIndexes",
    "update",
    "insert",
    "delete",
    "commitTransaction",
    "abortTransaction",
    "renameCollection",
    "create",
    "drop",
    "createIndexes",
    "collMod",
    "dropIndexes",
    "find",
    "getMore",
    "aggregate",
    "listCollections",
    "listIndexes",
    "listDatabases",
    "hello",
    "count",
    "killSessions",
];

/// Errors that pass by themselves: elections, shutdowns, networks, interruptions, conflicts.
const CODES: &[i32] = &[10107, 91, 189, 11602, 11600, 13436, 6, 89, 9001, 24, 50, 262];

/// Those that tell of a write that it may be rolled back.
const UNCONFIRMED: &[i32] = &[64, 91, 189, 11602];

/// Whose turn it is.
pub(super) struct Turns {
    source: usize,
    destination: usize,
}

impl Turns {
    pub fn new(seed: u64) -> Self {
        Self { source: seed as usize, destination: seed as usize * 7 }
    }
}

impl Random {
    pub(super) fn fault(&mut self, turns: &mut Turns) -> Fault {
        match self.below(20) {
            0 => Fault::Election(Side::Source),
            1 => Fault::Election(Side::Destination),
            2..5 => Fault::Kill,
            5..8 => {
                turns.source += 1;
                let how = if self.once_in(3) { How::Closed } else { How::Refused(self.one_of(CODES)) };
                self.failing(Side::Source, TO_SOURCE[turns.source % TO_SOURCE.len()], how)
            }
            _ => {
                turns.destination += 1;
                let how = match self.below(4) {
                    0 => How::Closed,
                    1 | 2 => How::Unconfirmed(self.one_of(UNCONFIRMED)),
                    _ => How::Refused(self.one_of(CODES)),
                };
                self.failing(Side::Destination, TO_DESTINATION[turns.destination % TO_DESTINATION.len()], how)
            }
        }
    }

    fn failing(&mut self, side: Side, name: &'static str, how: How) -> Fault {
        Fault::Command { side, name, how, times: 1 + self.below(3) as i32 }
    }

    /// Several commands that follow each other closely on the same names.
    pub(super) fn dance(&mut self) -> Vec<Step> {
        let db = self.db();
        let one = |db: &str, body: Document| Step::Command(Command { db: db.to_owned(), body });
        let coll = self.coll();
        match self.below(3) {
            // A view in place of a collection, and a collection in place of the view.
            0 => vec![
                one(&db, doc! {"drop": &coll}),
                one(&db, doc! {"create": &coll, "viewOn": self.coll(), "pipeline": []}),
                Step::Command(self.insert()),
                one(&db, doc! {"drop": &coll}),
                one(&db, doc! {"insert": &coll, "documents": [self.document(), self.document()], "ordered": false}),
            ],
            // A collection that is rebuilt again and again.
            1 => (0..4)
                .flat_map(|_| {
                    let pipeline = [doc! {"$limit": 40}, doc! {"$out": &coll}];
                    let from = self.coll();
                    let rebuilt = doc! {"aggregate": from, "pipeline": pipeline.to_vec(), "cursor": {}};
                    let changed = doc! {"q": {}, "u": {"$inc": {"rebuilt": 1}}, "multi": true};
                    [one(&db, rebuilt), one(&db, doc! {"update": &coll, "updates": [changed]})]
                })
                .collect(),
            // Names that are rotated, as logs are.
            _ => (0..2)
                .flat_map(|_| {
                    let rotated = (0..4).rev().map(|n| {
                        let (from, to) = (format!("{db}.c{n}"), format!("{db}.c{}", n + 1));
                        one("admin", doc! {"renameCollection": from, "to": to, "dropTarget": true})
                    });
                    let mut all: Vec<Step> = rotated.collect();
                    all.push(one(&db, doc! {"insert": "c0", "documents": [self.document()]}));
                    all
                })
                .collect(),
        }
    }
}

/// Makes the next commands of the engine fail.
pub async fn fail(client: &Client, name: &str, how: How, times: i32) -> Result<(), mongodb::error::Error> {
    let mut data = doc! {"failCommands": [name], "appName": ENGINE};
    match how {
        How::Refused(code) => drop(data.insert("errorCode", code)),
        How::Unconfirmed(code) => drop(data.insert("writeConcernError", doc! {"code": code, "errmsg": "on purpose"})),
        How::Closed => drop(data.insert("closeConnection", true)),
    }
    let command = doc! {"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data};
    client.database("admin").run_command(command).await.map(drop)
}

/// Ends what [`fail`] began.
pub async fn fail_no_more(client: &Client) -> Result<(), mongodb::error::Error> {
    let command = doc! {"configureFailPoint": "failCommand", "mode": "off"};
    client.database("admin").run_command(command).await.map(drop)
}

/// Makes the only member of a set step down, and waits until it is primary again.
pub async fn elect(client: &Client) -> Result<(), crate::Error> {
    let admin = client.database("admin");
    // It may answer, be interrupted, or close the connection.
    let _ = admin.run_command(doc! {"replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": true}).await;
    for _ in 0..600 {
        let hello = admin.run_command(doc! {"hello": 1}).await;
        if hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("no primary after an election".into())
}
