//! Parses the configs of a data set's card (`README.md`), a list in its YAML front matter.
//!
//! ```text
//! ---
//! configs:
//! - config_name: main
//!   default: true
//!   data_files:
//!   - split: train
//!     path: main/train-*
//! ---
//! ```
//!
//! Supports the subset of YAML that such lists use: nested lists and mappings by indentation, lists
//! in brackets, plain and quoted scalars. Everything else is an error, since a wrong guess would
//! train on other files.

use serde_json::{Map, Value};

/// Maximum nesting; cards have four levels.
const MAX_DEPTH: usize = 16;
const TOO_DEEP: &str = "`configs` is nested too deeply";

/// One config of a card.
#[derive(Debug, PartialEq)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) is_default: bool,
    /// Folder of its files.
    pub(super) folder: String,
    /// File patterns by split; empty if file names determine the splits.
    pub(super) files: Vec<(String, Vec<String>)>,
}

/// The configs of a card; empty if it has none. Errors name the line that is not understood.
pub(super) fn configs(card: &str) -> Result<Vec<Config>, String> {
    let card = card.trim_start_matches('\u{feff}');
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Ok(vec![]);
    }
    let mut found: Vec<(usize, &str)> = vec![];
    let mut inside = false;
    for (number, line) in (2..).zip(lines) {
        if line.trim_end() == "---" {
            break;
        }
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let is_key = !line.starts_with([' ', '\t', '-']);
        if is_key {
            inside = line.starts_with("configs:");
        }
        if inside {
            found.push((number, line.trim_end()));
        }
    }
    if found.is_empty() {
        return Ok(vec![]);
    }
    let mut reader = Reader { lines: found.into(), depth: 0 };
    let Value::Object(mut map) = reader.mapping(0)? else { return Ok(vec![]) };
    if let Some((number, line)) = reader.lines.front() {
        return Err(not_read(*number, line));
    }
    match map.remove("configs") {
        Some(Value::Array(list)) => list.iter().map(config).collect(),
        Some(Value::Null) | None => Ok(vec![]),
        Some(_) => Err("`configs` is not a list".to_owned()),
    }
}

fn config(value: &Value) -> Result<Config, String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().trim_matches('/').to_owned();
    if !value.is_object() {
        return Err("an entry of `configs` is not a mapping".to_owned());
    }
    let name = match text("config_name") {
        name if name.is_empty() => "default".to_owned(),
        name => name,
    };
    if !super::name::is_config(&name) {
        return Err(format!("a config is called {name:?}"));
    }
    let wrong = |problem: &str| format!("`data_files` of config {name}: {problem}");
    let patterns = |value: &Value| -> Result<Vec<String>, String> {
        let one = |value: &Value| {
            let pattern = value.as_str().ok_or_else(|| wrong("a path is not a string"))?;
            if pattern.contains("://") {
                return Err(wrong(&format!(
                    "{pattern:?} lies outside of the repository, which is not read"
                )));
            }
            Ok(pattern.trim_start_matches("./").to_owned())
        };
        match value {
            Value::Array(list) => list.iter().map(one).collect(),
            one_value => Ok(vec![one(one_value)?]),
        }
    };
    let mut files: Vec<(String, Vec<String>)> = vec![];
    match &value["data_files"] {
        Value::Null => {}
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for entry in list {
                let split = entry["split"].as_str().unwrap_or("train");
                files.push((split.to_owned(), patterns(&entry["path"])?));
            }
        }
        Value::Object(map) => {
            for (split, value) in map {
                files.push((split.clone(), patterns(value)?));
            }
        }
        other => files.push(("train".to_owned(), patterns(other)?)),
    }
    if let Some((split, _)) = files.iter().find(|(split, _)| !super::name::is_split(split)) {
        return Err(wrong(&format!("a split is called {split:?}")));
    }
    Ok(Config {
        is_default: value["default"].as_str() == Some("true"),
        folder: text("data_dir"),
        files,
        name,
    })
}

