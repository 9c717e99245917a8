//! What is made of the command line's own description: completions, man pages, the reference in `docs/`.

use crate::{args::Arguments, error::CliError, ui};
use clap::{Arg, Command, CommandFactory};
use std::{fs, path::Path};

/// `limosa completions`
pub(crate) fn completions(shell: clap_complete::Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "limosa", &mut text);
    ui::print(String::from_utf8_lossy(&text).trim_end());
}

/// `limosa man`: a page for each verb.
pub(crate) fn man(dir: &Path) -> Result<(), CliError> {
    let error = |e| CliError::File(dir.to_owned(), e);
    fs::create_dir_all(dir).map_err(error)?;
    let mut command = Arguments::command();
    command.build();
    clap_mangen::generate_to(command, dir).map_err(error)?;
    ui::say(&format!("man pages are in {}", dir.display()));
    Ok(())
}

/// `limosa reference`: every verb with every option, in Markdown.
pub(crate) fn reference() {
    let mut command = Arguments::command();
    command.build();
    let mut text = String::from(
        "# Command reference\n\nMade of the program's own description by `limosa reference`; \
         a test compares both.\n",
    );
    describe(&command, "", &mut text);
    ui::print(text.trim_end());
}

fn describe(command: &Command, parents: &str, text: &mut String) {
    let name = format!("{parents}{}", command.get_name());
    if !parents.is_empty() {
        text.push_str(&format!("\n## `{name}`\n"));
        command.get_about().into_iter().for_each(|about| text.push_str(&format!("\n{about}.\n")));
        let all: Vec<&Arg> = command
            .get_arguments()
            .filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version"))
            .collect();
        if !all.is_empty() {
            text.push_str("\n| option | meaning | default | environment |\n|---|---|---|---|\n");
            all.iter().for_each(|arg| text.push_str(&row(arg)));
        }
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        describe(sub, &format!("{name} "), text);
    }
}

fn row(arg: &Arg) -> String {
    let value = arg.get_value_names().filter(|_| arg.get_action().takes_values()).and_then(<[_]>::first);
    let option = match (arg.get_long(), value) {
        (Some(long), Some(value)) if arg.is_require_equals_set() => format!("`--{long}[={value}]`"),
        (Some(long), Some(value)) => format!("`--{long} {value}`"),
        (Some(long), None) => format!("`--{long}`"),
        (None, value) => format!("`[{}]`", value.map_or("", |value| value.as_str())),
    };
    let choices: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values() && !arg.is_require_equals_set())
        .map(|v| format!("`{}`", v.get_name()))
        .collect();
    let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let meaning = if choices.is_empty() { meaning } else { format!("{meaning}: {}", choices.join(", ")) };
    let default: Vec<String> = arg.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
    let default = if arg.get_action().takes_values() { default.join(", ") } else { String::new() };
    let needed = if arg.is_required_set() && default.is_empty() { "required".to_owned() } else { default };
    let environment = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    format!("| {option} | {} | {needed} | {environment} |\n", meaning.replace('|', "\\|"))
}
