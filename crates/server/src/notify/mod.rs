//! Tells people what they must act on: by signed webhooks and by e-mail. What happens to migrations is read from their
//! events, in order, and put into an outbox in the same transaction that notes how far it was read; each message is
//! then tried until it is taken, so that neither a restart nor a receiver that is away loses one. One may come twice,
//! with the same id.

mod channel;
mod config;
mod message;
mod reading;

pub use config::{NotifyConfig, NotifyError};

use crate::{App, store::Waiting};
use channel::Channel;
use limosa_model::Timestamp;
use message::{Message, Occasion};
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

/// Until nothing changes any more; what happened until then is told once.
pub(crate) async fn run(app: Arc<App>, config: NotifyConfig) {
    let channels = match channel::all(&config) {
        Ok(channels) => channels,
        Err(error) => {
            tracing::error!(%error, "notifications are disabled: no channel could be configured");
            return;
        }
    };
    let (config, names) = (Arc::new(config), Arc::new(channels.iter().map(Channel::name).collect::<Vec<_>>()));
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
        let gathered = {
            let (config, names) = (Arc::clone(&config), Arc::clone(&names));
            app.blocking(move |app| gather(app, &config, &names, now)).await
        };
        if let Err(error) = gathered {
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
            .then(|| Message::new(occasion, migration, at, &event.to_string(), config.page.as_deref()).to_json())
    })
}

/// Tries what is due.
async fn deliver(app: &Arc<App>, channels: &[Channel], now: Timestamp) -> Result<(), crate::ServerError> {
    let due = app.blocking(move |app| app.store.outbox(now, AT_ONCE)).await?;
    let tries = due.iter().map(async |waiting| {
        let channel = channels.iter().find(|channel| channel.name() == waiting.channel);
        match channel {
            // Not configured any more.
            None => Ok(()),
            Some(channel) => channel.send(waiting.n, &waiting.body).await,
        }
    });
    let done = futures::future::join_all(tries).await;
    let done: Vec<_> = due.into_iter().zip(done).collect();
    app.blocking(move |app| done.iter().try_for_each(|(waiting, done)| settle(app, waiting, done, now))).await
}

/// Notes what became of a try.
fn settle(
    app: &App,
    waiting: &Waiting,
    done: &Result<(), NotifyError>,
    now: Timestamp,
) -> Result<(), crate::ServerError> {
    match done {
        Ok(()) => app.store.outbox_done(waiting.n),
        Err(error) if now.seconds_since(waiting.since) >= TRY_FOR_SECONDS => {
            tracing::error!(channel = waiting.channel, %error, "a message was given up after a day");
            app.store.outbox_done(waiting.n)
        }
        Err(error) => {
            let pause = 1_i64.checked_shl(waiting.attempts.min(20) as u32).unwrap_or(LONGEST_PAUSE_SECONDS);
            let pause = pause.min(LONGEST_PAUSE_SECONDS);
            tracing::warn!(channel = waiting.channel, %error, pause, "a message was not taken; it is tried again");
            app.store.outbox_later(waiting.n, Timestamp::now().plus_seconds(pause))
        }
    }
}

/// Sends a message to every channel at once: the channel's name, and what became of it.
pub async fn send_test(config: &NotifyConfig) -> Result<Vec<(String, Result<(), NotifyError>)>, NotifyError> {
    let message = Message::test(config.page.as_deref());
    let mut results = Vec::new();
    for channel in channel::all(config)? {
        results.push((channel.name(), channel.send(0, &message.to_json()).await));
    }
    Ok(results)
}
