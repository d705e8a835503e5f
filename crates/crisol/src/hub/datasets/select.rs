//! Selects the files of a data set's config and split: by the card if it lists configs, else by
//! file names, as the Python library `datasets` does.
//!
//! | files | config | split |
//! |---|---|---|
//! | `data/train-00000-of-00005.parquet` | default | train |
//! | `train.jsonl.gz`, `test/a.jsonl` | default | train, test |
//! | `main/train-00000-of-00001.parquet` | main | train |
//! | `main/test/0000.parquet` | main | test |
//! | `a.csv`, `b.csv` | default | train |

use std::collections::{BTreeMap, BTreeSet};

use glob::{MatchOptions, Pattern};

use super::card::Config;
use super::name::{DatasetName, is_config, is_split};
use crate::hub::selection::list_names;

/// File extensions by format, in order of preference; a config uses the first format that it has.
const FORMATS: [&[&str]; 4] =
    [&["parquet"], &["jsonl", "ndjson", "json"], &["csv", "tsv"], &["txt"]];

/// Files that are not data.
const NO_DATA: [&str; 7] = [
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
    "config.json",
    "metadata.json",
    "requirements.txt",
    "croissant.json",
];

/// Words in file names that stand for a split.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

const DEFAULT: &str = "default";

/// The selected part of a data set.
#[derive(Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) config: String,
    pub(super) split: String,
    /// In reading order.
    pub(super) files: Vec<String>,
}

/// Files by split.
type Splits = BTreeMap<String, Vec<String>>;

/// Whether the repository has a data file.
pub(super) fn has_data(names: &BTreeSet<String>) -> bool {
    names.iter().any(|name| format(name).is_some())
}

/// Selects config and split. Errors list the available ones.
pub(super) fn choose(
    name: &DatasetName,
    card: &[Config],
    names: &BTreeSet<String>,
) -> Result<Selection, String> {
    let configs = if card.is_empty() { by_names(names) } else { by_card(card, names)? };
    let known: Vec<&str> = configs.keys().map(String::as_str).collect();
    let asked = name.config.as_deref();
    let marked = || card.iter().find(|config| config.is_default).map(|config| config.name.as_str());
    let only = || if let [only] = known[..] { Some(only) } else { None };
    let config = match asked
        .or_else(marked)
        .or_else(|| known.iter().find(|name| **name == DEFAULT).copied())
    {
        Some(config) => config,
        None => only().ok_or_else(|| {
            if known.is_empty() {
                return "the repository has no data files of a supported format: .parquet, .jsonl, \
                        .json, .csv, .tsv or .txt, each also .gz or .zst"
                    .to_owned();
            }
            let like = DatasetName { config: Some(known[0].to_owned()), ..name.clone() };
            format!(
                "it has several configs; choose one, such as {like}. They are: {}",
                list_names(&known)
            )
        })?,
    };
    let splits = configs
        .get(config)
        .ok_or_else(|| format!("it has no config `{config}`. It has: {}", list_names(&known)))?;
    let known: Vec<&str> = splits.keys().map(String::as_str).collect();
    let split = name.split.as_deref().unwrap_or("train");
    let files = splits.get(split).ok_or_else(|| {
        let first = known.first().map(|&split| split.to_owned());
        let like = DatasetName { split: first, ..name.clone() };
        format!(
            "config `{config}` has no split `{split}`. It has: {}. \
             Choose one, such as {like}",
            list_names(&known)
        )
    })?;
    Ok(Selection { config: config.to_owned(), split: split.to_owned(), files: files.clone() })
}

