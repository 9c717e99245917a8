//! What must be true of every commit, short of the tests.

use crate::{cargo, run, supply_chain};
use limosa_testkit::Error;

/// All checks, the quickest first.
pub(crate) fn run_checks() -> Result<(), Error> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)?;
    supply_chain::check()
}
