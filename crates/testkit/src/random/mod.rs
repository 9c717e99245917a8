//! A random workload over everything that a client can do to a database: documents of many kinds, updates of every
//! operator, transactions, and whatever changes the catalog. It is a list of plain commands, the same for the same seed,
//! so that a list that shows a fault can be made shorter until it is worth reading.
//!
//! A server refuses some of it, depending on what came before: that is part of the workload.

mod commands;
pub mod faults;
mod values;

use crate::Error;
use bson::{Document, doc};
use faults::{Fault, Turns};
use mongodb::{Client, error::ErrorKind};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::fmt;

/// When within a migration something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Before it starts.
    Before,
    /// Collections are planned, and no document is read yet.
    Held,
    /// While it copies, builds indexes and catches up.
    Meanwhile,
    /// Once the destination follows.
    After,
    /// In the cutover; faults alone.
    Cutover,
}

/// All in which a client does something, in their order.
pub const ALL: [When; 4] = [When::Before, When::Held, When::Meanwhile, When::After];

/// One thing that a client does.
#[derive(Clone, Debug)]
pub struct Operation {
    /// When.
    pub when: When,
    /// What.
    pub step: Step,
}

/// What is sent to the server.
#[derive(Clone, Debug)]
pub enum Step {
    /// By itself.
    Command(Command),
    /// All of them or, where it isn't committed, none.
    Transaction {
        /// In this order.
        commands: Vec<Command>,
        /// Else it is aborted.
        commit: bool,
    },
    /// Nothing that a client does.
    Fault(Fault),
}

/// A command and the database in which it is run.
#[derive(Clone, Debug)]
pub struct Command {
    /// Where.
    pub db: String,
    /// What.
    pub body: Document,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.db, self.body)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Step::Command(command) => write!(f, "{:?} {command}", self.when),
            Step::Fault(fault) => write!(f, "{:?} {fault}", self.when),
            Step::Transaction { commands, commit } => {
                let all: Vec<String> = commands.iter().map(ToString::to_string).collect();
                let end = if *commit { "commit" } else { "abort" };
                write!(f, "{:?} transaction [{}] {end}", self.when, all.join("; "))
            }
        }
    }
}

/// `count` operations on the databases `dbs`, as many at each time.
pub fn generate(seed: u64, count: usize, dbs: &[String; 2]) -> Vec<Operation> {
    let mut random = Random { rng: SmallRng::seed_from_u64(seed), dbs: dbs.clone() };
    (0..count).map(|n| Operation { when: ALL[n * ALL.len() / count], step: random.step() }).collect()
}

/// There is a fault after so many operations, about.
const FAULT_EVERY: usize = 9;

/// Several operations on the same names follow each other, once in so many.
const DANCE_EVERY: usize = 20;

/// Faults in the cutover.
const FAULTS_AT_CUTOVER: usize = 2;

/// The same with faults, once the migration has begun.
pub fn generate_with_faults(seed: u64, count: usize, dbs: &[String; 2]) -> Vec<Operation> {
    let mut random = Random { rng: SmallRng::seed_from_u64(seed), dbs: dbs.clone() };
    let mut turns = Turns::new(seed);
    let mut all = Vec::new();
    while all.len() < count {
        let when = ALL[all.len() * ALL.len() / count];
        let mut steps = match random.once_in(DANCE_EVERY) {
            true => random.dance(),
            false => vec![random.step()],
        };
        if when != When::Before && random.once_in(FAULT_EVERY) {
            let at = random.below(steps.len() + 1);
            steps.insert(at, Step::Fault(random.fault(&mut turns)));
        }
        all.extend(steps.into_iter().map(|step| Operation { when, step }));
    }
    let last = (0..FAULTS_AT_CUTOVER).map(|_| Step::Fault(random.fault(&mut turns)));
    all.extend(last.map(|step| Operation { when: When::Cutover, step }));
    all
}

/// What the server made of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations that were carried out.
    pub accepted: usize,
    /// Operations that were refused, or carried out in part.
    pub refused: usize,
}

/// Does them one after the other, but faults.
pub async fn run<'a>(client: &Client, operations: impl Iterator<Item = &'a Operation>) -> Result<Tally, Error> {
    run_with(client, operations, async |_| Ok(())).await
}

/// Does them one after the other; `fault` does the faults.
pub async fn run_with<'a>(
    client: &Client,
    operations: impl Iterator<Item = &'a Operation>,
    mut fault: impl AsyncFnMut(&Fault) -> Result<(), Error>,
) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    for operation in operations {
        let done = match &operation.step {
            Step::Fault(own) => {
                fault(own).await?;
                continue;
            }
            Step::Command(command) => client.database(&command.db).run_command(command.body.clone()).await.map(Some),
            Step::Transaction { commands, commit } => transaction(client, commands, *commit).await.map(|()| None),
        };
        match done {
            Ok(reply) if reply.as_ref().is_none_or(|reply| !reply.contains_key("writeErrors")) => tally.accepted += 1,
            Ok(_) => tally.refused += 1,
            Err(e) if matches!(*e.kind, ErrorKind::Command(_)) => tally.refused += 1,
            Err(e) => return Err(format!("{operation}: {e}").into()),
        }
    }
    Ok(tally)
}

