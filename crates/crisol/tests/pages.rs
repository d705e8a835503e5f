//! The pages and the sources as text: width of lines, links, paths and names of tests.
//!
//! Prose, code and comments have at most 100 columns. A row of a Markdown table is one line by its
//! grammar: it has at most 200, two lines of a terminal. A line without a space (an address) cannot
//! be broken and is let through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const WIDTH: usize = 100;
const TABLE_WIDTH: usize = 200;

/// Whole files of Markdown that a test reads.
struct Page {
    /// Relative to the repository's root, with `/`.
    name: String,
    text: String,
}

#[test]
fn lines_of_markdown_fit() {
    let mut wide = Vec::new();
    for page in pages() {
        for (number, line) in page.text.lines().enumerate() {
            let is_row = line.trim_start().starts_with('|');
            let most = if is_row { TABLE_WIDTH } else { WIDTH };
            if too_wide(line, most) {
                wide.push(format!("{}:{}: over {most} columns", page.name, number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}

#[test]
fn comments_fit() {
    let mut wide = Vec::new();
    for (extension, mark) in [("rs", "//"), ("py", "#"), ("toml", "#"), ("sh", "#")] {
        for file in sources(extension) {
            let text = fs::read_to_string(root().join(&file)).expect("a source is UTF-8");
            for (number, line) in text.lines().enumerate() {
                if line.trim_start().starts_with(mark) && too_wide(line, WIDTH) {
                    wide.push(format!("{file}:{}: over {WIDTH} columns", number + 1));
                }
            }
        }
    }
    assert!(wide.is_empty(), "{} lines\n{}", wide.len(), wide.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.name.as_str(), anchors(&page.text))).collect();
    let mut dead = Vec::new();
    let mut links = 0;
    for page in &pages {
        for (number, target) in links_of(&page.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if path.is_empty() { page.name.clone() } else { beside(&page.name, path) };
            let file_exists = root().join(&path).exists();
            let anchor_exists = anchor.is_empty()
                || anchors.get(path.as_str()).is_some_and(|known| known.contains(anchor));
            if !file_exists || !anchor_exists {
                dead.push(format!("{}:{number}: {target}", page.name));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
    assert!(links > 50, "only {links} links were found: are they still recognised?");
}

/// `crisol-x/src/y.rs`, `tests/golden/z.py`, …: what a page names exists, at the root or in
/// `crates/`.
#[test]
fn paths_on_pages_exist() {
    let places = ["crisol", "crates/", "fuzz/", "tests/golden/", "bench/peers/", "docs/"];
    let endings = [".rs", ".py", ".toml", ".md", "/"];
    let mut missing = Vec::new();
    let mut paths = 0;
    for page in pages().into_iter().filter(|page| !page.name.contains("-log.md")) {
        for (number, span) in code_spans(&page.text) {
            let is_path = span.contains('/')
                && places.iter().any(|place| span.starts_with(place))
                && endings.iter().any(|ending| span.ends_with(ending))
                && !span.contains([' ', '*', '{', '…', '<']);
            if !is_path {
                continue;
            }
            paths += 1;
            if !root().join(&span).exists() && !root().join("crates").join(&span).exists() {
                missing.push(format!("{}:{number}: {span}", page.name));
            }
        }
    }
    assert!(missing.is_empty(), "paths that do not exist:\n{}", missing.join("\n"));
    assert!(paths > 50, "only {paths} paths were found: are they still recognised?");
}

/// Each test that the design page names as the holder of an invariant is there.
#[test]
fn tests_on_the_design_page_exist() {
    let sources: String = sources("rs")
        .iter()
        .map(|file| fs::read_to_string(root().join(file)).expect("a source is UTF-8"))
        .collect();
    let design = fs::read_to_string(root().join("docs/design.md")).expect("the design page");
    let section = design.split("\n## ").find(|section| section.starts_with("Invariants"));
    let names: Vec<String> = code_spans(section.expect("a section on invariants"))
        .into_iter()
        .map(|(_, span)| span)
        .filter(|span| span.contains('_') && !span.contains(['/', '.']))
        .collect();
    assert!(names.len() > 20, "only {} tests are named", names.len());
    let missing: Vec<_> =
        names.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:?}");
}

#[test]
fn rules_of_this_file_hold_for_a_page_of_their_own() {
    assert!(too_wide(&"wide ".repeat(21), WIDTH));
    assert!(!too_wide(&"é".repeat(WIDTH), WIDTH), "columns are characters, not bytes");
    assert!(!too_wide(&format!("https://{}", "a".repeat(120)), WIDTH));
    let page = "# One `two`, three\n## One two three\n```sh\n# no heading [no](link.md)\n```\n\
                [a](b.md#c) and `[not](this.md)`, ![d](e.png)\n[f]: g.md\n";
    assert_eq!(anchors(page), ["one-two-three", "one-two-three-1"].map(str::to_owned).into());
    let links: Vec<_> = links_of(page).into_iter().map(|(_, target)| target).collect();
    assert_eq!(links, ["b.md#c", "e.png", "g.md"]);
    assert_eq!(beside("docs/a.md", "../crates/b.rs"), "crates/b.rs");
    assert_eq!(beside("README.md", "docs/a.md"), "docs/a.md");
}

fn too_wide(line: &str, most: usize) -> bool {
    line.chars().count() > most && line.trim().contains(' ')
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Vec<Page> {
    let pages: Vec<Page> = sources("md")
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(root().join(&name)).expect("a page is UTF-8");
            Page { name, text }
        })
        .collect();
    assert!(
        pages.iter().any(|page| page.name == "README.md"),
        "the repository's root is elsewhere"
    );
    pages
}

/// Files of the repository that end so, sorted. What cargo and git keep is left out.
fn sources(extension: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of a folder").path();
            let name =
                path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if path.is_dir() {
                let built = ["target", "runs", "corpus", "artifacts"].contains(&name.as_str());
                if !built && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let path = path.strip_prefix(root()).expect("it lies below the root");
                let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
                files.push(parts.join("/"));
            }
        }
    }
    files.sort();
    files
}

/// The lines outside of fenced blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

/// Headings as a forge names them: lower case, spaces to hyphens, punctuation gone, repeats
/// counted.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let Some(heading) = line.strip_prefix('#') else { continue };
        let slug: String = heading
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|&c| c.is_alphanumeric() || "-_ ".contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let repeats = (1..).map(|repeat| format!("{slug}-{repeat}"));
        let free =
            std::iter::once(slug.clone()).chain(repeats).find(|name| !anchors.contains(name));
        anchors.insert(free.expect("numbers do not end"));
    }
    anchors
}

/// Targets of inline links, images and definitions, with their lines.
fn links_of(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for part in outside_code.split("](").skip(1) {
            let target = part.split(')').next().expect("a split has a first part");
            links.push((number, target.split(' ').next().unwrap_or(target).to_owned()));
        }
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            links.push((number, target.trim().to_owned()));
        }
    }
    links
}

fn code_spans(text: &str) -> Vec<(usize, String)> {
    prose(text)
        .flat_map(|(number, line)| {
            line.split('`').skip(1).step_by(2).map(move |span| (number, span.to_owned()))
        })
        .collect()
}

/// `path`, which a page names, relative to the root.
fn beside(page: &str, path: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
