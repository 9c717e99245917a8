//! What Limosa is made of: each dependency's licence and origin are checked, and listed for those who must know.
//!
//! It needs no network and no other program, so it never passes for want of one. Known vulnerabilities aren't checked here:
//! their database is on the network. `cargo deny check advisories` and `cargo audit` read the same `Cargo.lock`.

use crate::cargo;
use limosa_testkit::{Error, tool};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::Stdio};

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

/// Where dependencies come from.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What isn't wanted at all: another TLS than rustls, which is linked and updated with the program.
const BANNED: &[&str] = &["openssl", "openssl-sys", "native-tls"];

/// All packages of the lock file, as `cargo metadata` describes them.
fn packages() -> Result<Vec<Value>, Error> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked"]).stderr(Stdio::inherit()).output()?;
    let mut metadata: Value = serde_json::from_slice(&output.stdout)?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => Err("cargo metadata names no packages".into()),
    }
}

/// Every dependency is under a licence that is allowed, from the registry, and none is banned.
pub(crate) fn check() -> Result<(), Error> {
    let faults: Vec<String> = packages()?.iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(format!("dependencies: {}", faults.join(", ")).into()) }
}

fn fault(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or("?");
    if !package["license"].as_str().is_some_and(is_allowed) {
        return Some(format!("{name} is under {}", package["license"]));
    }
    if BANNED.contains(&name) {
        return Some(format!("{name} is banned"));
    }
    let source = package["source"].as_str();
    source.filter(|source| *source != SOURCE).map(|source| format!("{name} is from {source}"))
}

/// Whether one of the choices that a licence expression leaves is allowed.
fn is_allowed(expression: &str) -> bool {
    let choices = expression.replace(['(', ')'], " ").replace('/', " OR ");
    choices.split(" OR ").any(|all| {
        all.split(" AND ").all(|one| LICENCES.contains(&one.split(" WITH ").next().unwrap_or_default().trim()))
    })
}

/// Writes the list of all components in the format CycloneDX 1.5; where it is.
pub(crate) fn write_sbom() -> Result<PathBuf, Error> {
    let components: Vec<Value> = packages()?
        .iter()
        .filter(|package| package["source"].is_string())
        .map(|package| {
            let (name, version) = (&package["name"], &package["version"]);
            let purl = format!("pkg:cargo/{}@{}", name.as_str().unwrap_or("?"), version.as_str().unwrap_or("?"));
            json!({
                "type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl,
                "licenses": [{"expression": package["license"]}],
            })
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let bom = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "application", "name": "limosa", "version": version}},
        "components": components,
    });
    let file = tool::target().join("limosa.cdx.json");
    fs::create_dir_all(tool::target())?;
    fs::write(&file, serde_json::to_vec_pretty(&bom)?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_held_against_licence_origin_and_ban() {
        let package = |name: &str, license: &str, source: Option<&str>| {
            fault(&json!({"name": name, "license": license, "source": source}))
        };
        assert_eq!(package("a", "MIT OR Apache-2.0", Some(SOURCE)), None);
        assert_eq!(package("a", "(GPL-3.0 OR MIT) AND Unicode-3.0", None), None);
        assert_eq!(package("a", "Apache-2.0 WITH LLVM-exception", Some(SOURCE)), None);
        assert_eq!(package("a", "GPL-3.0", Some(SOURCE)).as_deref(), Some("a is under \"GPL-3.0\""));
        assert_eq!(package("a", "MIT AND GPL-3.0", Some(SOURCE)).as_deref(), Some("a is under \"MIT AND GPL-3.0\""));
        assert_eq!(package("openssl-sys", "MIT", Some(SOURCE)).as_deref(), Some("openssl-sys is banned"));
        assert_eq!(package("a", "MIT", Some("git+https://x/y")).as_deref(), Some("a is from git+https://x/y"));
    }
}
