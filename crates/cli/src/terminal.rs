//! Whether there is a terminal, and whether the full screen has it.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether the terminal is taken: nothing else may write to it then.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether the terminal is taken.
pub(crate) fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Notes that the full screen has the terminal, or has given it back.
pub(crate) fn set_taken(taken: bool) {
    TAKEN.store(taken, Ordering::SeqCst);
}

/// Whether there is a terminal to take.
pub(crate) fn is_possible() -> bool {
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    !dumb && io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}
