//! What must be true of every commit, short of the tests.

use crate::{cargo, directions, run, supply_chain, unused, words};
use limosa_testkit::Error;

/// All checks, the quickest first.
pub(crate) fn run_checks() -> Result<(), Error> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    directions::check()?;
    unused::check()?;
    words::check()?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)?;
    supply_chain::check()
}
