//! `crisol chat` on a terminal and in a pipe.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::fixture::{Bench, Finished, LOCALE, checkpoint, fed};

fn piped(bench: &Bench, input: &str) -> Finished {
    fed(&mut bench.command(&["chat", &checkpoint("2-sft"), "--max-new-tokens", "8"]), input)
}

/// Programs get answers and nothing else on standard output: no header, no prompt, no colours.
#[test]
fn commands_work_in_a_pipe() {
    let bench = Bench::new("");
    let plain = piped(&bench, "Ana has 1 apples and gets 2. How many?\n").ok();
    assert_eq!(plain.lines().count(), 1, "{plain:?}");
    let said = piped(
        &bench,
        "/help\n/nope\n/system Be brief.\nAna has 1 apples and gets 2. How many?\n/system\nAna has 1 apples and gets 2. How many?\n",
    );
    for part in [
        "/reset        forget",
        "there is no /nope; /help lists",
        "with this system message",
        "without system message",
    ] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    let answers = said.ok();
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    // A new conversation without a system message is the first one again.
    assert_eq!(answers[1], plain.trim_end_matches('\n'));
    assert!(!plain.contains('\u{1b}'));
}

/// The header, line editing with a history, and Ctrl-C and Ctrl-D at the prompt. `script` gives the
/// program a terminal.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "util-linux's script is needed")]
fn a_terminal_gets_a_header_and_line_editing() {
    let bench = Bench::new("");
    let model = checkpoint("5-ppo");
    let chat = format!("'{}' chat '{model}' --threads 1", env!("CARGO_BIN_EXE_crisol"));
    let mut terminal = Command::new("timeout");
    for variable in LOCALE {
        terminal.env_remove(variable);
    }
    let mut child = terminal
        .args(["60", "script", "-qec", &chat, "/dev/null"])
        .current_dir(bench.path(""))
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there are timeout and script");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut stdout = child.stdout.take().expect("it is piped");
    // Reads until something is shown. At the end of the output it never will be.
    let mut until = |wanted: &str| {
        let mut shown = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&shown).contains(wanted) {
            let read = stdout.read(&mut byte).expect("the terminal can be read");
            assert!(read > 0, "no {wanted:?} in {}", String::from_utf8_lossy(&shown));
            shown.extend(byte);
        }
        String::from_utf8(shown).expect("the output is UTF-8")
    };
    let mut keys = |keys: &str| stdin.write_all(keys.as_bytes()).expect("the terminal is open");
    let header = until("> ");
    for part in ["phases", "pretrain → sft → reason → ppo", "against a reward model", "/help"]
    {
        assert!(header.contains(part), "{part}: {header}");
    }
    keys("/help\r");
    until("Ctrl-C        stop the answer");
    until("> ");
    keys("/nope\r");
    until("there is no /nope");
    until("> ");
    // The arrow brings back the last line.
    keys("\u{1b}[A\r");
    until("there is no /nope");
    until("> ");
    keys("half a line\u{3}");
    until("Ctrl-D or /quit leaves");
    until("> ");
    keys("\u{4}");
    let ended = child.wait().expect("it ends");
    assert!(ended.success(), "{ended}");
}
