//! Tells people what they must act on: by signed webhooks and by e-mail. What happens to migrations is read from their
//! events, in order, and put into an outbox in the same transaction that notes how far it was read; each message is
//! then tried until it is taken, so that neither a restart nor a receiver that is away loses one. One may come twice,
//! with the same id.

mod channel;
mod config;
mod message;
mod reading;

pub use config::{NotifyConfig, NotifyError};

use crate::App;
use channel::Channel;
use limosa_model::Timestamp;
pub(crate) use message::Message;
use message::Occasion;
use std::{sync::Arc, time::Duration};

/// How often it is looked whether there is something to tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a message is tried.
const TRY_FOR_SECONDS: i64 = 86_400;

/// The longest pause between two tries.
const LONGEST_PAUSE_SECONDS: i64 = 300;

/// Messages that are tried side by side.
const AT_ONCE: usize = 16;

/// How long the last messages may take after the server's end: as long as one receiver may.
pub(crate) const LAST_WORDS: Duration = channel::PATIENCE;

/// A message that waits, for one channel.
pub(crate) struct Waiting {
    pub n: i64,
    pub channel: String,
    pub body: String,
    pub attempts: i64,
    pub since: Timestamp,
}

/// Until nothing changes any more; what happened until then is told once.
pub(crate) async fn tell(app: Arc<App>, config: NotifyConfig) {
    let channels = match channel::all(&config) {
        Ok(channels) => channels,
        Err(error) => {
            tracing::error!(%error, "nobody can be told of anything");
            return;
        }
    };
    let names: Vec<String> = channels.iter().map(Channel::name).collect();
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut changes = app.store.changes().follow();
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            _ = interval.tick() => {}
            _ = changes.wait_for(Option::is_none) => is_last = true,
        }
        let now = Timestamp::now();
        if let Err(error) = gather(&app, &config, &names, now) {
            tracing::error!(%error, "what happened could not be read");
        }
        if let Err(error) = deliver(&app, &channels, now).await {
            tracing::error!(%error, "the outbox could not be read");
        }
    }
}

/// Puts what is new into the outbox.
fn gather(app: &App, config: &NotifyConfig, channels: &[String], now: Timestamp) -> Result<(), crate::ServerError> {
    app.store.announce(channels, now, |migration, at, event| {
        let occasion = Occasion::of_event(event)?;
        let is_news = now.seconds_since(at) < TRY_FOR_SECONDS;
        (is_news && config.wants(occasion))
            .then(|| Message::new(occasion, migration, at, &event.to_string(), config.page.as_deref()))
    })
}

/// Tries what is due.
async fn deliver(app: &App, channels: &[Channel], now: Timestamp) -> Result<(), crate::ServerError> {
    let due = app.store.outbox(now, AT_ONCE)?;
    let tries = due.iter().map(async |waiting| {
        let channel = channels.iter().find(|channel| channel.name() == waiting.channel);
        match channel {
            // Not configured any more.
            None => Ok(()),
            Some(channel) => channel.send(waiting.n, &waiting.body).await,
        }
    });
    let done = futures::future::join_all(tries).await;
    for (waiting, done) in due.iter().zip(done) {
        match done {
            Ok(()) => app.store.outbox_done(waiting.n)?,
            Err(error) if now.seconds_since(waiting.since) >= TRY_FOR_SECONDS => {
                tracing::error!(channel = waiting.channel, %error, "a message was given up after a day");
                app.store.outbox_done(waiting.n)?;
            }
            Err(error) => {
                let pause = 1_i64.checked_shl(waiting.attempts.min(20) as u32).unwrap_or(LONGEST_PAUSE_SECONDS);
                let pause = pause.min(LONGEST_PAUSE_SECONDS);
                tracing::warn!(channel = waiting.channel, %error, pause, "a message was not taken; it is tried again");
                app.store.outbox_later(waiting.n, Timestamp::now().plus_seconds(pause))?;
            }
        }
    }
    Ok(())
}

/// Sends a message to every channel at once: the channel's name, and what became of it.
pub async fn try_out(config: &NotifyConfig) -> Result<Vec<(String, Result<(), NotifyError>)>, NotifyError> {
    let message = Message::test(config.page.as_deref());
    let mut results = Vec::new();
    for channel in channel::all(config)? {
        results.push((channel.name(), channel.send(0, &message.to_json()).await));
    }
    Ok(results)
}
