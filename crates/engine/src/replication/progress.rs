//! How far change replication is. A place is where to resume from; a time is a cluster time of the source.
//!
//! | name | what it is | invariant |
//! |---|---|---|
//! | `position` | the place before which everything is applied; the next checkpoint | never before the checkpoint, never behind the end of a batch in flight |
//! | `watermark` | the time of the last resume token that is applied | zero at the start of a run; never goes back |
//! | `passed` | the time up to which everything is applied, whole transactions included | `passed` ≤ `watermark`; never goes back |
//! | `convergence` | the time from which on the destination is an exact image of the source | never goes back; in no order with the others |
//!
//! `passed` is the watermark where the source had nothing more at that time, else one increment less: the events of a
//! transaction have one cluster time, and the rest of them may be in the next reply.
//!
//! Whatever is read again from the source is newer than its event: the destination is ahead of the stream there, and an exact
//! image only once the stream has caught up. Each such read moves `convergence` on.

use crate::source::{event, position::Position};
use bson::{Document, RawDocumentBuf, Timestamp};

/// See the module.
pub(crate) struct StreamProgress {
    position: Position,
    watermark: Timestamp,
    passed: Timestamp,
    convergence: Timestamp,
}

impl StreamProgress {
    /// A run that continues from `position`. `now` is the source's time: what earlier runs have read of it is before.
    pub fn begin(position: Position, now: Timestamp) -> Self {
        let zero = Timestamp { time: 0, increment: 0 };
        Self { position, watermark: zero, passed: zero, convergence: now }
    }

    /// Everything before this place is applied.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The time of the last resume token that is applied.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Everything up to here is applied, all events of one transaction too.
    pub fn passed(&self) -> Timestamp {
        self.passed
    }

    /// The destination is an exact image only from here on.
    pub fn convergence(&self) -> Timestamp {
        self.convergence
    }

    /// Whether everything up to `until` is applied and the destination is an exact image.
    pub fn has_reached(&self, until: Timestamp) -> bool {
        self.passed >= until.max(self.convergence)
    }

    /// Seconds until the destination is an exact image, by the source's clock. Reads under load keep moving that point, so
    /// `Synced` asks only that it is near; the cutover waits until it is reached.
    pub fn seconds_to_convergence(&self) -> i64 {
        i64::from(self.convergence.time.saturating_sub(self.watermark.time))
    }

    /// A batch is applied: everything before `end` is. `idle`: the source had nothing more then. Returns whether the
    /// watermark is known to be at the batch's end.
    pub fn batch_applied(&mut self, end: Position, idle: bool) -> bool {
        let token = end.token.as_ref().and_then(|token| RawDocumentBuf::try_from(token).ok());
        let time = token.and_then(|token| event::token_time(&token));
        self.watermark = time.map_or(self.watermark, |time| self.watermark.max(time));
        self.position = end;
        let Timestamp { time: seconds, increment } = self.watermark;
        let before =
            Timestamp { time: seconds.saturating_sub(u32::from(increment == 0)), increment: increment.wrapping_sub(1) };
        let whole = if idle { self.watermark } else { before.min(self.watermark) };
        self.passed = self.passed.max(whole);
        time.is_some()
    }

    /// The event at the position is applied alone; `token` is its resume token.
    pub fn event_applied(&mut self, token: Option<Document>) {
        self.position.index += 1;
        self.position.token = token;
    }

    /// Something was read of the source as it was at `time`, if anything was.
    pub fn has_read(&mut self, time: Option<Timestamp>) {
        self.convergence = time.map_or(self.convergence, |time| self.convergence.max(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32, increment: u32) -> Timestamp {
        Timestamp { time, increment }
    }

    fn place(seq: u64) -> Position {
        Position { token: None, spool: "spool".to_owned(), seq, index: 0 }
    }

    #[test]
    fn what_is_read_again_puts_the_image_off() {
        let mut progress = StreamProgress::begin(place(0), at(10, 0));
        assert!(!progress.has_reached(at(5, 0)), "nothing is applied yet");
        progress.has_read(Some(at(12, 3)));
        progress.has_read(Some(at(11, 0)));
        progress.has_read(None);
        assert_eq!((progress.convergence(), progress.seconds_to_convergence()), (at(12, 3), 12));
    }

    #[test]
    fn a_batch_without_a_token_moves_the_position_alone() {
        let mut progress = StreamProgress::begin(place(0), at(10, 0));
        assert!(!progress.batch_applied(place(7), false));
        assert_eq!((progress.position().seq, progress.watermark(), progress.passed()), (7, at(0, 0), at(0, 0)));
        progress.event_applied(Some(Document::new()));
        assert_eq!(progress.position().index, 1);
    }
}
