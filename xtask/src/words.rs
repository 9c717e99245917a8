//! Phrases that users stumble over: none is in what they read. `docs/glossary.md` has the words for the concepts.

use limosa_testkit::Error;
use regex::Regex;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// What isn't written, and what is instead.
const BANNED: &[(&str, &str)] = &[
    ("tidings", "changes"),
    ("whoever", "who, any client"),
    ("whom", "who"),
    ("somebody", "another client, someone"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("is told", "receives, is notified"),
    ("are told", "receive, are listed"),
    ("be told", "receive, be notified"),
    ("anew", "again"),
    ("once more", "again"),
    ("take back", "roll back"),
    ("takes back", "rolls back"),
    ("taken back", "rolled back"),
    ("way back", "reverse migration"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("by itself", "automatically, on its own"),
    ("by themselves", "automatically, on their own"),
    ("looked at", "checked, read"),
    ("for good", "permanently"),
    ("wait out", "retry until it is fixed"),
    ("waited out", "retried until it is fixed"),
    ("side by side", "in parallel"),
    ("beside", "next to, during, besides, compared with"),
];

/// Checks all that users read; an error names each place.
pub(crate) fn check() -> Result<(), Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["crates", "docs"] {
        list(&root.join(folder), &mut files)?;
    }
    for file in fs::read_dir(&root)? {
        files.push(file?.path());
    }
    files.sort();
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        if is_read(&name) {
            let found = find(&name, &fs::read_to_string(&file)?);
            wrong.extend(found.iter().map(|(line, is, not)| format!("{name}:{line}: not \"{is}\" but: {not}")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn is_read(name: &str) -> bool {
    let in_program = name.contains("/src/") && !name.starts_with("crates/testkit/") && !name.ends_with("tests.rs");
    let is_page = name.starts_with("docs/") || !name.contains('/');
    (is_page && name.ends_with(".md")) || (in_program && [".rs", ".js", ".html"].iter().any(|end| name.ends_with(end)))
}

/// What is looked for: a phrase may run over the end of a line, of a string or of a comment.
static PHRASES: LazyLock<Regex> = LazyLock::new(|| {
    let phrases: Vec<String> = BANNED.iter().map(|(phrase, _)| phrase.replace(' ', r"[\s/\\]+")).collect();
    Regex::new(&format!(r"(?i-u)\b(?:({}))\b", phrases.join(")|("))).expect("is a pattern")
});

/// Doc comments, other comments and strings of Rust; the character `"` begins no string.
static RUST: LazyLock<Regex> = LazyLock::new(|| {
    let parts = r#"(?s)(?:[ \t]*///[^\n]*\n)+|//[^\n]*|/\*.*?\*/|'\\?.'|"(?:\\.|[^"\\])*""#;
    Regex::new(parts).expect("is a pattern")
});

static SCRIPT: LazyLock<Regex> = LazyLock::new(|| {
    let parts = r#"(?s)//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`"#;
    Regex::new(parts).expect("is a pattern")
});

/// What users read of a file, each part with the byte at which it begins: strings, and of the model and of the options the
/// doc comments, which are in the API's description and in `--help`. Of a page it is everything.
fn visible<'a>(name: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    let parts = match name.rsplit_once('.') {
        Some((_, "rs")) => &RUST,
        Some((_, "js")) => &SCRIPT,
        _ => return vec![(0, text)],
    };
    let has_docs = name.starts_with("crates/model/") || name.starts_with("crates/cli/src/args/");
    let text = text.split("mod tests {").next().unwrap_or_default();
    let parts = parts.find_iter(text).filter(|part| {
        let part = part.as_str().trim_start();
        if part.starts_with("///") { has_docs } else { part.starts_with(['"', '\'', '`']) }
    });
    parts.map(|part| (part.start(), part.as_str())).collect()
}

/// The banned phrases in what users read, with their lines and what to write.
fn find(name: &str, text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (begin, part) in visible(name, text) {
        for captures in PHRASES.captures_iter(part) {
            let which = (0..BANNED.len()).find(|n| captures.get(n + 1).is_some()).unwrap_or_default();
            let at = begin + captures.get(0).map_or(0, |all| all.start());
            found.push((text[..at].matches('\n').count() + 1, BANNED[which].0, BANNED[which].1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_users_read_is_searched() {
        let found =
            |name: &str, text: &str| find(name, text).into_iter().map(|(line, is, _)| (line, is)).collect::<Vec<_>>();
        let rust = "/// It goes\n/// on.\n// anew\nlet beside = '\"'; say(\"it goes \\\n    on \\\"anew\\\"\", \"is\", \"told\");\n";
        assert_eq!(found("crates/engine/src/a.rs", rust), [(4, "goes on"), (5, "anew")]);
        assert_eq!(found("crates/model/src/a.rs", rust), [(1, "goes on"), (4, "goes on"), (5, "anew")]);
        assert_eq!(found("docs/a.md", "It is\ntold `Anew`, is, told."), [(1, "is told"), (2, "anew")]);
        let js = "// anew\nconst mend = `anew`;\n/** anew */ f('it goes on')";
        assert_eq!(found("a.js", js), [(2, "anew"), (3, "goes on")]);
        assert!(is_read("docs/a.md") && is_read("README.md") && !is_read("crates/engine/tests/a.rs"));
    }

    #[test]
    fn no_user_reads_a_banned_phrase() {
        check().expect("all are replaced");
    }
}
