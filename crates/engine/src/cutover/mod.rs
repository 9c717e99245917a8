//! The cutover: its steps, the rehearsal that goes through them without changing anything, the block of the source's
//! writes, and what is needed for the way in the other direction.

pub(crate) mod rehearsal;
pub(crate) mod report_data;
pub(crate) mod reverse;
pub(crate) mod steps;
pub(crate) mod write_block;
