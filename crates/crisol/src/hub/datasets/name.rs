//! Parses names of data sets: `hf://datasets/ORG/NAME[@REVISION][/CONFIG][:SPLIT[START..END]]`.

use std::fmt;
use std::str::FromStr;

use crisol_text::RowRange;

use super::super::id::{Repo, RepoKind, is_safe_path};

/// Prefix of data set names; paths do not start with it.
pub(crate) const SCHEME: &str = "hf://";

const SHAPE: &str = "a data set on a hub is named hf://datasets/ORG/NAME, optionally with \
                     @REVISION, /CONFIG, :SPLIT and a range of rows: \
                     hf://datasets/openai/gsm8k/main:train[..1000]";

/// A data set on a hub, or a part of it. Omitted parts are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatasetName {
    pub(crate) repo: Repo,
    pub(crate) config: Option<String>,
    pub(crate) split: Option<String>,
    pub(crate) rows: RowRange,
}

impl FromStr for DatasetName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<DatasetName, Self::Err> {
        let rest = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_prefix("datasets/"))
            .ok_or(SHAPE)?;
        let (rest, part) = match rest.split_once(':') {
            Some((rest, part)) => (rest, Some(part)),
            None => (rest, None),
        };
        // Names contain no @, so the first one starts the revision.
        let (name, revision, config) = match rest.split_once('@') {
            Some((name, rest)) => {
                let (revision, config) = revision_and_config(rest);
                (name, Some(revision), config)
            }
            None => match rest.match_indices('/').nth(1) {
                Some((at, _)) => (&rest[..at], None, Some(&rest[at + 1..])),
                None => (rest, None, None),
            },
        };
        let repo = Repo::new(RepoKind::Dataset, name, revision)
            .map_err(|problem| if problem.starts_with("after") { problem } else { SHAPE })?;
        if config.is_some_and(|config| !is_config(config)) {
            return Err("after the name of a data set comes the name of one of its configs");
        }
        let (split, rows) = match part {
            Some(part) => {
                let (split, rows) = split_and_rows(part)?;
                (Some(split), rows)
            }
            None => (None, RowRange::default()),
        };
        Ok(DatasetName { repo, config: config.map(str::to_owned), split, rows })
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repo.fmt(f)?;
        self.config.iter().try_for_each(|config| write!(f, "/{config}"))?;
        self.split.iter().try_for_each(|split| write!(f, ":{split}"))?;
        let RowRange { start, end } = self.rows;
        match (start, end) {
            (0, None) => Ok(()),
            (0, Some(end)) => write!(f, "[..{end}]"),
            (start, None) => write!(f, "[{start}..]"),
            (start, Some(end)) => write!(f, "[{start}..{end}]"),
        }
    }
}

/// Splits `REVISION/CONFIG`. A revision has no slash, except for the hub's own `refs/…/…`.
fn revision_and_config(text: &str) -> (&str, Option<&str>) {
    let slashes = if text.starts_with("refs/") { 2 } else { 0 };
    match text.match_indices('/').nth(slashes) {
        Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

pub(super) fn is_config(config: &str) -> bool {
    is_safe_path(config) && !config.contains(['/', '@', '[', ']'])
}

pub(super) fn is_split(split: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    split.len() <= 100 && split.split('.').all(word)
}

/// `SPLIT` or `SPLIT[START..END]`.
fn split_and_rows(text: &str) -> Result<(String, RowRange), &'static str> {
    const RANGE: &str = "a range of rows is [START..END], counted from 0 and without END; \
                         either can be omitted: train[..1000], train[1000..]";
    let (split, range) = match text.split_once('[') {
        Some((split, range)) => (split, Some(range)),
        None => (text, None),
    };
    if !is_split(split) {
        return Err("after : comes a split, such as train or test");
    }
    let Some(range) = range else { return Ok((split.to_owned(), RowRange::default())) };
    let (start, end) =
        range.strip_suffix(']').and_then(|range| range.split_once("..")).ok_or(RANGE)?;
    let number = |text: &str| {
        let digits = text.chars().all(|c| c.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or(RANGE)
    };
    let start = if start.is_empty() { 0 } else { number(start)? };
    let end = if end.is_empty() { None } else { Some(number(end)?) };
    if end.is_some_and(|end| end <= start) {
        return Err("the range of rows is empty: END must be above START");
    }
    Ok((split.to_owned(), RowRange { start, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All combinations of parts round-trip through text.
    #[test]
    fn names_are_read_as_they_are_written() {
        let ranges = [(0, None), (0, Some(5)), (7, None), (7, Some(9))];
        for revision in ["main", "v1.0", "refs/convert/parquet", "refs/pr/3"] {
            for config in [None, Some("main"), Some("20231101.en"), Some("all-processed")] {
                for split in [None, Some("train"), Some("train_sft"), Some("validation.clean")] {
                    for (start, end) in ranges {
                        if split.is_none() && (start, end) != (0, None) {
                            continue;
                        }
                        let name = DatasetName {
                            repo: Repo::new(RepoKind::Dataset, "org/name", Some(revision)).unwrap(),
                            config: config.map(str::to_owned),
                            split: split.map(str::to_owned),
                            rows: RowRange { start, end },
                        };
                        assert_eq!(name.to_string().parse(), Ok(name));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        let says = |text: &str| text.parse::<DatasetName>().unwrap_err();
        for text in [
            "org/name",
            "hf://org/name",
            "hf://models/org/name",
            "hf://datasets/name",
            "hf://datasets/../name",
            "hf://datasets//name",
            "HF://datasets/a/b",
        ] {
            assert!(says(text).contains("hf://datasets/ORG/NAME"), "{text}");
        }
        for text in ["a/b@", "a/b@../x", "a/b@refs/../x"] {
            assert!(!says(&format!("hf://datasets/{text}")).is_empty(), "{text}");
        }
        for text in ["a/b/", "a/b/..", "a/b/c/d", "a/b/c\\d", "a/b@v/"] {
            assert!(says(&format!("hf://datasets/{text}")).contains("config"), "{text}");
        }
        for text in ["", "..", "a/b", "[..1]", "a b", "tr\u{fc}n"] {
            assert!(says(&format!("hf://datasets/a/b:{text}")).contains("split"), "{text}");
        }
        for range in [
            "[]",
            "[1]",
            "[1..2",
            "[a..]",
            "[-1..]",
            "[+1..]",
            "[1..2..3]",
            "[1:2]",
            "[..99999999999999999999]",
        ] {
            assert!(says(&format!("hf://datasets/a/b:train{range}")).contains("range"), "{range}");
        }
        assert!(says("hf://datasets/a/b:train[5..5]").contains("empty"));
    }
}