/// The configs of the card.
fn by_card(card: &[Config], names: &BTreeSet<String>) -> Result<BTreeMap<String, Splits>, String> {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    let mut configs = BTreeMap::new();
    for Config { name, folder, files, .. } in card {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut splits = Splits::new();
        if files.is_empty() {
            let below: Vec<&String> =
                names.iter().filter(|file| file.starts_with(&prefix)).collect();
            splits = by_splits(&below, prefix.len());
        }
        for (split, patterns) in files {
            let of_split = splits.entry(split.clone()).or_default();
            for pattern in patterns {
                let path = format!("{prefix}{pattern}");
                let glob = Pattern::new(&path)
                    .map_err(|e| format!("its README.md names {path:?}: {e}"))?;
                // A folder matches everything in it.
                let inside = format!("{}/", path.trim_end_matches('/'));
                let of_pattern = |file: &&String| {
                    format(file).is_some()
                        && (**file == path
                            || glob.matches_with(file, options)
                            || file.starts_with(&inside))
                };
                let found: Vec<&String> = names.iter().filter(of_pattern).collect();
                if found.is_empty() {
                    return Err(format!(
                        "its README.md puts split `{split}` of config `{name}` in {path:?}, and \
                         the repository has no data file of that name"
                    ));
                }
                for file in found {
                    if !of_split.contains(file) {
                        of_split.push(file.clone());
                    }
                }
            }
        }
        configs.insert(name.clone(), splits);
    }
    Ok(configs)
}

/// The configs that folder names imply.
fn by_names(names: &BTreeSet<String>) -> BTreeMap<String, Splits> {
    let mut configs: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for name in names.iter().filter(|name| format(name).is_some()) {
        let folder = name.split_once('/').map(|(folder, _)| folder);
        // Folders named `data` or after a split belong to the default config.
        let config = folder
            .filter(|&folder| folder != "data" && keyword(folder).is_none() && is_config(folder));
        configs.entry(config.unwrap_or(DEFAULT)).or_default().push(name);
    }
    configs
        .into_iter()
        .map(|(config, files)| {
            let below = if files.iter().all(|file| file.starts_with(&format!("{config}/"))) {
                config.len() + 1
            } else {
                0
            };
            (config.to_owned(), by_splits(&files, below))
        })
        .collect()
}

/// The splits that file names imply, in the preferred format. `skip`: length of the config's folder
/// prefix.
fn by_splits(files: &[&String], skip: usize) -> Splits {
    let best = files.iter().filter_map(|file| format(file)).min();
    let files: Vec<&&String> =
        files.iter().filter(|file| format(file) == best && best.is_some()).collect();
    let mut splits = Splits::new();
    for &&file in &files {
        if let Some(split) = split_of(&file[skip..]) {
            splits.entry(split).or_default().push(file.clone());
        }
    }
    if splits.is_empty() && !files.is_empty() {
        splits.insert("train".to_owned(), files.into_iter().map(|&file| file.clone()).collect());
    }
    splits
}

/// The split that a path implies: by shard name, by a word in the file name, or by a word in a
/// folder.
fn split_of(path: &str) -> Option<String> {
    let (folders, file) =
        path.rsplit_once('/').map_or(("", path), |(folders, file)| (folders, file));
    let stem = file.split('.').next().unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    // NAME-00000-of-00005 has any name, also with dots.
    let shard = file.split_once("-of-").and_then(|(before, after)| {
        let (name, number) = before.rsplit_once('-')?;
        let count = after.split(['.', '-']).next()?;
        (digits(number) && digits(count) && is_split(name)).then_some(name)
    });
    if let Some(name) = shard {
        return Some(name.to_owned());
    }
    if let Some(split) = keyword(file) {
        return Some(split.to_owned());
    }
    let folder = folders.rsplit('/').next().unwrap_or_default();
    // The hub's conversions: CONFIG/SPLIT/0000.parquet, or partial-SPLIT.
    if digits(stem) && is_split(folder) && folder != "data" {
        return Some(folder.strip_prefix("partial-").unwrap_or(folder).to_owned());
    }
    folders.rsplit('/').find_map(keyword).map(str::to_owned)
}

/// The split that a word of the name stands for.
fn keyword(name: &str) -> Option<&'static str> {
    let words = || name.split(|c: char| !c.is_ascii_alphabetic());
    let found = |known: &[&str]| {
        words().any(|word| known.iter().any(|known| word.eq_ignore_ascii_case(known)))
    };
    SPLITS.iter().find(|(_, known)| found(known)).map(|(split, _)| *split)
}

