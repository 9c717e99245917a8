//! What is said of arguments that can't be read. An argument that stands in the wrong place may be a URI with its
//! password, so what could be one isn't repeated.

use std::process::ExitCode;

/// The status of a wrong use, by the parser's convention.
const WRONG_USE: u8 = 2;

/// Says why the arguments were refused, or what was asked for by `--help` and `--version`.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let hidden = hide(&text);
    if !error.use_stderr() || hidden == text {
        error.exit()
    }
    crate::ui::say(hidden.trim_end());
    ExitCode::from(WRONG_USE)
}

/// Options whose values hold secrets.
const SECRETS: [&str; 5] = ["--source", "--destination", "--link-token", "--key", "--password"];

/// `text`, unless it repeats what may hold a secret: then only which option it is about, why, and how it is used.
fn hide(text: &str) -> String {
    let about = text.rfind("' for '--").map(|at| &text[at + "' for '".len()..]);
    let about = about.and_then(|about| about.split_once('\''));
    let is_secret = about.is_some_and(|(option, _)| SECRETS.iter().any(|secret| option.starts_with(secret)));
    if !is_secret && !quoted(text).contains([':', '/', '@', '&']) {
        return text.to_owned();
    }
    let mut out = match about {
        Some((option, why)) => {
            let why = why.lines().next().unwrap_or_default();
            format!("error: the value of '{option}' can't be read{why}")
        }
        None => "error: an argument is not in its place".to_owned(),
    };
    out.push_str("\nWhat was given isn't shown: it may hold a password.\n");
    for line in text.lines().filter(|line| line.starts_with("Usage:")) {
        out.push('\n');
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// What the parser quotes of what was given.
fn quoted(text: &str) -> &str {
    let rest = text.split_once('\'').map_or("", |(_, rest)| rest);
    let end = rest.rfind("' for '--").or_else(|| rest.rfind("' found")).or_else(|| rest.find("'\n"));
    let end = end.or_else(|| rest.find("\n\nUsage"));
    &rest[..end.unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Arguments;
    use clap::Parser;

    #[test]
    fn a_password_in_the_wrong_place_is_not_repeated() {
        for given in [
            &["migrate", "mongodb://u:hunter2@h/"][..],
            &["migrate", "--source", "mongodb://h/", "mongodb://u:hunter2@h/", "--destination", "mongodb://g/"],
            &["agent", "--server", "http://s", "--source", "mongodb://u:hunter2@h/"],
            &["agent", "--server", "http://s", "--source", "u:hunter2"],
            &["check", "--sorce=mongodb://u:hunter2@h/"],
        ] {
            let error = Arguments::try_parse_from(["limosa"].iter().chain(given)).map(drop).expect_err("is refused");
            let said = hide(&error.render().to_string());
            assert!(!said.contains("hunter2") && said.starts_with("error: "), "{given:?}: {said}");
        }
    }

    #[test]
    fn no_malformed_uri_is_repeated_wherever_it_stands() {
        for (number, text) in limosa_testkit::uris::malformed(99, 2_000).enumerate() {
            let given: Vec<&str> = match number % 4 {
                0 => vec!["limosa", "migrate", &text],
                1 => vec!["limosa", "agent", "--server", "http://s", "--host-name", "h", "--source", &text],
                2 => vec!["limosa", "check", "--source", &text, &text],
                _ => vec![
                    "limosa",
                    "verify",
                    "--source",
                    "mongodb://h",
                    "--destination",
                    "mongodb://h",
                    "--sample",
                    &text,
                ],
            };
            let Err(error) = Arguments::try_parse_from(given) else { continue };
            let said = hide(&error.render().to_string());
            assert_eq!(limosa_testkit::uris::leak(&said), None, "{text:?}: {said}");
        }
    }
}
