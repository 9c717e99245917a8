//! What must be true of every commit, short of the tests.

use crate::{cargo, run};
use limosa_testkit::Error;
use std::process::{Command, Stdio};

/// Licences that a dependency may be under.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "CC0-1.0",
    "0BSD",
    "MPL-2.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
];

/// All checks, the quickest first.
pub(crate) fn run_checks() -> Result<(), Error> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)?;
    let deny = Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if deny.is_ok_and(|s| s.success()) { run(cargo(&["deny", "check"])) } else { licences() }
}

/// The part of cargo-deny that needs no network: every dependency's licence is one of ours.
fn licences() -> Result<(), Error> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked"]).stderr(Stdio::inherit()).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let fits = |expression: &str| {
        let choices = expression.replace(['(', ')'], " ").replace('/', " OR ");
        choices.split(" OR ").any(|all| {
            all.split(" AND ").all(|one| LICENCES.contains(&one.split(" WITH ").next().unwrap_or_default().trim()))
        })
    };
    let refused: Vec<String> = packages
        .iter()
        .filter(|p| !p["license"].as_str().is_some_and(fits))
        .map(|p| format!("{} ({})", p["name"], p["license"]))
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(format!("licences that are not allowed: {}", refused.join(", ")).into())
    }
}
