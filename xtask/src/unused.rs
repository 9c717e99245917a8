//! Dependencies that a crate declares and nothing in it names.

use limosa_testkit::Error;
use std::{fs, path::Path};

/// Checks all crates; an error names each dependency that could go.
pub(crate) fn check() -> Result<(), Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut crates = vec![root.join("xtask")];
    for entry in fs::read_dir(root.join("crates"))? {
        crates.push(entry?.path());
    }
    let mut unused = Vec::new();
    for dir in crates.iter().filter(|dir| dir.join("Cargo.toml").exists()) {
        unused.extend(of_crate(dir)?);
    }
    if unused.is_empty() { Ok(()) } else { Err(unused.join("\n").into()) }
}

fn of_crate(dir: &Path) -> Result<Vec<String>, Error> {
    let manifest = fs::read_to_string(dir.join("Cargo.toml"))?;
    let mut unused = Vec::new();
    for (table, folders) in
        [("[dependencies]", &["src", "benches"][..]), ("[dev-dependencies]", &["src", "tests", "benches"])]
    {
        let mut text = String::new();
        for folder in folders {
            read(&dir.join(folder), &mut text)?;
        }
        for name in declared(&manifest, table).into_iter().filter(|name| !is_named(&text, name)) {
            unused.push(format!("{}: nothing uses {name} of {table}", dir.display()));
        }
    }
    Ok(unused)
}

/// The names in one table of a manifest.
fn declared<'a>(manifest: &'a str, table: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != table).skip(1);
    let entries = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    entries.filter_map(|line| line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())).collect()
}

/// Whether a path begins with the crate's name; `md-5` is the one whose library is called otherwise.
fn is_named(text: &str, name: &str) -> bool {
    let library = if name == "md-5" { "md5".to_owned() } else { name.replace('-', "_") };
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(&library)
        .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + library.len()..].starts_with(is_word))
}

fn read(folder: &Path, text: &mut String) -> Result<(), Error> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_nothing_names_is_found() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nserde.workspace = true\nmd-5 = \"1\"\n# kept\n\n[lints]\na = 1\n";
        assert_eq!(declared(manifest, "[dependencies]"), ["serde", "md-5"]);
        assert!(is_named("use md5::Md5;", "md-5") && !is_named("serde_json::to_string", "serde"));
    }

    #[test]
    fn no_crate_declares_what_it_does_not_use() {
        check().expect("all are used");
    }
}
