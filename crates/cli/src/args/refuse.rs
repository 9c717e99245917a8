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

/// `text` without values of options that hold secrets, and without lines that hold what looks like a URI.
fn hide(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let holds = ["--source", "--destination", "--link-token", "--key", "--password"];
        let value = line.find("invalid value '").zip(line.find("' for '--"));
        match value {
            Some((begin, end)) if holds.iter().any(|option| line[end..].contains(option)) => {
                out.push_str(&line[..begin + "invalid value".len()]);
                out.push_str(&line[end + 1..]);
            }
            _ if line.contains("://") || line.contains('@') => {
                let is_first = line.starts_with("error:");
                out.push_str(if is_first {
                    "error: an argument is not in its place; it isn't shown, since it may hold a password\n"
                } else {
                    ""
                });
            }
            _ => out.push_str(line),
        }
    }
    out
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
            assert!(!said.contains("hunter2") && said.contains("error: "), "{given:?}: {said}");
        }
    }
}
