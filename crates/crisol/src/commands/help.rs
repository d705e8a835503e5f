//! Help texts as files that are read as text: `crates/crisol/tests/snapshots/help/`.
//! `INSTA_UPDATE=always cargo test --bin crisol help` writes them again.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// The width at which help is laid out where there is no terminal.
const COLUMNS: usize = 100;

/// The names of a command and of all below it.
fn commands(command: &Command, name: &[String], found: &mut Vec<Vec<String>>) {
    found.push(name.to_owned());
    for below in command.get_subcommands() {
        commands(below, &[name, &[below.get_name().to_owned()]].concat(), found);
    }
}

/// Every command by its name, with what `--help` prints.
fn all() -> Vec<(String, String)> {
    let command = || Cli::command().term_width(COLUMNS);
    let mut found = Vec::new();
    commands(&command(), &["crisol".to_owned()], &mut found);
    let help = |name: Vec<String>| {
        let line = name.iter().map(String::as_str).chain(["--help"]);
        let help = command().try_get_matches_from(line).expect_err("help is no match").to_string();
        (name.join("-"), help)
    };
    found.into_iter().map(help).collect()
}

#[test]
fn help_texts() {
    insta::with_settings!({
        snapshot_path => "../../tests/snapshots/help",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        for (name, help) in all() {
            insta::assert_snapshot!(name, help);
        }
    });
}

#[test]
fn an_option_takes_one_line_and_no_line_is_wider_than_a_page() {
    for (name, help) in all() {
        let mut listing = false;
        for line in help.lines() {
            assert!(line.chars().count() <= COLUMNS, "{name}: {line}");
            match line {
                "Options:" | "Arguments:" | "Commands:" => listing = true,
                "" => listing = false,
                _ if listing => {
                    let indent = line.len() - line.trim_start().len();
                    assert!(indent <= 6, "{name}: more than a line for one option:\n{line}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn schemas_are_in_the_documentation() {
    let page = include_str!("../../../../docs/json.md");
    let mut commands = 0;
    for (name, help) in all().into_iter().filter(|(_, help)| help.contains("      --json")) {
        commands += 1;
        let heading = format!("## `{}`", name.replace('-', " "));
        assert!(help.contains("JSON: docs/json.md"), "{name} names no page");
        assert!(page.contains(&heading), "docs/json.md has no section {heading}");
    }
    assert!(commands >= 15, "{commands} commands with --json");
}
