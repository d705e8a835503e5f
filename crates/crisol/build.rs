//! What `crisol --version` says of the build beside the version: commit, target, features.

use std::path::Path;
use std::process::Command;

fn main() {
    // Without such a line every changed file of the crate would run this again.
    println!("cargo::rerun-if-changed=build.rs");
    let commit = commit_of_git().or_else(commit_of_package).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=CRISOL_COMMIT={commit}");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo::rustc-env=CRISOL_TARGET={target}");
    println!("cargo::rustc-env=CRISOL_FEATURES={}", features());
}

/// The commit of the repository that this crate is a part of.
fn commit_of_git() -> Option<String> {
    // A copy without git can lie in a repository of somebody else's.
    if git(&["rev-parse", "--show-prefix"])? != "crates/crisol/" {
        return None;
    }
    // The log of HEAD grows whenever HEAD is another commit, by whatever command. HEAD itself names
    // a branch and stays as it is. A file that does not exist would run this in every build.
    for file in ["logs/HEAD", "HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

/// The commit that `cargo package` noted in a crate.
fn commit_of_package() -> Option<String> {
    let noted = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let commit = noted.split_once("\"sha1\"")?.1.split('"').nth(1)?;
    Some(commit.to_owned())
}

/// The enabled features but `default`, by name.
fn features() -> String {
    let names = std::env::vars().filter_map(|(name, _)| {
        let feature = name.strip_prefix("CARGO_FEATURE_")?.to_lowercase();
        (feature != "default").then_some(feature)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// One line that git prints, or nothing where there is no git or it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| line.trim().to_owned())
}
