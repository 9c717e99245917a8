use super::*;
use bson::rawdoc;
use futures::FutureExt;

fn reply(n: i32, events: usize) -> Arc<RawDocumentBuf> {
    let mut array = bson::RawArrayBuf::new();
    for _ in 0..events {
        array.push(rawdoc! {"n": n});
    }
    Arc::new(rawdoc! {"cursor": {"nextBatch": array, "postBatchResumeToken": {"_data": format!("{n}")}}})
}

fn start() -> Position {
    Position { token: None, spool: String::new(), seq: 0, index: 0 }
}

fn open(dir: &Path, position: &Position) -> (Spool, Position, Option<Document>) {
    Spool::open(dir, position, &Tuning::default()).expect("opens")
}

async fn number(spool: &Spool, seq: u64) -> i32 {
    match spool.next(seq).await {
        Ok(Next::Batch(batch)) => {
            event::events_of(&batch).and_then(|events| events.get_document(0).ok()?.get_i32("n").ok()).unwrap_or(-1)
        }
        other => panic!("no batch {seq}: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_spooled_before_a_restart_is_read_on_from_the_checkpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let position = {
        let (spool, position, token) = open(dir.path(), &start());
        assert_eq!(token, None);
        (0..5).for_each(|n| spool.push(&reply(n, 1)).expect("pushes"));
        spool.push(&reply(99, 0)).expect("pushes");
        spool.trim(2).expect("trims");
        Position { seq: 3, ..position }
    };
    let (spool, again, token) = open(dir.path(), &position);
    assert_eq!((&again, token), (&position, Some(bson::doc! {"_data": "99"})));
    assert_eq!((number(&spool, 3).await, number(&spool, 4).await), (3, 4));
    drop(spool);
    // A checkpoint of another agent's spool: nothing here is of use.
    let other = Position { spool: "other".into(), token: Some(bson::doc! {"_data": "7"}), index: 5, ..position };
    let (spool, fresh, token) = open(dir.path(), &other);
    // From the token on, the source may cut its replies elsewhere.
    assert_eq!((fresh.seq, fresh.index, token), (3, 0, Some(bson::doc! {"_data": "7"})));
    spool.push(&reply(8, 1)).expect("pushes");
    assert_eq!(number(&spool, 3).await, 8);
}

#[tokio::test]
async fn order_holds_when_memory_overflows_to_disk_and_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, position, _) = open(dir.path(), &start());
    spool.set_live();
    let big = 20_000;
    (0..200).for_each(|n| spool.push(&reply(n, big)).expect("pushes"));
    assert!(spool.state().memory_bytes <= spool.most_in_memory && spool.state().disk_bytes > 0);
    for n in 0..200 {
        assert_eq!(number(&spool, n as u64).await, n);
        spool.applied(&Position { seq: n as u64, ..position.clone() });
        spool.trim(n as u64).expect("trims");
    }
    spool.push(&reply(200, 1)).expect("pushes");
    assert_eq!(number(&spool, 200).await, 200);
    spool.push(&reply(201, 0)).expect("pushes");
    assert!(matches!(spool.next(201).await, Ok(Next::Idle(_))));
}

#[tokio::test]
async fn what_was_handed_out_and_not_applied_is_handed_out_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, position, _) = open(dir.path(), &start());
    spool.set_live();
    spool.next(0).now_or_never();
    (0..5).for_each(|n| spool.push(&reply(n, 1)).expect("pushes"));
    for n in 0..5 {
        assert_eq!(number(&spool, n as u64).await, n);
    }
    spool.applied(&Position { seq: 2, ..position });
    assert_eq!(spool.applied_to().seq, 2);
    assert_eq!((number(&spool, 2).await, number(&spool, 4).await), (2, 4));
}

#[tokio::test]
async fn the_disk_never_has_a_gap_nor_what_lies_before_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let tuning = Tuning { spool_memory_bytes: 1024 * 1024, ..Tuning::default() };
    let (spool, position, _) = Spool::open(dir.path(), &start(), &tuning).expect("opens");
    // Two on disk, one through memory, and then so many that they go to disk again: all before any checkpoint.
    (0..2).for_each(|n| spool.push(&reply(n, 1)).expect("pushes"));
    spool.set_live();
    assert!(spool.try_next(2).expect("is readable").is_none());
    spool.push(&reply(2, 1)).expect("pushes");
    spool.applied(&Position { seq: 3, ..position.clone() });
    (3..60).for_each(|n| spool.push(&reply(n, 5_000)).expect("pushes"));
    assert!(spool.state().on_disk_from >= 3 && spool.state().disk_bytes > 0);
    for n in 3..60 {
        assert_eq!(number(&spool, n as u64).await, n);
    }
    drop(spool);
    // The checkpoint is before the gap: what is after it is of no use.
    let position = Position { seq: 1, token: Some(bson::doc! {"_data": "0"}), ..position };
    let (spool, fresh, token) = open(dir.path(), &position);
    assert_ne!(fresh.spool, position.spool);
    assert_eq!((fresh.seq, token), (1, Some(bson::doc! {"_data": "0"})));
    spool.applied(&Position { seq: 1, ..fresh });
    assert_eq!(spool.bytes(), 0);
}

