//! Reading requests' bodies. All bodies together have a budget of memory, and a body is read only of a caller who is
//! known and may ask: who isn't can make the server hold nothing.

use crate::http::render::ApiError;
use axum::{
    body::{Body, HttpBody},
    http::StatusCode,
};
use hyper::body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The largest body of a request of a client; no request of this API needs more.
pub(crate) const CLIENT_BODY_BYTES: usize = 1024 * 1024;

/// The largest report of an agent: its last one has every collection, with about 250 bytes each.
pub(crate) const REPORT_BYTES: usize = 64 * 1024 * 1024;

/// The largest body of a request that proves who sends it only by that body.
pub(crate) const SIGN_IN_BYTES: usize = 16 * 1024;

/// Bytes of all clients' bodies at a time. Each is parsed to a tree of about ten times its size.
const CLIENTS_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of all bodies at a time of those who are still to sign in; they take nothing from those who are known.
const SIGN_INS_BYTES: usize = 2 * 1024 * 1024;

/// Bytes of an unauthenticated request's body that are received and dropped, so that a client which sends its body
/// before it reads the challenge gets to read it.
const DROPPED_BYTES: usize = 64 * 1024;

/// How long the rest of such a body is waited for.
const DROP_FOR: Duration = Duration::from_secs(2);

/// How long a body waits for others to be done with their share.
const WAIT: Duration = Duration::from_secs(5);

/// The unit of the budget.
const KIB: usize = 1024;

/// What all bodies that are held now may take together.
#[derive(Debug)]
pub(crate) struct Budget {
    clients: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    sign_ins: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        let of = |bytes: usize| Arc::new(Semaphore::new(bytes / KIB));
        Self { clients: of(CLIENTS_BYTES), reports: of(REPORT_BYTES), sign_ins: of(SIGN_INS_BYTES) }
    }
}

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// It is larger than it may be, or it ended early.
    TooLarge,
    /// Other requests' bodies take all the memory that there is for them.
    NoRoom,
}

impl NotRead {
    /// The answer, where a body may have `most` bytes.
    pub fn error(&self, most: usize) -> ApiError {
        match self {
            Self::TooLarge => {
                let detail = format!("The request body is larger than {most} bytes or ended early.");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "VALIDATION_ERROR", detail, &[])
            }
            Self::NoRoom => {
                let detail = "The server holds as many request bodies as it may. Send the request again.";
                let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", detail, &[]);
                ApiError { retry_after: Some(1), ..error }
            }
        }
    }
}

/// A body that was read. It takes its share of the budget until it is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldBody {
    pub bytes: axum::body::Bytes,
    _share: Option<Arc<OwnedSemaphorePermit>>,
}

impl Budget {
    /// Reads a client's body, or an agent's report where `most` is larger than a client's may be.
    pub async fn read(&self, body: Body, most: usize) -> Result<HeldBody, NotRead> {
        let from = if most > CLIENT_BODY_BYTES { &self.reports } else { &self.clients };
        read(from, body, most).await
    }

    /// Reads the body of a request that proves by it who sends it.
    pub async fn read_sign_in(&self, body: Body) -> Result<HeldBody, NotRead> {
        read(&self.sign_ins, body, SIGN_IN_BYTES).await
    }
}

async fn read(budget: &Arc<Semaphore>, body: Body, most: usize) -> Result<HeldBody, NotRead> {
    read_waiting(budget, body, most, WAIT).await
}

async fn read_waiting(
    budget: &Arc<Semaphore>,
    mut body: Body,
    most: usize,
    wait: Duration,
) -> Result<HeldBody, NotRead> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > most {
        return Err(NotRead::TooLarge);
    }
    let mut bytes = Vec::with_capacity(announced.min(CLIENT_BODY_BYTES));
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(|_| NotRead::TooLarge)?.into_data() else { continue };
        let held = bytes.len() + data.len();
        if held > most {
            return Err(NotRead::TooLarge);
        }
        let have = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if let Some(missing) = held.div_ceil(KIB).checked_sub(have).filter(|missing| *missing > 0) {
            let waiting = Arc::clone(budget).acquire_many_owned(missing as u32);
            let more = tokio::time::timeout(wait, waiting).await.ok().and_then(Result::ok).ok_or(NotRead::NoRoom)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(HeldBody { bytes: bytes.into(), _share: share.map(Arc::new) })
}

/// Receives what a client sends along with a request that is refused, and keeps nothing of it.
pub(crate) async fn discard(mut body: Body) {
    let discarding = async {
        let mut dropped = 0;
        while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            dropped += frame.data_ref().map_or(0, |data| data.len());
            if dropped > DROPPED_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DROP_FOR, discarding).await;
}

/// An answer's body that keeps `guard` until it ends, and shows it each part that the client takes.
pub(crate) fn guarded<T: Unpin + Send + 'static>(body: Body, guard: T, on_part: fn(&T)) -> Body {
    Body::new(Guarded { body, guard, on_part })
}

struct Guarded<T> {
    body: Body,
    guard: T,
    on_part: fn(&T),
}

impl<T: Unpin> HttpBody for Guarded<T> {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            (self.on_part)(&self.guard);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_bounded_and_all_bodies_are() {
        let budget = Arc::new(Semaphore::new(4));
        let body = |bytes: usize| Body::from(vec![b'x'; bytes]);
        assert_eq!(read(&budget, body(5), 4).await.err(), Some(NotRead::TooLarge));
        let held = read(&budget, body(3000), 4096).await.expect("fits");
        assert_eq!((held.bytes.len(), budget.available_permits()), (3000, 1));
        let crowded = read_waiting(&budget, body(2000), 4096, Duration::from_millis(10)).await;
        assert_eq!(crowded.err(), Some(NotRead::NoRoom));
        drop(held);
        assert_eq!(budget.available_permits(), 4, "what was not read holds nothing");
        assert!(read(&budget, body(4096), 4096).await.is_ok());
        assert!(read(&budget, Body::empty(), 4096).await.expect("is read").bytes.is_empty());
    }
}
