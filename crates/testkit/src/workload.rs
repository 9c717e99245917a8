//! Seeded writers that know what they wrote: each owns its documents, so that the last acknowledged write of each is
//! the state to expect.

use crate::Error;
use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{
    Client, Collection,
    options::{ReadConcern, ReturnDocument},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Namespace and `_id` to the document as it was acknowledged, or its absence.
type State = HashMap<(String, String), (Bson, Option<RawDocumentBuf>)>;

/// Writers that run until stopped.
pub struct Workload {
    stop: Arc<AtomicBool>,
    writers: JoinSet<Result<(State, u64), Error>>,
}

/// What the writers had acknowledged.
#[derive(Debug, Default)]
pub struct Acknowledged {
    db: String,
    state: State,
    /// Writes, all told.
    pub writes: u64,
}

impl Workload {
    /// Starts `writers` writers on three collections of `db`.
    pub fn start(client: &Client, db: &str, seed: u64, writers: u64) -> Self {
        eprintln!("workload seed {seed}");
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let (database, stop) = (client.database(db), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut writer = Writer {
                    rng: SmallRng::seed_from_u64(seed ^ (writer << 32)),
                    number: writer,
                    made: 0,
                    state: State::new(),
                    ids: Vec::new(),
                };
                let mut writes = 0;
                while !stop.load(Ordering::Relaxed) {
                    let name = ["alpha", "beta", "gamma"][writer.rng.random_range(0..3)];
                    writer.write(&database.collection(name), name).await?;
                    writes += 1;
                }
                Ok((writer.state, writes))
            });
        }
        Self { stop, writers: tasks }
    }

    /// Stops the writers after the write each is at.
    pub async fn stop(mut self, db: &str) -> Result<Acknowledged, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Acknowledged { db: db.to_owned(), ..Acknowledged::default() };
        while let Some(done) = self.writers.join_next().await {
            let (state, writes) = done??;
            all.state.extend(state);
            all.writes += writes;
        }
        Ok(all)
    }
}

impl Acknowledged {
    /// Checks that everything acknowledged is on `client`'s cluster, byte for byte, and nothing that was deleted.
    pub async fn check(&self, client: &Client) -> Result<(), Error> {
        for ((name, id), (value, expected)) in &self.state {
            let found = client
                .database(&self.db)
                .collection::<RawDocumentBuf>(name)
                .find_one(doc! {"_id": value.clone()})
                .await?;
            if found != *expected {
                return Err(format!("{name} {id}: acknowledged {expected:?}, found {found:?}").into());
            }
        }
        Ok(())
    }
}

struct Writer {
    rng: SmallRng,
    number: u64,
    made: u64,
    state: State,
    ids: Vec<(String, Bson)>,
}

impl Writer {
    /// An `_id` that no other writer makes, of one of many types.
    fn new_id(&mut self) -> Bson {
        self.made += 1;
        let n = (self.number * 10_000_000 + self.made) as i64;
        match self.rng.random_range(0..8) {
            0 => Bson::Int32(n as i32),
            1 => Bson::Int64(n),
            2 => Bson::Double(n as f64 + 0.5),
            3 => Bson::String(format!("id-{n}")),
            4 => Bson::DateTime(bson::DateTime::from_millis(n)),
            5 => doc! {"w": self.number as i64, "n": n}.into(),
            6 => Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: n.to_be_bytes().to_vec(),
            }),
            _ => Bson::Timestamp(bson::Timestamp { time: n as u32, increment: self.number as u32 }),
        }
    }

    fn new_document(&mut self, id: &Bson) -> Document {
        let payload = "x".repeat(self.rng.random_range(0..400));
        doc! {"_id": id.clone(), "n": 0_i64, "payload": payload, "tags": ["a", "b"], "nested": {"x": 1, "y": {"z": 2.5}}}
    }

    async fn write(&mut self, collection: &Collection<RawDocumentBuf>, name: &str) -> Result<(), Error> {
        let own: Vec<usize> = (0..self.ids.len()).rev().take(200).filter(|i| self.ids[*i].0 == name).collect();
        let choice = self.rng.random_range(0..100);
        if own.is_empty() || choice < 30 {
            let id = self.new_id();
            let document = RawDocumentBuf::try_from(&self.new_document(&id))?;
            let inserted = collection.insert_one(&document).await.map(|_| Some(document));
            let after = settled(collection, &id, inserted).await?;
            self.ids.extend(after.is_some().then(|| (name.to_owned(), id.clone())));
            self.state.insert((name.to_owned(), id.to_string()), (id, after));
            return Ok(());
        }
        let index = own[self.rng.random_range(0..own.len())];
        let id = self.ids[index].1.clone();
        let filter = doc! {"_id": id.clone()};
        let n = self.rng.random_range(0..1_000_000_i64);
        let after = if choice < 40 {
            collection.delete_one(filter).await.map(|_| None)
        } else if choice < 50 {
            let mut document = self.new_document(&id);
            document.insert("replaced", n);
            let document = RawDocumentBuf::try_from(&document)?;
            collection.replace_one(filter, &document).await.map(|_| Some(document))
        } else {
            let field = format!("f{}", n % 20);
            let update = match n % 9 {
                0 => doc! {"$inc": {"n": 1_i64}},
                1 => doc! {"$push": {"tags": n}},
                2 => doc! {"$push": {"tags": {"$each": [], "$slice": -3}}},
                3 => doc! {"$pull": {"tags": "a"}},
                4 => doc! {"$set": {"nested.y.z": n as f64, "nested.added": {"n": n}}},
                5 => doc! {"$unset": {"payload": ""}},
                6 => doc! {"$set": {field: n, "b": n, "a": n}},
                7 => doc! {"$rename": {"b": "renamed"}},
                _ => doc! {"$set": {"tags.0": n}, "$inc": {"n": 1_i64}},
            };
            let pipeline = vec![doc! {"$set": {"zz": n, "aa": {"$add": [n, 1]}}}];
            let action = if n % 10 == 0 {
                collection.find_one_and_update(filter, pipeline)
            } else {
                collection.find_one_and_update(filter, update)
            };
            match action.return_document(ReturnDocument::After).await {
                Ok(None) => return Err("an own document is missing".into()),
                done => done,
            }
        };
        let after = settled(collection, &id, after).await?;
        if after.is_none() {
            self.ids.swap_remove(index);
        }
        self.state.insert((name.to_owned(), id.to_string()), (id, after));
        Ok(())
    }
}

/// What a write left. A driver tries one write twice; where both tries met an election only the document itself tells
/// whether it was carried out, once a majority has all that is before the read.
async fn settled(
    collection: &Collection<RawDocumentBuf>,
    id: &Bson,
    written: Result<Option<RawDocumentBuf>, mongodb::error::Error>,
) -> Result<Option<RawDocumentBuf>, Error> {
    let mut left = match written {
        Ok(after) => return Ok(after),
        Err(error) if error.contains_label("RetryableWriteError") => 20,
        Err(error) => return Err(error.into()),
    };
    loop {
        let read = collection.find_one(doc! {"_id": id.clone()}).read_concern(ReadConcern::linearizable()).await;
        match read {
            Err(error) if left == 0 => return Err(error.into()),
            Err(_) => left -= 1,
            found => return Ok(found?),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
