//! `…/liveMigrations/{id}/events`: what happened to a migration, as a list or as a stream that ends with it; and
//! `/api/limosa/v1/changes`: that something did happen to one.

use crate::{
    App, auth,
    handlers::{migration, reply},
    http::{
        context::Call,
        paging::Window,
        render::{ApiError, Reply},
    },
    store::EventRow,
};
use axum::{
    body::Body,
    http::Response,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use limosa_model::{
    MigrationId, Timestamp,
    history::HistoryEvent,
    wire::own::{Changes, MigrationEvent},
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the store is read for a stream.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often it is checked whether a stream's caller may still follow it. What is revoked ends its streams within five
/// seconds.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The least time between two events of a stream of changes: a host under way reports every second.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How often migrations were changed.
pub(crate) fn changes(call: &Call) -> Result<Reply, ApiError> {
    Ok(reply(&Changes { count: call.app.store.changes().follow().borrow().unwrap_or_default() }))
}

/// The same as a stream: an event whenever there are more. Only that it happened is told, so that everyone may hear it.
pub(crate) fn stream_changes(call: Call) -> Response<Body> {
    let mut following = call.app.store.changes().follow();
    // The first is told at once: what was known before the stream began may be old.
    following.mark_changed();
    let told =
        stream::unfold((call, following, Duration::ZERO), async |(mut call, mut following, pause): (Call, _, _)| {
            tokio::time::sleep(pause).await;
            loop {
                match tokio::time::timeout(CHECK_EVERY, following.changed()).await {
                    Ok(changed) => changed.ok()?,
                    Err(_) => {
                        call = still_followed(call).await?;
                        continue;
                    }
                }
                call = still_followed(call).await?;
                let count = (*following.borrow_and_update())?;
                let data = serde_json::to_string(&Changes { count }).unwrap_or_default();
                let event = Event::default().event("changed").data(data);
                return Some((Ok::<_, Infallible>(event), (call, following, TELL_EVERY)));
            }
        });
    Sse::new(Box::pin(told)).keep_alive(KeepAlive::default()).into_response()
}

/// The call, if what let the caller in still does.
async fn still_followed(mut call: Call) -> Option<Call> {
    let app = Arc::clone(&call.app);
    let look = move |_: &Arc<App>| {
        let _logged = call.span.clone().entered();
        may_follow(&mut call).then_some(call)
    };
    app.blocking(look).await
}

/// Whether what let the caller in still does, with a role. The roles are then those of now.
fn may_follow(call: &mut Call) -> bool {
    match auth::renewed(&call.app, &call.principal, call.address, Timestamp::now()) {
        Ok(Some(principal)) if !principal.roles.is_empty() => {
            call.principal = principal;
            true
        }
        Ok(_) => false,
        Err(error) => {
            tracing::error!(%error, "a stream's caller can't be looked up");
            false
        }
    }
}

pub(crate) fn list(call: &Call) -> Result<Reply, ApiError> {
    let migration = migration(call)?;
    let window = Window::of(call)?;
    let (events, total) = call.app.store.events_page(migration.id, window.first(), window.size)?;
    let events: Vec<MigrationEvent> = events.into_iter().map(shown).collect();
    Ok(window.reply(call, &events, total))
}

fn shown(EventRow { number: id, at, event }: EventRow) -> MigrationEvent {
    let (kind, message, time) = (event.kind().to_owned(), event.to_string(), at.rfc3339());
    let data = if let HistoryEvent::Words { .. } = event { None } else { Some(event) };
    MigrationEvent { id, kind, message, time, data }
}

fn after(call: &Call, migration: MigrationId, number: i64) -> Result<Vec<MigrationEvent>, ApiError> {
    Ok(call.app.store.events(migration, number)?.into_iter().map(shown).collect())
}

/// Where a stream is.
struct Following {
    call: Call,
    migration: MigrationId,
    seen: i64,
    waiting: VecDeque<MigrationEvent>,
    checked: Instant,
}

impl Following {
    /// With what happened since, if its caller may still follow it; `None` at the end.
    fn looked(mut self) -> Option<Self> {
        let _logged = self.call.span.clone().entered();
        if self.checked.elapsed() >= CHECK_EVERY {
            self.checked = Instant::now();
            if !may_follow(&mut self.call) || migration(&self.call).is_err() {
                return None;
            }
        }
        if !self.waiting.is_empty() {
            return Some(self);
        }
        // Whether it is over is read first: nothing happens to a migration that is.
        let known = self.call.app.store.migration(self.migration).ok().flatten()?;
        self.waiting = after(&self.call, self.migration, self.seen).ok()?.into();
        let stopping = || self.call.app.store.changes().follow().borrow().is_none();
        if self.waiting.is_empty() && (known.phase.kind().is_final() || stopping()) { None } else { Some(self) }
    }
}

/// The events so far, then each as it happens. `Last-Event-ID` continues after that one.
pub(crate) fn stream(call: Call) -> Response<Body> {
    let Ok(followed) = migration(&call) else { return axum::http::StatusCode::NOT_FOUND.into_response() };
    let (seen, checked) = (call.last_event_id, Instant::now());
    let following = Following { call, migration: followed.id, seen, waiting: VecDeque::new(), checked };
    let events = stream::unfold(following, async |mut at: Following| {
        loop {
            let app = Arc::clone(&at.call.app);
            at = app.blocking(move |_| at.looked()).await?;
            if let Some(event) = at.waiting.pop_front() {
                at.seen = event.id;
                let data = serde_json::to_string(&event).unwrap_or_default();
                let event = Event::default().id(event.id.to_string()).event(event.kind).data(data);
                return Some((Ok::<_, Infallible>(event), at));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    Sse::new(Box::pin(events)).keep_alive(KeepAlive::default()).into_response()
}
