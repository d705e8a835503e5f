//! Writing to the terminal: colours only where they are wanted, a closed pipe is not a panic, and
//! text of models and data files cannot take over the screen.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{IsTerminal as _, Write as _};

use crisol_report::{Layout, wrap};
use owo_colors::OwoColorize as _;

use crate::error::CliError;
use crate::language::language;

/// Columns that a report takes where there is no terminal to ask.
const COLUMNS: usize = 100;

/// Writes to standard output at once, without colours where it does not show them.
pub(crate) fn print(text: impl Display) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Output)
}

/// A line on standard output.
pub(crate) fn print_line(text: impl Display) -> Result<(), CliError> {
    print(format_args!("{text}\n"))
}

/// Plain data as indented JSON on standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let json =
        serde_json::to_string_pretty(value).expect("plain data with string keys always serialises");
    print_line(json)
}

/// A line on standard error. Nobody is left to tell when that fails.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Lines on standard error. A terminal gets them broken between words, the rest of a line below its
/// beginning; a file or pipe gets them as they are.
pub(crate) fn say_wrapped(text: &str) {
    let width = terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| width.0);
    match width {
        Some(width) => say(hanging(text, width.into())),
        None => say(text),
    }
}

/// Breaks lines between words; what follows a break is indented by two more columns.
fn hanging(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let bare = line.trim_start();
        let indent = " ".repeat(line.len() - bare.len());
        // All lines are as narrow as those with the deeper indent, whose first is put back.
        let room = width.saturating_sub(indent.len() + 2).max(20);
        let wrapped = wrap(bare, room);
        let deeper = |(at, line): (usize, &String)| {
            format!("{indent}{}{line}", if at == 0 { "" } else { "  " })
        };
        lines.extend(wrapped.iter().enumerate().map(deeper));
    }
    lines.join("\n")
}

/// The beginning of a line on standard error, which the user completes.
pub(crate) fn ask(prompt: &str) {
    let mut error = anstream::stderr();
    let _ = error.write_all(prompt.as_bytes()).and_then(|()| error.flush());
}

/// How a report is laid out on standard output.
pub(crate) fn layout() -> Layout {
    let width = terminal_size::terminal_size_of(std::io::stdout())
        .map_or(COLUMNS, |(width, _)| width.0.into());
    Layout { width, colour: colour(), language: language() }
}

/// Whether standard output shows colours (`NO_COLOR`, `CLICOLOR_FORCE` and pipes are respected).
pub(crate) fn colour() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Text of a model as standard output gets it: as it is for a program, harmless for a terminal.
pub(crate) fn for_stdout(text: &str) -> Cow<'_, str> {
    if std::io::stdout().is_terminal() { Cow::Owned(harmless(text)) } else { Cow::Borrowed(text) }
}

/// Text without control characters, which could move the cursor or change colours; lines and tabs
/// stay.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// Columns of the names in [`named_rows`].
const NAMES: usize = 14;

/// Rows of a name and what is to be said, which goes on below itself where it is longer than a
/// line.
pub(crate) fn named_rows(rows: &[(&str, String)]) -> String {
    let Layout { width, colour, .. } = layout();
    let mut out = String::new();
    for (name, what) in rows {
        let name = format!("{name:<NAMES$}");
        let mut name = if colour { name.dimmed().to_string() } else { name };
        // No-break spaces are for layouts that break lines by themselves.
        let what = harmless(what).replace('\u{a0}', " ");
        for line in wrap(&what, width.saturating_sub(NAMES + 1).max(NAMES)) {
            let _ = writeln!(out, "{name} {line}");
            name = " ".repeat(NAMES);
        }
    }
    out
}

/// A path or word as a shell takes it.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["runs/a-1.2", "two words", "it's", "", "$(boo)", "a;b"] {
            let mut shell = std::process::Command::new("sh");
            let echoed = shell
                .args(["-c", &format!("printf %s {}", shell_word(word))])
                .output()
                .expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&echoed.stdout), word);
        }
        assert_eq!(shell_word("runs/a-1.2"), "runs/a-1.2");
    }

    #[test]
    fn lines_are_broken_between_words_and_hang() {
        let text = "  note: one two three four five six\nseven";
        assert_eq!(hanging(text, 24), "  note: one two three\n    four five six\nseven");
        assert_eq!(hanging("short", 80), "short");
    }

    #[test]
    fn control_characters_are_dropped() {
        assert_eq!(harmless("a\x1b[31mb\r\n\tc\u{9b}2J"), "a[31mb\n\tc2J");
    }
}
