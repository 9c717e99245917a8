//! Places at which a test lets an engine die: after something took effect and before that is noted, or the other way
//! round. Each stands where a crash would hurt if the order of the two were wrong. They exist only with the feature
//! `failpoints`, which nothing but tests turns on; without it reaching one is nothing at all.

/// All fences carry the new epoch; nothing else is done yet.
pub const FENCES_RAISED: &str = "fences raised";
/// A collection is made on the destination, and of which of the source's it is the image isn't noted.
pub const COLLECTION_MADE: &str = "collection made";
/// Collections are created in part, the plan isn't written.
pub const COLLECTION_CREATED: &str = "collection created";
/// All ranges are written down, the stage isn't noted.
pub const PLANNED: &str = "planned";
/// A batch of the copy is acknowledged, its range isn't marked.
pub const COPY_BATCH_ACKNOWLEDGED: &str = "copy batch acknowledged";
/// A range is written whole and the destination's majority has it; it isn't marked as done.
pub const RANGE_WRITTEN: &str = "range written";
/// All ranges are done, the stage isn't noted.
pub const COPIED: &str = "copied";
/// The indexes of one collection are built, the stage isn't noted.
pub const INDEXES_BUILT: &str = "indexes built";
/// A window of changes is marked as dirty for the verifier, and isn't written.
pub const WINDOW_MARKED: &str = "window marked";
/// A window of changes is acknowledged, the checkpoint is before it.
pub const WINDOW_ACKNOWLEDGED: &str = "window acknowledged";
/// The checkpoint is written, and what is before it is still in the spool.
pub const POSITION_WRITTEN: &str = "position written";
/// What a definition is about to act on is noted, and it isn't applied.
pub const INTENT_NOTED: &str = "intent noted";
/// A definition is applied, and the position is still before it.
pub const DEFINITION_APPLIED: &str = "definition applied";
/// What can't be brought up to date in place is dropped, and that the copy begins again isn't noted.
pub const RECOPY_PREPARED: &str = "recopy prepared";
/// The source refuses its users' writes, and no step of the cutover has begun after that.
pub const WRITES_BLOCKED: &str = "writes blocked";
/// That a step of the cutover begins is noted, and nothing of it is done; one for each, in their order.
pub const STEPS_NOTED: [&str; 6] =
    ["step 1 noted", "step 2 noted", "step 3 noted", "step 4 noted", "step 5 noted", "step 6 noted"];
/// An index has `prepareUnique` and isn't unique.
pub const UNIQUE_PREPARED: &str = "unique prepared";
/// An index is unique, and others of the collection aren't what they are to be.
pub const UNIQUE_MADE: &str = "unique made";
/// The cutover has done all its steps, the end isn't noted.
pub const CUT_OVER: &str = "cut over";

/// Those before the cutover that every migration comes to.
pub const BEFORE_CUTOVER: &[&str] = &[
    FENCES_RAISED,
    COLLECTION_MADE,
    COLLECTION_CREATED,
    PLANNED,
    COPY_BATCH_ACKNOWLEDGED,
    RANGE_WRITTEN,
    COPIED,
    INDEXES_BUILT,
    WINDOW_MARKED,
    WINDOW_ACKNOWLEDGED,
    POSITION_WRITTEN,
];

#[cfg(feature = "failpoints")]
pub use armed::{Armed, arm};

#[cfg(feature = "failpoints")]
pub(crate) use armed::reach;

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reach(_: &'static str, _: &(dyn std::fmt::Display + Sync)) -> std::future::Ready<()> {
    std::future::ready(())
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        fmt::Display,
        sync::{Arc, Mutex, PoisonError},
    };
    use tokio::sync::Notify;

    static ARMED: Mutex<Vec<(&'static str, String, Arc<Stop>)>> = Mutex::new(Vec::new());

    #[derive(Default)]
    struct Stop {
        reached: Notify,
        released: Notify,
    }

    /// Waits for an engine to come to a failpoint.
    pub struct Armed(Arc<Stop>);

    impl Armed {
        /// When this returns the engine stands still at the failpoint: the test ends it there, or releases it.
        pub async fn reached(&self) {
            self.0.reached.notified().await;
        }

        /// The engine continues, like one whose machine was suspended.
        pub fn release(&self) {
            self.0.released.notify_one();
        }
    }

    /// The first engine that comes to `name` within `scope`, a migration's id or a namespace, stands still there.
    pub fn arm(name: &'static str, scope: impl Display) -> Armed {
        let stop = Arc::new(Stop::default());
        let mut all = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((name, scope.to_string(), Arc::clone(&stop)));
        Armed(stop)
    }

    pub(crate) async fn reach(name: &'static str, scope: &(dyn Display + Sync)) {
        let armed = {
            let mut all = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
            let scope = if all.is_empty() { return } else { scope.to_string() };
            let found = all.iter().position(|(n, s, _)| *n == name && *s == scope);
            found.map(|index| all.swap_remove(index))
        };
        if let Some((_, _, stop)) = armed {
            stop.reached.notify_one();
            stop.released.notified().await;
        }
    }
}
