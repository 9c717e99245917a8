//! Which file imports which: no circles, and in the engine and the server no import of a higher floor.

use limosa_testkit::Error;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A crate's folders and files, floor by floor, the lowest first; a file may import from its own floor and from those before
/// it. The longest name that fits counts. What isn't listed is below all of them, but for [`ROOF`].
type Floors = &'static [&'static [&'static str]];

/// Of the engine.
const ENGINE: Floors = &[
    &["mongo"],
    &["source"],
    &["destination"],
    &["copy"],
    &["verify"],
    &["replication"],
    &["cutover"],
    &["preflight"],
    &["migration"],
];

/// Of the server. The store decides nothing and knows no request; handlers see neither the router nor each other's APIs'
/// tables, which alone import them.
const SERVER: Floors = &[
    &["http::render"],
    &["store", "auth"],
    &["service", "bootstrap", "data_dir"],
    &["http", "notify", "deadlines", "key_rotation"],
    &["handlers", "dashboard", "metrics"],
    &["http::table"],
    &["http::openapi", "http::dispatch", "http::router"],
];

/// Files that may import from everywhere.
const ROOF: &[&str] = &["", "bench", "fuzz"];

/// All crates of the workspace that have files to import.
const CRATES: &[&str] = &["model", "engine", "server", "agent", "cli", "testkit"];

/// A module's path, and the modules that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Checks all crates; an error names each import that points the wrong way.
pub(crate) fn check() -> Result<(), Error> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut wrong = Vec::new();
    for name in CRATES {
        let imports = imports_of(&crates.join(name).join("src"))?;
        wrong.extend(circles(&imports).into_iter().map(|files| format!("{name}: a circle of {}", files.join(", "))));
        let floors = match *name {
            "engine" => ENGINE,
            "server" => SERVER,
            _ => &[],
        };
        wrong.extend(upward(&imports, floors).into_iter().map(|import| format!("{name}: {import}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Imports of a higher floor.
fn upward(imports: &Imports, floors: Floors) -> Vec<String> {
    let all = imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)));
    let wrong =
        all.filter(|(from, to)| !ROOF.contains(&from.as_str()) && floor_of(to, floors) > floor_of(from, floors));
    wrong.map(|(from, to)| format!("{from} imports {to}, which is on a higher floor")).collect()
}

/// The floor on which a module is; 0 is below all of them.
fn floor_of(module: &str, floors: Floors) -> usize {
    let fits = |name: &str| module.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let numbered =
        floors.iter().enumerate().flat_map(|(floor, names)| names.iter().map(move |name| (floor + 1, *name)));
    numbered.filter(|(_, name)| fits(name)).max_by_key(|(_, name)| name.len()).map_or(0, |(floor, _)| floor)
}

/// Groups of files each of which imports, at last, itself.
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = imports
        .keys()
        .map(|from| {
            let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(module) = next.pop() {
                next.extend(imports.get(module).into_iter().flatten().filter(|to| reached.insert(*to)));
            }
            (from, reached)
        })
        .collect();
    let mut found = BTreeSet::new();
    for (from, all) in reached.iter().filter(|(from, all)| all.contains(*from)) {
        let circle = all.iter().filter(|to| reached.get(*to).is_some_and(|back| back.contains(*from)));
        found.insert(circle.map(ToString::to_string).collect::<Vec<_>>());
    }
    found.into_iter().collect()
}

fn imports_of(src: &Path) -> Result<Imports, Error> {
    let mut files = Vec::new();
    list(src, &mut files)?;
    let name = |file: &Path| {
        let path = file.strip_prefix(src).unwrap_or(file).with_extension("");
        let parts =
            path.iter().filter_map(|part| part.to_str()).filter(|part| !matches!(*part, "mod" | "lib" | "main"));
        parts.collect::<Vec<_>>().join("::")
    };
    let modules: BTreeSet<String> = files.iter().map(|file| name(file)).collect();
    let mut imports = Imports::new();
    for file in &files {
        let (own, text) = (name(file), code(&fs::read_to_string(file)?));
        let to = paths(&text, &own).into_iter().filter_map(|path| module_of(&path, &modules));
        imports.insert(own.clone(), to.filter(|to| *to != own && !to.is_empty()).collect());
    }
    Ok(imports)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Without comments, and without the tests at the end, which may import what they like.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate` or `super`, those in braces one by one, from the crate's root.
fn paths(text: &str, own: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let base = match text[at..].starts_with("super") {
            true => own.rsplit_once("::").map(|(parent, _)| format!("{parent}::")).unwrap_or_default(),
            false => String::new(),
        };
        expand(rest, &base, &mut found);
    }
    found
}

/// Adds the paths that `text` begins with, each behind `base`; returns what comes after them.
fn expand<'a>(text: &'a str, base: &str, found: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let path = format!("{base}{path}");
    let Some(mut rest) = rest.strip_prefix('{').filter(|_| path.ends_with("::") || path.is_empty()) else {
        found.push(path);
        return rest;
    };
    loop {
        rest = rest.trim_start_matches([',', ' ', '\n']);
        match rest.strip_prefix('}') {
            Some(after) => return after,
            None if rest.is_empty() => return rest,
            None => {
                let after = expand(rest, &path, found);
                // An alias, or what can't be read: passed over.
                rest = &after[after.find([',', '}']).unwrap_or(after.len())..];
            }
        }
    }
}

/// The module in which the path's item is.
fn module_of(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path.trim_end_matches("::");
    loop {
        if modules.contains(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(all: &[(&str, &[&str])]) -> Imports {
        all.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(ToString::to_string).collect())).collect()
    }

    #[test]
    fn paths_in_braces_are_read_one_by_one() {
        let text = "use crate::{\n    a::{self, B, c::D},\n    e,\n};\nlet x = crate::f::g(h);\nmycrate::no();\nuse super::i as j;";
        let mut found = paths(text, "k::l");
        found.sort();
        assert_eq!(found, ["a::B", "a::c::D", "a::self", "e", "f::g", "k::i"]);
    }

    #[test]
    fn circles_and_upward_imports_are_found() {
        let all =
            imports(&[("copy::a", &["mongo::b"]), ("mongo::b", &["copy::a"]), ("c", &["mongo::b"]), ("", &["c"])]);
        assert_eq!(circles(&all), [["copy::a", "mongo::b"]]);
        let told = ["c imports mongo::b", "mongo::b imports copy::a"];
        let found = upward(&all, ENGINE);
        assert!(found.len() == 2 && found.iter().zip(told).all(|(found, told)| found.contains(told)), "{found:?}");
        let all = imports(&[
            ("http::table::atlas", &["handlers::atlas::keys", "http::route"]),
            ("handlers::atlas::keys", &["http::context", "service", "http::table"]),
            ("auth::roles", &["http::render", "http::context"]),
        ]);
        let told = ["auth::roles imports http::context", "handlers::atlas::keys imports http::table"];
        let found = upward(&all, SERVER);
        assert!(found.len() == 2 && found.iter().zip(told).all(|(found, told)| found.contains(told)), "{found:?}");
    }

    #[test]
    fn all_imports_point_one_way() {
        check().expect("no circle, nothing upward");
    }
}