async fn transaction(client: &Client, commands: &[Command], commit: bool) -> Result<(), mongodb::error::Error> {
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for Command { db, body } in commands {
        if let Err(refused) = client.database(db).run_command(body.clone()).session(&mut session).await {
            // The server has ended it already.
            let _ = session.abort_transaction().await;
            return Err(refused);
        }
    }
    match commit {
        true => session.commit_transaction().await,
        false => session.abort_transaction().await,
    }
}

/// A shorter list for which `fails` still holds: halves are left out, then quarters, and so on down to single
/// operations, for at most `tries` tries. `fails` gets the indices that are kept.
pub async fn shrink(count: usize, tries: usize, mut fails: impl AsyncFnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).collect();
    let (mut piece, mut left) = (count.div_ceil(2), tries);
    while piece > 0 {
        let mut from = 0;
        while from < kept.len() && left > 0 {
            let to = (from + piece).min(kept.len());
            let shorter: Vec<usize> = kept[..from].iter().chain(&kept[to..]).copied().collect();
            left -= 1;
            if fails(&shorter).await {
                kept = shorter;
            } else {
                from = to;
            }
        }
        piece /= 2;
    }
    kept
}

/// Draws what comes next.
struct Random {
    rng: SmallRng,
    dbs: [String; 2],
}

impl Random {
    /// One of `n`.
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn step(&mut self) -> Step {
        if self.once_in(12) {
            let count = 1 + self.below(6);
            let commands = (0..count).map(|_| self.in_transaction()).collect();
            return Step::Transaction { commands, commit: !self.once_in(3) };
        }
        Step::Command(match self.below(100) {
            0..25 => self.insert(),
            25..60 => self.update(),
            60..66 => self.delete(),
            66..74 => self.create(),
            74..77 => self.drop_collection(),
            77..82 => self.rename(),
            82..88 => self.modify(),
            88..93 => self.create_indexes(),
            93..95 => self.drop_indexes(),
            95..99 => self.rewrite(),
            _ => Command { db: self.db(), body: doc! {"dropDatabase": 1} },
        })
    }

    fn in_transaction(&mut self) -> Command {
        match self.below(10) {
            0..4 => self.insert(),
            4..8 => self.update(),
            8 => self.delete(),
            _ => self.create(),
        }
    }

    fn db(&mut self) -> String {
        let which = usize::from(self.once_in(4));
        self.dbs[which].clone()
    }

    fn coll(&mut self) -> String {
        format!("c{}", self.below(6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dbs() -> [String; 2] {
        ["one".to_owned(), "two".to_owned()]
    }

    #[test]
    fn a_seed_says_all() {
        let told = |seed| generate(seed, 200, &dbs()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }

    #[test]
    fn faults_meet_every_kind_of_command_on_either_side() {
        let seeds = (1..21).flat_map(|seed| generate_with_faults(seed, 300, &dbs()));
        let told: Vec<String> = seeds.map(|operation| operation.to_string()).collect();
        let met = |what: &str| told.iter().filter(|line| line.contains(what)).count();
        for kind in ["killed", "Source election", "Destination election", "Unconfirmed", "Refused", "Closed"] {
            assert!(met(kind) > 0, "{kind}");
        }
        for name in ["renameCollection", "create", "drop", "update", "commitTransaction", "listCollections", "hello"] {
            assert!(met(&format!("Destination {name} ")) > 0, "{name}");
        }
        for name in ["aggregate", "getMore", "find", "listCollections"] {
            assert!(met(&format!("Source {name} ")) > 0, "{name}");
        }
        assert!(met("Before fault") == 0 && met("Cutover fault") == 40 && met("fault") > 300, "{}", met("fault"));
    }

    #[tokio::test]
    async fn what_does_not_matter_is_left_out() {
        let mut tries = 0;
        let kept = shrink(200, 200, async |kept| {
            tries += 1;
            kept.contains(&17) && kept.contains(&123)
        })
        .await;
        assert_eq!(kept, [17, 123]);
        assert!(tries < 60, "{tries}");
    }

    #[tokio::test]
    async fn a_server_accepts_most_of_it_and_every_kind() {
        let set = crate::ReplicaSet::start().await.expect("starts");
        let client = set.client().await;
        let operations = generate(1, 1500, &dbs());
        let (mut all, mut refused) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let mut tally = Tally::default();
        for operation in &operations {
            let name = match &operation.step {
                Step::Command(command) => command.body.keys().next().cloned().unwrap_or_default(),
                Step::Transaction { .. } => "transaction".to_owned(),
                Step::Fault(_) => continue,
            };
            let one = run(&client, std::iter::once(operation)).await.expect("answers");
            tally = Tally { accepted: tally.accepted + one.accepted, refused: tally.refused + one.refused };
            if one.accepted > 0 {
                all.insert(name)
            } else {
                refused.insert(name)
            };
        }
        let never: Vec<_> = refused.difference(&all).collect();
        assert!(never.is_empty() && tally.accepted > tally.refused * 2, "{tally:?}, never accepted: {never:?}");
    }
}