/// Index of the file's format; `None` for hidden files and files that are not data.
fn format(name: &str) -> Option<usize> {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let hidden = |part: &str| part.starts_with(['.', '_']);
    if folders.split('/').any(hidden) || hidden(file) || NO_DATA.contains(&file) {
        return None;
    }
    let lower = file.to_ascii_lowercase();
    let plain = ["gz", "gzip", "zst", "zstd"]
        .iter()
        .find_map(|end| lower.strip_suffix(end)?.strip_suffix('.'))
        .unwrap_or(&lower);
    let (_, end) = plain.rsplit_once('.')?;
    FORMATS.iter().position(|ends| ends.contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::datasets::card;

    fn chosen(name: &str, card: &str, files: &[&str]) -> Result<Selection, String> {
        let files = files.iter().map(|&file| file.to_owned()).collect();
        choose(
            &format!("hf://datasets/a/b{name}").parse().unwrap(),
            &card::configs(card).unwrap(),
            &files,
        )
    }

    fn files(name: &str, card: &str, names: &[&str]) -> String {
        chosen(name, card, names).map_or_else(|error| error, |found| found.files.join(" "))
    }

    /// Common layouts without configs in the card.
    #[test]
    fn names_tell_configs_and_splits() {
        let shards = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        let all = [
            &shards[..],
            &["data/test_sft-00000-of-00001.parquet", "README.md", "train.csv", "load.py"],
        ]
        .concat();
        assert_eq!(files("", "", &all), shards.join(" "));
        assert_eq!(files(":test_sft", "", &all), "data/test_sft-00000-of-00001.parquet");
        let loose = ["my-dev.jsonl.gz", "trainer.jsonl", "sub.train.jsonl", "Test1.jsonl"];
        assert_eq!(files("", "", &loose), "sub.train.jsonl");
        assert_eq!(files(":validation", "", &loose), "my-dev.jsonl.gz");
        assert_eq!(files(":test", "", &loose), "Test1.jsonl");
        assert_eq!(files("", "", &["a.csv", "b.csv.zst", "c.txt"]), "a.csv b.csv.zst");
        assert_eq!(files("", "", &["train/a.jsonl", "test/b.jsonl"]), "train/a.jsonl");
        let configs = [
            "main/train-00000-of-00001.parquet",
            "socratic/train/0000.parquet",
            "main/partial-odd/0000.parquet",
        ];
        assert_eq!(files("/socratic", "", &configs), configs[1]);
        assert_eq!(files("/main:odd", "", &configs), configs[2]);
        let error = files("", "", &configs);
        assert!(
            error.contains("hf://datasets/a/b/main") && error.ends_with("main, socratic"),
            "{error}"
        );
        assert!(files("/x", "", &configs).ends_with("It has: main, socratic"));
        assert_eq!(files("", "", &configs[..1]), configs[0]);
        let error = files("/main:dev", "", &configs);
        assert!(error.contains("It has: odd, train.") && error.contains("/main:odd"), "{error}");
        let none = ["README.md", "x.bin", ".hidden/a.jsonl", "_x.jsonl", "dataset_infos.json"];
        assert!(files("", "", &none).contains("no data files"));
    }

    /// The card takes precedence over file names.
    #[test]
    fn the_card_tells_configs_and_splits() {
        let card = concat!(
            "---\n",
            "configs:\n",
            "- config_name: en\n",
            "  data_files:\n",
            "  - split: train\n",
            "    path: x/*.jsonl\n",
            "  - split: held\n",
            "    path: [\"y/**/*.jsonl\", z]\n",
            "- config_name: de\n",
            "  default: true\n",
            "  data_dir: de\n",
            "---\n",
        );
        let names = [
            "x/test.jsonl",
            "x/deep/no.jsonl",
            "y/a/b.jsonl",
            "z/c.jsonl",
            "z.jsonl",
            "de/a.csv",
            "train.parquet",
        ];
        assert_eq!(files("/en", card, &names), "x/test.jsonl");
        assert_eq!(files("/en:held", card, &names), "y/a/b.jsonl z/c.jsonl");
        let found = chosen("", card, &names).unwrap();
        assert_eq!(
            (found.config.as_str(), found.split.as_str(), found.files),
            ("de", "train", vec!["de/a.csv".into()])
        );
        assert!(files("/en", card, &names[1..]).contains("x/*.jsonl"));
        // Paths outside of the repository match nothing.
        for path in ["../../etc/*.jsonl", "/etc/passwd", "x/../../*.jsonl"] {
            let card = format!("---\nconfigs:\n- config_name: a\n  data_files: {path:?}\n---\n");
            assert!(files("", &card, &names).contains("no data file"), "{path}");
        }
    }
}
