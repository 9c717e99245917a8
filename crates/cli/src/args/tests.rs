use super::*;
use clap::CommandFactory;
use std::path::Path;

/// The words of a line as a shell would take them, up to what isn't the command's any more.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), letter) if letter == open => quote = None,
            (None, '#' | '>' | '|' | '&' | ';') if word.is_empty() => break,
            (None, ' ') => {
                if !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
            }
            (_, letter) => word.push(letter),
        }
    }
    all.extend((!word.is_empty()).then_some(word));
    all
}

#[test]
fn only_what_is_said_of_the_cutover_is_changed() {
    let said = |words: &[&str]| {
        let line = ["limosa", "migrations", "cutover"].iter().chain(words);
        match Arguments::try_parse_from(line).expect("is a command").command {
            Command::Migrations(Migrations::Cutover { how, .. }) => how,
            _ => panic!("another command"),
        }
    };
    let of = |block_source_writes, reversible| CutoverOptions { block_source_writes, reversible };
    assert_eq!(said(&[]).change(of(true, true)), None);
    assert_eq!(said(&["--reversible"]).change(of(true, false)), Some(of(true, true)));
    assert_eq!(said(&["--block-source-writes"]).change(of(false, true)), Some(of(true, true)));
    assert_eq!(said(&["--block-source-writes"]).change(of(true, true)), None);
    assert_eq!(said(&["--reversible=false", "--wait"]).change(of(true, true)), Some(of(true, false)));
    // What comes after it is the migration, not its value.
    assert_eq!(said(&["--reversible", "6721f0c5a1b2c3d4e5f60718"]).reversible, Some(true));
}

/// Names both clusters where the environment would.
fn add_ends(given: &mut Vec<String>) {
    let reads_ends = matches!(given.get(1).map(String::as_str), Some("migrate" | "check" | "verify"));
    if reads_ends && !given.iter().any(|word| word == "--source") {
        given.extend(["--source", "mongodb://a/", "--destination", "mongodb://b/"].map(str::to_owned));
    }
}

/// All verbs that do something, each with what leads to it.
fn verbs(of: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
    let visible = of.get_subcommands().filter(|verb| !verb.is_hide_set());
    let below: Vec<_> = visible.flat_map(|verb| verbs(verb, &format!("{path} {}", verb.get_name()))).collect();
    if below.is_empty() { vec![(path.to_owned(), of.clone())] } else { below }
}

#[test]
fn every_verb_has_examples_of_itself_that_can_be_typed() {
    for (path, verb) in verbs(&Arguments::command(), "limosa") {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let help: Vec<&str> = help.split("\\\n").map(str::trim_start).collect();
        let help = help.join(" ");
        let examples: Vec<&str> = help.lines().map(str::trim).filter(|line| line.starts_with("limosa ")).collect();
        assert!(examples.iter().any(|line| line.starts_with(&path)), "{path} --help shows no example of it");
        for line in examples {
            // What is told of it comes after some blanks.
            let mut given = words(line.split("    ").next().unwrap_or(line));
            add_ends(&mut given);
            let parsed = Arguments::try_parse_from(&given);
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }
}

#[test]
fn every_documented_command_is_one_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).expect("is there") {
        files.extend(Some(entry.expect("is readable").path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    let mut seen = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("is text").replace("\\\n", " ");
        let blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
        for line in blocks.map(str::trim).filter(|line| line.starts_with("limosa ")) {
            // A file that a source is read from is not here.
            let mut given = words(&line.replace("=@/", "=/"));
            add_ends(&mut given);
            let help = given.iter().any(|word| word == "--help" || word == "--version");
            let parsed = Arguments::try_parse_from(&given);
            assert!(
                help || parsed.is_ok(),
                "{}: {line}: {}",
                file.display(),
                parsed.err().map(|e| e.to_string()).unwrap_or_default()
            );
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} commands were found");
}
