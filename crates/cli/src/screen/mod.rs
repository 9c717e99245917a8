//! One migration on the whole terminal: the facts of the page in the browser, and keys to act on them. Leaving it
//! changes nothing: the migration continues, told in plain lines.

mod draw;
mod view;

use crate::{args::Cutover, commands::MigrationHandle, error::CliError, terminal};
use limosa_agent::http::HttpError;
use limosa_model::{Limits, PhaseKind, limits::LoadLevel};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use view::{Asking, View};

/// How often the server is asked.
const REFRESH: Duration = Duration::from_secs(1);

/// How long the keyboard is waited for before it is looked whether anyone still cares.
const KEYS: Duration = Duration::from_millis(100);

/// How long a server that doesn't answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How someone left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// By the key for it.
    Detached,
    /// By Ctrl-C.
    Interrupted,
    /// The migration is over.
    Over,
}

/// The terminal, given back when dropped.
struct Taken(DefaultTerminal);

impl Taken {
    fn take() -> Result<Self, CliError> {
        let terminal = ratatui::try_init().map_err(|e| CliError::File("the terminal".into(), e))?;
        terminal::set_taken(true);
        Ok(Self(terminal))
    }

    fn draw(&mut self, view: &View) -> Result<(), CliError> {
        let drawn = self.0.draw(|frame| draw::draw(frame, view));
        drawn.map(drop).map_err(|e| CliError::File("the terminal".into(), e))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        ratatui::restore();
        terminal::set_taken(false);
    }
}

/// Reads keys until nobody takes them any more.
fn keys() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(KEYS).and_then(|is_there| if is_there { event::read().map(Some) } else { Ok(None) }) {
                Ok(Some(event)) => unfolded(event).into_iter().flatten().for_each(|event| drop(sender.send(event))),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Escape and a key soon after it arrive as one key with Alt, as a terminal sends both alike. No key here has a meaning
/// with Alt, so that it was two.
fn unfolded(event: Event) -> [Option<Event>; 2] {
    match event {
        Event::Key(mut key) if key.modifiers.contains(KeyModifiers::ALT) => {
            key.modifiers.remove(KeyModifiers::ALT);
            [Some(Event::Key(KeyEvent { code: KeyCode::Esc, ..key })), Some(Event::Key(key))]
        }
        event => [Some(event), None],
    }
}

/// Shows the migration until it is over or someone leaves.
pub(crate) async fn follow(watched: &MigrationHandle<'_>) -> Result<Left, CliError> {
    let mut view = View::default();
    let mut cutover = watched.cutover;
    let mut answered = Instant::now();
    refresh(watched, &mut view, &mut answered).await?;
    let mut terminal = Taken::take()?;
    let mut keys = keys();
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if view.phase().is_some_and(PhaseKind::is_final) {
            return Ok(Left::Over);
        }
        // Once: after a cutover that was rolled back, someone must look first.
        if view.is_ready() && cutover == Cutover::WhenReady && watched.cut_over_when_ready().await? {
            cutover = Cutover::Manual;
        }
        terminal.draw(&view)?;
        tokio::select! {
            _ = tick.tick() => refresh(watched, &mut view, &mut answered).await?,
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if let Some(left) = press(watched, &mut view, key).await {
                        return Ok(left);
                    }
                }
                Some(_) => {}
                None => return Ok(Left::Detached),
            },
        }
    }
}

async fn refresh(watched: &MigrationHandle<'_>, view: &mut View, answered: &mut Instant) -> Result<(), CliError> {
    let known = async { Ok::<_, HttpError>((watched.described().await?, watched.events().await?)) };
    match known.await {
        Ok((detail, events)) => {
            *answered = Instant::now();
            view.update(detail, events);
            Ok(())
        }
        Err(HttpError::Unreachable(..)) if answered.elapsed() < PATIENCE => {
            view.is_lost = true;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// What a key does; how someone left, if it was by this key.
async fn press(watched: &MigrationHandle<'_>, view: &mut View, key: KeyEvent) -> Option<Left> {
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(Left::Interrupted);
    }
    match std::mem::take(&mut view.asking) {
        Asking::Nothing => match key.code {
            KeyCode::Char('q') => return Some(Left::Detached),
            KeyCode::Char('c') if view.is_ready() => view.asking = Asking::CutOver(String::new()),
            KeyCode::Char('c') => view.said = "It is not ready for the cutover yet.".to_owned(),
            KeyCode::Char('p') => view.asking = Asking::Pause,
            KeyCode::Char('l') => view.asking = Asking::Load,
            _ => {}
        },
        Asking::Load => {
            if let KeyCode::Char(digit) = key.code {
                view.said = set_load(watched, view, digit).await;
            }
        }
        Asking::Pause => {
            if key.code == KeyCode::Char('y') {
                let verb = if view.can_resume() { "resume" } else { "pause" };
                let done = watched.act(verb).await.map(|()| format!("{verb}: done"));
                view.said = done.unwrap_or_else(|e| e.to_string());
            }
        }
        Asking::CutOver(mut typed) => match key.code {
            KeyCode::Esc => {}
            KeyCode::Enter if typed == view.destination() => {
                let done = watched.cut_over().await.map(|()| "the cutover is under way".to_owned());
                view.said = done.unwrap_or_else(|e| e.to_string());
            }
            code => {
                match code {
                    KeyCode::Char(letter) => typed.push(letter),
                    KeyCode::Backspace => drop(typed.pop()),
                    _ => {}
                }
                view.asking = Asking::CutOver(typed);
            }
        },
    }
    None
}

/// Sets the load level to the digit that was pressed; what became of it.
async fn set_load(watched: &MigrationHandle<'_>, view: &View, digit: char) -> String {
    let level = digit.to_digit(10).and_then(|level| LoadLevel::try_from(level as u8).ok());
    let Some(load_level) = level else { return "A load level is a number from 1 to 5.".to_owned() };
    let done = watched.limit(Limits { load_level, ..view.limits() }).await;
    done.map_or_else(|e| e.to_string(), |_| format!("load level {digit}: done"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_and_a_key_soon_after_it_are_two_keys() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let (p, none) = (KeyCode::Char('p'), KeyModifiers::NONE);
        assert_eq!(unfolded(key(p, KeyModifiers::ALT)), [Some(key(KeyCode::Esc, none)), Some(key(p, none))]);
        assert_eq!(unfolded(key(p, none)), [Some(key(p, none)), None]);
    }
}
