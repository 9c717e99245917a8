//! Streams of events: each takes a connection for as long as its client likes, so a caller has a bounded number of them.

use crate::{auth::Principal, http::bodies};
use axum::{body::Body, http::Response};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Streams that one key, service account or session may follow at a time.
pub(crate) const STREAMS_OF_ONE: usize = 50;

/// Who follows how many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<String, usize>>>);

impl Streams {
    fn counted(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more for this caller; `None` if it has all that it may have.
    pub fn begin(&self, principal: &Principal) -> Option<StreamGuard> {
        let mut counted = self.counted();
        let count = counted.entry(principal.name.clone()).or_default();
        if *count >= STREAMS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(StreamGuard { streams: self.clone(), caller: principal.name.clone() })
    }
}

/// A stream that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    streams: Streams,
    caller: String,
}

impl StreamGuard {
    /// Counts the stream until its body ends.
    pub fn hold(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| bodies::guarded(body, self, |_| {}))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut counted = self.streams.counted();
        if let Some(count) = counted.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counted.remove(&self.caller);
            }
        }
    }
}