/// The remaining lines, with their line numbers.
struct Reader<'a> {
    lines: std::collections::VecDeque<(usize, &'a str)>,
    depth: usize,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

impl<'a> Reader<'a> {
    /// Parses the value nested at indentation `least` or deeper.
    fn nested(&mut self, least: usize) -> Result<Value, String> {
        match self.lines.front() {
            Some((_, line)) if indent(line) >= least => {
                let at = indent(line);
                if is_item(&line[at..]) { self.list(at) } else { self.deeper(at) }
            }
            _ => Ok(Value::Null),
        }
    }

    fn deeper(&mut self, at: usize) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        let value = self.mapping(at)?;
        self.depth -= 1;
        Ok(value)
    }

    fn list(&mut self, at: usize) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        let mut list = vec![];
        while let Some((number, line)) = self.next_at(at, true)? {
            let rest = line[at + 1..].trim_start();
            list.push(if rest.is_empty() {
                self.nested(at + 1)?
            } else if key(rest).is_some() {
                // A mapping that starts on the line of the dash.
                let inner = line.len() - rest.len();
                let entry = self.entry(number, rest, inner)?;
                let mut map = Map::from_iter([entry]);
                if let Some(&(_, next)) = self.lines.front()
                    && indent(next) == inner
                    && let Value::Object(more) = self.mapping(inner)?
                {
                    map.extend(more);
                }
                Value::Object(map)
            } else {
                scalar(number, rest)?
            });
        }
        self.depth -= 1;
        Ok(Value::Array(list))
    }

    fn mapping(&mut self, at: usize) -> Result<Value, String> {
        let mut map = Map::new();
        while let Some((number, line)) = self.next_at(at, false)? {
            let (name, value) = self.entry(number, &line[at..], at)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }

    /// Parses a key and its value, on its line or below. A list can be indented like its key.
    fn entry(&mut self, number: usize, text: &str, at: usize) -> Result<(String, Value), String> {
        let (name, rest) = key(text).ok_or_else(|| not_read(number, text))?;
        if !without_comment(rest).is_empty() {
            return Ok((name, scalar(number, rest)?));
        }
        let list_here =
            self.lines.front().is_some_and(|(_, line)| indent(line) == at && is_item(&line[at..]));
        Ok((name, if list_here { self.list(at)? } else { self.nested(at + 1)? }))
    }

    /// Takes the next line of a list or mapping at this indentation.
    fn next_at(&mut self, at: usize, item: bool) -> Result<Option<(usize, &'a str)>, String> {
        let Some(&(number, line)) = self.lines.front() else { return Ok(None) };
        if indent(line) > at {
            return Err(not_read(number, line));
        }
        if indent(line) < at || is_item(&line[at..]) != item {
            return Ok(None);
        }
        self.lines.pop_front();
        Ok(Some((number, line)))
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// `key:` or `key: rest`.
fn key(text: &str) -> Option<(String, &str)> {
    let (name, rest) = text.split_once(':')?;
    let name = name.trim().trim_matches(['"', '\'']);
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-. ".contains(c));
    (plain && (rest.is_empty() || rest.starts_with(' '))).then(|| (name.to_owned(), rest.trim()))
}

fn without_comment(text: &str) -> &str {
    if text.starts_with('#') { "" } else { text.split(" #").next().unwrap_or_default().trim() }
}

/// A scalar, or a list of scalars in brackets.
fn scalar(number: usize, text: &str) -> Result<Value, String> {
    if let Some(quote) = text.chars().next().filter(|c| "\"'".contains(*c)) {
        let (word, rest) = text[1..].split_once(quote).ok_or_else(|| not_read(number, text))?;
        let whole = without_comment(rest.trim()).is_empty() && !word.contains('\\');
        return if whole { Ok(word.into()) } else { Err(not_read(number, text)) };
    }
    let text = without_comment(text);
    if let Some(list) = text.strip_prefix('[') {
        let list = list.strip_suffix(']').ok_or_else(|| not_read(number, text))?;
        let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
        return words
            .map(|word| {
                if word.contains('[') { Err(not_read(number, text)) } else { scalar(number, word) }
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array);
    }
    if text.starts_with(['{', '&', '!', '|', '>', '%', '@', '`'])
        || text.starts_with('*') && !text.contains(['/', '.'])
    {
        return Err(not_read(number, text));
    }
    Ok(match text {
        "null" | "~" | "" => Value::Null,
        word => word.into(),
    })
}

fn not_read(number: usize, text: &str) -> String {
    format!("line {number}: {:?} is not understood", crate::console::harmless(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
        entries.iter().map(|&(split, list)| (split.to_owned(), owned(list))).collect()
    }

    /// Different indentations of the same list.
    #[test]
    fn lists_are_read_however_they_are_indented() {
        let expected = files(&[("train", &["data/train-*"]), ("test", &["a.csv", "b c.csv"])]);
        let cards = [
            concat!(
                "configs:\n",
                "- config_name: x\n",
                "  data_files:\n",
                "  - split: train\n",
                "    path: data/train-*\n",
                "  - split: test\n",
                "    path:\n",
                "    - a.csv\n",
                "    - b c.csv\n",
            ),
            concat!(
                "license: mit\n",
                "configs:\n",
                "  - config_name: \"x\"  # the first\n",
                "    data_files:\n",
                "      - split: 'train'\n",
                "        path: \"data/train-*\"\n",
                "\n",
                "      - path: [a.csv, \"b c.csv\"]\n",
                "        split: test\n",
                "tags:\n",
                "- a: {b\n",
            ),
            concat!(
                "configs:\n",
                "-\n",
                "  config_name: x\n",
                "  data_files:\n",
                "    train: data/train-*\n",
                "    test:\n",
                "    - a.csv\n",
                "    - b c.csv\n",
            ),
        ];
        for card in cards {
            for ends in ["\n", "\r\n"] {
                let card = format!("---\n{card}---\n# Text\nconfigs: none\n").replace('\n', ends);
                let mut found = configs(&card).unwrap();
                let mut config = found.remove(0);
                config.files.sort_by_key(|(split, _)| split != "train");
                assert_eq!((config.name.as_str(), &config.files), ("x", &expected), "{card}");
            }
        }
        let found = configs(concat!(
            "---\n",
            "configs:\n",
            "- config_name: a\n",
            "  data_dir: sub/\n",
            "- config_name: b\n",
            "  default: true\n",
            "  data_files: '*.csv'\n",
            "---\n",
        ))
        .unwrap();
        assert_eq!(
            (found[0].folder.as_str(), found[0].files.len(), found[0].is_default),
            ("sub", 0, false)
        );
        assert_eq!(
            (&found[1].files, found[1].is_default),
            (&files(&[("train", &["*.csv"])]), true)
        );
    }

    #[test]
    fn cards_without_a_list_and_what_is_not_understood() {
        for card in
            ["", "# Title\n", "---\nlicense: mit\n---\nconfigs:\n- x\n", "---\nconfigs:\n---\n"]
        {
            assert_eq!(configs(card).unwrap(), vec![], "{card:?}");
        }
        for list in [
            "- config_name: x\n  data_files: https://example.com/x.csv",
            "- config_name: x\n  data_files: {train: a}",
            "- config_name: x\n  data_files: &a b",
            "- config_name: ../x\n  data_files: b",
            "- config_name: x\n  data_files:\n  - split: ../y\n    path: b",
            "- x",
            "  x: y",
            "  - a: b\n- c: d",
            "- a: b\n     c: d",
            "- config_name: x\n  data_files: \"a",
        ] {
            assert!(configs(&format!("---\nconfigs:\n{list}\n---\n")).is_err(), "{list}");
        }
        // No input panics.
        let deep = (0..100).map(|i| " ".repeat(i) + "a:\n").collect::<Vec<_>>().concat();
        for junk in ["-\n-\n", "- - - x", ":\n:", "\t- a", "- a:\n- b:\n  -", &deep] {
            let _ = configs(&format!("---\nconfigs:\n{junk}"));
        }
    }
}