#[tokio::test]
async fn a_write_torn_by_a_crash_is_dropped_and_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, position, _) = open(dir.path(), &start());
    (0..3).for_each(|n| spool.push(&reply(n, 1)).expect("pushes"));
    spool.sync().expect("syncs");
    spool.push(&reply(3, 1)).expect("pushes");
    spool.sync().expect("syncs");
    // As a crash leaves it: a copy taken while the writer is alive, with the last write half there.
    let crashed = tempfile::tempdir().expect("a directory");
    copy(dir.path(), crashed.path());
    drop(spool);
    let mut torn = 0;
    for file in files(crashed.path()) {
        if file.extension().is_some_and(|e| e == "jnl") {
            torn += usize::from(tear(&file));
        }
    }
    assert_eq!(torn, 1, "{:?}", files(crashed.path()));
    let (spool, again, token) = open(crashed.path(), &position);
    assert_eq!((again, token), (position, Some(bson::doc! {"_data": "2"})));
    assert_eq!((number(&spool, 0).await, number(&spool, 2).await), (0, 2));
    spool.push(&reply(30, 1)).expect("pushes");
    assert_eq!(number(&spool, 3).await, 30);
}

#[tokio::test]
async fn a_spool_that_cannot_be_read_begins_anew_from_the_checkpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, position, _) = open(dir.path(), &start());
    (0..3).for_each(|n| spool.push(&reply(n, 1)).expect("pushes"));
    spool.spoiled(1, &"a checksum is wrong");
    drop(spool);
    let position = Position { seq: 1, token: Some(bson::doc! {"_data": "0"}), ..position };
    let (spool, fresh, token) = open(dir.path(), &position);
    assert_ne!(fresh.spool, position.spool);
    assert_eq!((fresh.seq, token), (1, Some(bson::doc! {"_data": "0"})));
    spool.push(&reply(1, 1)).expect("pushes");
    assert_eq!(number(&spool, 1).await, 1);
}

#[tokio::test]
async fn at_its_cap_the_reader_waits_until_half_is_applied() {
    let dir = tempfile::tempdir().expect("a directory");
    let tuning = Tuning { spool_disk_bytes: 16 * 1024 * 1024, ..Tuning::default() };
    let (spool, _, _) = Spool::open(dir.path(), &start(), &tuning).expect("opens");
    let mut pushed = 0;
    while spool.has_room() {
        spool.push(&reply(pushed, 20_000)).expect("pushes");
        pushed += 1;
    }
    assert!(spool.room().now_or_never().is_none());
    spool.trim(pushed as u64 / 4).expect("trims");
    assert!(spool.has_room() && spool.room().now_or_never().is_none(), "it would stop again at once");
    spool.trim(pushed as u64 * 3 / 4).expect("trims");
    assert!(spool.room().now_or_never().is_some());
}

#[tokio::test]
async fn a_reader_waits_for_the_disk_and_not_for_a_table_that_fills_slowly() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, ..) = open(dir.path(), &start());
    // A quiet source's tokens, each in the place of the one before it.
    (0..10_000).for_each(|n| spool.push(&reply(n, 0)).expect("pushes"));
    let mut event = rawdoc! {"n": 1};
    event.append(bson::raw::cstr!("x"), "x".repeat(100_000));
    let mut events = bson::RawArrayBuf::new();
    events.push(event);
    let reply = Arc::new(rawdoc! {"cursor": {"nextBatch": events, "postBatchResumeToken": {"_data": "9".repeat(200)}}});
    for n in 0..400 {
        let began = Instant::now();
        spool.written_out().await;
        assert!(began.elapsed() < LOOK_FOR, "it gave up waiting before batch {n}");
        spool.push(&reply).expect("pushes");
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("is readable").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).expect("is below"));
        std::fs::create_dir_all(target.parent().expect("has one")).expect("creates");
        std::fs::copy(path, target).expect("copies");
    }
}

/// Cuts the last written bytes off a file that may be longer than what is written; `false` if nothing is.
fn tear(file: &Path) -> bool {
    let bytes = std::fs::read(file).expect("is readable");
    let Some(end) = bytes.iter().rposition(|b| *b != 0) else { return false };
    let handle = std::fs::OpenOptions::new().write(true).open(file).expect("opens");
    handle.set_len(end.saturating_sub(9) as u64).expect("cuts");
    true
}
