//! What those who package the program use: its version, manual pages, completions.

use std::process::Command;

use crate::fixture::{Bench, short_recipe};

#[test]
fn the_long_version_names_commit_target_and_features() {
    let bench = Bench::new(&short_recipe(""));
    let version = bench.crisol(&["--version"]).ok();
    let lines: Vec<&str> = version.lines().collect();
    let [name, commit, target, features] = lines[..] else { panic!("{version}") };
    assert_eq!(name, concat!("crisol ", env!("CARGO_PKG_VERSION")));
    assert_eq!(commit.strip_prefix("commit: "), Some(commit_here().as_str()));
    assert!(target.strip_prefix("target: ").is_some_and(|triple| {
        triple.starts_with(std::env::consts::ARCH) && triple.split('-').count() >= 3
    }));
    let features = features.strip_prefix("features: ").expect("the line of features");
    for (name, is_on) in [("hub", cfg!(feature = "hub")), ("parquet", cfg!(feature = "parquet"))] {
        assert_eq!(features.split(", ").any(|feature| feature == name), is_on, "{features}");
    }
    assert_eq!(bench.crisol(&["-V"]).ok(), format!("{name}\n"));
}

/// The commit of this repository, or what is said where there is none.
fn commit_here() -> String {
    let git = |arguments: &[&str]| {
        let folder = env!("CARGO_MANIFEST_DIR");
        let output = Command::new("git").args(arguments).current_dir(folder).output().ok()?;
        let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        output.status.success().then_some(line)
    };
    let is_ours = git(&["rev-parse", "--show-prefix"]).is_some_and(|at| at == "crates/crisol/");
    let commit = if is_ours { git(&["rev-parse", "HEAD"]) } else { None };
    commit.unwrap_or_else(|| "unknown".to_owned())
}

#[test]
fn every_command_has_a_manual_page_and_a_completion() {
    let bench = Bench::new(&short_recipe(""));
    bench.crisol(&["man", "man/man1"]).ok();
    let help = bench.crisol(&["--help"]).ok();
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let completions = bench.crisol(&["completions", "bash"]).ok();
    let mut found = 0;
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().expect("a command's name");
        if name == "help" {
            continue;
        }
        found += 1;
        let page = bench.path(&format!("man/man1/crisol-{name}.1"));
        let page = std::fs::read_to_string(page).expect("a page of the command");
        assert!(page.starts_with(".ie") && page.contains(".SH OPTIONS"), "{name}: {page}");
        assert!(completions.contains(&format!("crisol__subcmd__{name}")), "{name}");
    }
    assert!(found > 20, "{found} commands");
    let page = std::fs::read_to_string(bench.path("man/man1/crisol.1")).unwrap();
    assert!(page.contains("sft"), "{page}");
}
