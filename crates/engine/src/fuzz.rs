//! Broken input for all that reads bytes which others wrote: the source's replies, users' documents, files on this disk.
//! Whatever comes, nothing panics, hangs or claims more bytes than there are.
//!
//! Each target is a test of a second or so. `BOLERO_RANDOM_TEST_TIME_MS=600000 BOLERO_RANDOM_ITERATIONS=1000000000` runs
//! one for ten minutes.

use crate::{
    Tuning,
    destination::{delta::Delta, document_shape},
    mongo::{id_order, raw_bson, raw_value},
    source::{
        event::{self, Event},
        position::Position,
        spool::Spool,
    },
    verify::diff,
};
use bolero::check;
use bson::{RawDocument, RawDocumentBuf, rawdoc};
use std::{env, fs, path::Path, process::Command, sync::Arc};

/// Files of a spool are slow to make.
const SPOOLS: usize = 40;

/// As often may a process die of a spool's files, and once more it is opened.
const OPENINGS: usize = 6;

/// `base` with the changes that `edits` says, four bytes each: bytes flipped, put in, taken out, the end cut off.
fn mutated(base: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % bytes.len().max(1);
        match edit[0] % 8 {
            _ if bytes.is_empty() => bytes.push(edit[3]),
            0..=4 => bytes[at] ^= edit[3],
            5 => bytes.insert(at, edit[3]),
            6 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// The same as a document whose own length is right, as the driver makes sure that it is.
fn document(base: &RawDocument, edits: &[u8]) -> Option<RawDocumentBuf> {
    let mut bytes = mutated(base.as_bytes(), edits);
    let length = i32::try_from(bytes.len()).ok()?.to_le_bytes();
    bytes.get_mut(..4)?.copy_from_slice(&length);
    *bytes.last_mut()? = 0;
    RawDocumentBuf::from_bytes(bytes).ok()
}

fn user_document() -> RawDocumentBuf {
    rawdoc! {
        "_id": {"a": 1_i32, "b": ["x", 2.5, true, null]}, "text": "grüße", "n": 7_i64, "at": bson::DateTime::from_millis(0),
        "zero": bson::Timestamp { time: 0, increment: 0 }, "bin": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2, 3] },
        "re": bson::Regex { pattern: bson::raw::cstr!("^a").into(), options: bson::raw::cstr!("im").into() }, "in": {"deep": {"er": []}},
    }
}

fn reply() -> RawDocumentBuf {
    let token = rawdoc! {"_data": "8263F5B0C5000000022B0229296E04"};
    let event = rawdoc! {
        "_id": token.clone(), "operationType": "update", "clusterTime": bson::Timestamp { time: 1, increment: 2 },
        "ns": {"db": "d", "coll": "c"}, "documentKey": {"_id": 1_i32},
        "updateDescription": {"updatedFields": {"a": 1_i32, "b.c": "x"}, "removedFields": ["d"], "truncatedArrays": [{"field": "e", "newSize": 2_i32}], "disambiguatedPaths": {"b.c": ["b", "c"]}},
        "fullDocument": user_document(),
    };
    rawdoc! {"cursor": {"id": 1_i64, "nextBatch": [event], "postBatchResumeToken": token}, "ok": 1.0}
}

#[test]
fn any_document_is_keyed_compared_and_shown() {
    let base = user_document();
    check!().for_each(|edits: &[u8]| {
        let Some(document) = document(&base, edits) else { return };
        let total: usize =
            raw_value::elements(document.as_bytes()).map(|(name, value)| name.len() + value.bytes.len()).sum();
        assert!(total <= document.as_bytes().len());
        for (_, value) in raw_value::elements(document.as_bytes()) {
            let _ = (value.text(), value.number(), value.is_utf8(), value.shown());
            assert_eq!(raw_bson::canonical_id(value, false), raw_bson::canonical_id(value, false));
            let _ = raw_bson::canonical_id(value, true);
            for (_, other) in raw_value::elements(base.as_bytes()) {
                assert_eq!(id_order::compare(value, other), id_order::compare(other, value).reverse());
            }
        }
        let _ = (
            raw_value::shown_id(&document),
            raw_bson::to_document(&document),
            diff::first_difference(&base, &document),
        );
        let _ = (document_shape::has_dollar_name(document.as_bytes()), document_shape::zeros(document.as_bytes()));
    });
}

#[test]
fn any_reply_of_a_change_stream_is_read_or_refused() {
    let base = reply();
    check!().for_each(|edits: &[u8]| {
        let Some(reply) = document(&base, edits) else { return };
        let _ = event::token_of(&reply).map(|token| event::token_time(&token));
        let events = event::events_of(&reply).into_iter().flatten();
        for event in events.map_while(Result::ok).filter_map(|event| event.as_document()).filter_map(Event::parse) {
            let _ = (event.ns(), event.id.map(raw_value::Value::shown), event.full_document.map(raw_value::shown_id));
            let Some(delta) = event.update_description.and_then(Delta::exact) else { continue };
            let _ = (delta.size(), delta.removes(), delta.then(&delta).map(|both| both.updates()));
            for update in delta.updates() {
                RawDocumentBuf::from_bytes(update).expect("an update is a document");
            }
        }
    });
}

/// Where the spool is that [`a_spool_is_opened`] opens.
const SPOOL: &str = "LIMOSA_TEST_SPOOL";

const START: Position = Position { token: None, spool: String::new(), seq: 0, index: 0 };

/// What a disk, or someone, did to the spool's files: the spool opens with what is whole, begins again or says why not. A
/// process that dies of it is followed by one that lives.
#[test]
fn any_damage_to_the_files_of_a_spool_is_noticed_or_does_not_matter() {
    check!().with_iterations(SPOOLS).for_each(|edits: &[u8]| {
        let dir = tempfile::tempdir().expect("a directory");
        let (spool, position, _) = Spool::open(dir.path(), &START, &Tuning::default()).expect("opens");
        for _ in 0..20 {
            spool.push(&Arc::new(reply())).expect("pushes");
        }
        spool.sync().expect("syncs");
        drop(spool);
        let mut files = files_below(dir.path());
        files.sort();
        for edit in edits.chunks(9) {
            let file = &files[usize::from(edit[0]) % files.len()];
            let damaged = mutated(&fs::read(file).expect("is read"), &edit[1..]);
            fs::write(file, damaged).expect("writes");
        }
        let opens = || {
            let mut child = Command::new(env::current_exe().expect("is known"));
            child.args(["--exact", "--ignored", "fuzz::a_spool_is_opened"]).env(SPOOL, dir.path());
            child.env("LIMOSA_TEST_SPOOL_ID", &position.spool).output().expect("runs").status.success()
        };
        assert!((0..OPENINGS).any(|_| opens()), "nobody lives");
    });
}

#[test]
#[ignore = "it is run on a damaged spool, in a process of its own"]
fn a_spool_is_opened() {
    let (Some(dir), Ok(spool)) = (env::var_os(SPOOL), env::var("LIMOSA_TEST_SPOOL_ID")) else { return };
    let position = Position { spool, ..START };
    if let Ok((spool, position, _)) = Spool::open(Path::new(&dir), &position, &Tuning::default()) {
        // What it has is a reply or an error, never something else.
        let _ = spool.try_next(position.seq);
    }
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("is listed").map(|entry| entry.expect("is one").path());
    let (dirs, mut files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.extend(dirs.iter().flat_map(|dir| files_below(dir)));
    files
}
