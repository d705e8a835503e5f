//! The pages and the sources as text: width of lines, links, paths, names of tests, commands, and
//! pages in Spanish beside their English twins.
//!
//! Prose, code and comments have at most 100 columns. A row of a Markdown table is one line by its
//! grammar: it has at most 200, two lines of a terminal. A line without a space (an address) cannot
//! be broken and is let through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const WIDTH: usize = 100;
const TABLE_WIDTH: usize = 200;
const README_LINES: usize = 150;

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

/// What a page tells the reader to type is a command of this program, with options that it has.
#[test]
fn commands_on_pages_exist() {
    let mut helps = Helps::default();
    let mut unknown = Vec::new();
    let mut found = 0;
    for page in pages().into_iter().filter(|page| !page.name.contains("-log.md")) {
        for (number, words) in commands_of(&page.text) {
            found += 1;
            let problems = unknown_in(&words, |command| helps.of(command));
            unknown
                .extend(problems.into_iter().map(|what| format!("{}:{number}: {what}", page.name)));
        }
    }
    assert!(unknown.is_empty(), "no such command or option:\n{}", unknown.join("\n"));
    assert!(found > 150, "only {found} commands were found: are they still recognised?");
}

/// `README.es.md` and `docs/es/X.md` have the headings of `README.md` and `docs/X.md`, level by
/// level. Each page of a pair links to the other in its first lines.
#[test]
fn pages_in_spanish_have_the_headings_of_their_twins() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut pairs = 0;
    for page in &pages {
        let Some(name) = english_twin(&page.name) else { continue };
        let Some(twin) = pages.iter().find(|other| other.name == name) else {
            wrong.push(format!("{}: there is no {name}", page.name));
            continue;
        };
        pairs += 1;
        wrong.extend(headings_differ(page, twin));
        for (from, to) in [(page, twin), (twin, page)] {
            let linked = links_of(&from.text)
                .iter()
                .any(|(number, target)| *number <= 5 && beside(&from.name, target) == to.name);
            if !linked {
                wrong.push(format!("{}: no link to {} in its first lines", from.name, to.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(pairs >= 9, "only {pairs} pages in Spanish were found");
}

/// Names are not translated: what a page in Spanish sets as code, an English page has as code too.
#[test]
fn pages_in_spanish_keep_names() {
    let (spanish, english): (Vec<Page>, Vec<Page>) =
        pages().into_iter().partition(|page| english_twin(&page.name).is_some());
    let spans: BTreeSet<String> = english
        .iter()
        .flat_map(|page| code_spans(&page.text))
        .map(|(_, span)| span)
        .chain(english.iter().flat_map(|page| commands_of(&page.text)).flat_map(|(_, words)| words))
        .collect();
    let mut unknown = Vec::new();
    for page in &spanish {
        for (number, span) in code_spans(&page.text) {
            if !spans.contains(&span) {
                unknown.push(format!("{}:{number}: `{span}`", page.name));
            }
        }
    }
    assert!(unknown.is_empty(), "code that no English page has:\n{}", unknown.join("\n"));
}

#[test]
fn readmes_are_short() {
    for page in pages().iter().filter(|page| ["README.md", "README.es.md"].contains(&&*page.name)) {
        let lines = page.text.lines().count();
        assert!(lines <= README_LINES, "{} has {lines} lines", page.name);
    }
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

#[test]
fn commands_are_found_and_checked() {
    let page = "Type `crisol a b` or `crisol-x/`.\n```sh\ncrisol a --x='1 | 2' \\\n  --y  # why\n\
                cargo run --release -- c && jq . | crisol d\n```\n```text\ncrisol no\n```\n";
    let commands = commands_of(page);
    let lines: Vec<_> = commands.iter().map(|(number, words)| (*number, words.join(" "))).collect();
    let expected = [(1, "a b"), (4, "a --x=1 | 2 --y"), (5, "c"), (5, "d")];
    assert_eq!(lines, expected.map(|(number, words)| (number, words.to_owned())));

    let help = |command: &[String]| {
        match command.join(" ").as_str() {
            "" => "Usage: crisol <COMMAND>\n\nCommands:\n  sft   Tune\n  data  Look\n\nOptions:\n",
            "data" => {
                "Usage: crisol data [OPTIONS] <COMMAND>\n\nCommands:\n  show  Show\n\nOptions:\n"
            }
            _ => "Usage: crisol sft <MODEL>\n\nOptions:\n  -h, --help  Help\n      --lora[=<R>]\n",
        }
        .to_owned()
    };
    let unknown = |line: &str| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        unknown_in(&words, help)
    };
    let nothing: [&str; 0] = [];
    assert_eq!(unknown("sft MODEL --lora=8 --help"), nothing);
    assert_eq!(unknown("data show"), nothing);
    assert_eq!(unknown("stf MODEL"), ["crisol stf"]);
    assert_eq!(unknown("data shw"), ["crisol data shw"]);
    assert_eq!(unknown("sft MODEL --lor"), ["crisol sft --lor"]);
}

#[test]
fn headings_of_twins_are_compared() {
    let page = |name: &str, text: &str| Page { name: name.to_owned(), text: text.to_owned() };
    let english = page("docs/a.md", "# A\n## B\n```sh\n# no heading\n```\n### C\n");
    let differ = |text| headings_differ(&page("docs/es/a.md", text), &english);
    assert_eq!(differ("# Á\n## Bé\n### Ce\n"), None);
    for other in ["# Á\n## Bé\n## Ce\n", "# Á\n## Bé\n", "# Á\n## Bé\n### Ce\n## De\n"] {
        assert!(differ(other).is_some(), "{other}");
    }
    assert_eq!(english_twin("README.es.md").as_deref(), Some("README.md"));
    assert_eq!(english_twin("docs/es/a.md").as_deref(), Some("docs/a.md"));
    assert_eq!(english_twin("docs/a.md"), None);
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

/// The page that a page in Spanish stands beside; none for a page in English.
fn english_twin(name: &str) -> Option<String> {
    if let Some(page) = name.strip_prefix("docs/es/") {
        return Some(format!("docs/{page}"));
    }
    name.strip_suffix(".es.md").map(|page| format!("{page}.md"))
}

/// The first heading whose level is not that of its twin.
fn headings_differ(page: &Page, twin: &Page) -> Option<String> {
    let (own, wanted) = (headings(&page.text), headings(&twin.text));
    let level = |heading: &&str| heading.chars().take_while(|&c| c == '#').count();
    let at = (0..own.len().max(wanted.len()))
        .find(|&at| own.get(at).map(level) != wanted.get(at).map(level))?;
    let name = |headings: &[&str]| (*headings.get(at).unwrap_or(&"none")).to_owned();
    Some(format!(
        "{}: heading {} is \"{}\", in {} \"{}\"",
        page.name,
        at + 1,
        name(&own),
        twin.name,
        name(&wanted)
    ))
}

fn headings(text: &str) -> Vec<&str> {
    prose(text).map(|(_, line)| line).filter(|line| line.starts_with('#')).collect()
}

/// What this program says of its commands, each asked once.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, String>);

impl Helps {
    fn of(&mut self, command: &[String]) -> String {
        let ask = || {
            let output = Command::new(env!("CARGO_BIN_EXE_crisol"))
                .args(command)
                .arg("--help")
                .output()
                .expect("the program starts");
            String::from_utf8(output.stdout).expect("help is UTF-8")
        };
        self.0.entry(command.to_owned()).or_insert_with(ask).clone()
    }
}

/// Command and options of a line that the program does not have. `help` gives the help of a
/// command, by the words after `crisol`.
fn unknown_in(words: &[String], mut help: impl FnMut(&[String]) -> String) -> Vec<String> {
    let mut known = 0;
    let mut text = help(&[]);
    while words.get(known).is_some_and(|word| subcommands(&text).contains(&word.as_str())) {
        known += 1;
        text = help(&words[..known]);
    }
    let (command, rest) = words.split_at(known);
    let name = ["crisol"].into_iter().chain(command.iter().map(String::as_str));
    let name = name.collect::<Vec<_>>().join(" ");
    let usage = format!("Usage: {name} <COMMAND>");
    let takes_command = text.lines().any(|line| line.replace(" [OPTIONS]", "") == usage);
    let wrong = |word: &&String| {
        let option = word.split('=').next().unwrap_or(word);
        option.starts_with("--") && !options(&text).contains(&option)
    };
    let misspelt = rest.first().filter(|word| takes_command && !word.starts_with('-'));
    misspelt
        .into_iter()
        .map(|word| format!("{name} {word}"))
        .chain(rest.iter().filter(wrong).map(|word| format!("{name} {word}")))
        .collect()
}

/// The names under `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<&str> {
    let section = help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    section
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// The options of a help text, as `--name`.
fn options(help: &str) -> Vec<&str> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split_whitespace().take(2))
        .filter_map(|word| word.split(['=', '[', ',']).next())
        .filter(|word| word.starts_with("--"))
        .collect()
}

/// The words after `crisol` of each command in shell blocks and code spans, with the number of the
/// line where it ends.
fn commands_of(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut lines = code_spans(text);
    lines.extend(shell_lines(text));
    lines.sort_by_key(|(number, _)| *number);
    lines
        .into_iter()
        .flat_map(|(number, line)| shell_words(&line).into_iter().map(move |words| (number, words)))
        .filter_map(|(number, words)| {
            let own = ["crisol".to_owned()];
            let built = ["cargo", "run", "--release", "--"].map(str::to_owned);
            let rest = words.strip_prefix(&own[..]).or_else(|| words.strip_prefix(&built[..]))?;
            (!rest.is_empty()).then(|| (number, rest.to_vec()))
        })
        .collect()
}

/// The lines of fenced blocks marked `sh`. A line that goes on with `\` is joined with the next.
fn shell_lines(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence = None;
    let mut begun = String::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language) };
        } else if fence == Some("sh") {
            if let Some(part) = line.strip_suffix('\\') {
                begun.push_str(part);
            } else {
                found.push((number + 1, std::mem::take(&mut begun) + line));
            }
        }
    }
    found
}

/// The commands of a shell line, each as its words. `|`, `&` and `;` part commands, `#` begins a
/// comment, and quotes hold their text together.
fn shell_words(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        let parts = "|&;".contains(c);
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, _) if c.is_whitespace() || parts => {
                commands.last_mut().expect("there is always one").extend(word.take());
                if parts {
                    commands.push(Vec::new());
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().expect("there is always one").extend(word);
    commands.retain(|words| !words.is_empty());
    commands
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
