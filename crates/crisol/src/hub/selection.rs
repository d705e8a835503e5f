//! Selects the files of a repository that make up a model. Code is never downloaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crisol_hub::{HubError, json_error};
use serde::Deserialize;

use super::id::{is_gguf, is_safe_path};
use super::{ModelId, Need};

/// Read only where there is no `tokenizer.json`, and large.
const TEKKEN: &str = "tekken.json";

/// Config, tokenizer and chat template files; a repository has some of them.
const TEXT: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    TEKKEN,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// Weight files in the order of preference of `crisol-hub`: single file, index of shards.
const WEIGHTS: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// Maximum size of an index in bytes; DeepSeek-V3's has 9 million.
pub(super) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The files to download.
#[derive(Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) files: Vec<String>,
    /// The index that lists more files, if selected.
    pub(super) index: Option<&'static str>,
}

/// Selects the files. Errors say why the repository is not a usable model.
pub(super) fn choose(
    id: &ModelId,
    need: Need,
    names: &BTreeSet<String>,
) -> Result<Selection, String> {
    if let Some(file) = &id.file {
        return Ok(Selection { files: vec![file.clone()], index: None });
    }
    let has = |name: &str| names.contains(name);
    let mut files: Vec<String> =
        TEXT.iter().filter(|name| has(name)).map(|&name| name.to_owned()).collect();
    if has("tokenizer.json") {
        files.retain(|name| name != TEKKEN);
    }
    if !has("config.json") {
        return Err(no_model(id, names));
    }
    let mut index = None;
    if need == Need::Whole {
        let weights = WEIGHTS.iter().find_map(|&(single, parts)| {
            if has(single) {
                Some((single, None))
            } else {
                has(parts).then_some((parts, Some(parts)))
            }
        });
        let (file, parts) = weights.ok_or_else(|| no_model(id, names))?;
        files.push(file.to_owned());
        index = parts;
    }
    Ok(Selection { files, index })
}

/// The shards listed in an index; the repository must have all of them.
pub(super) fn shards(index: &Path, names: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let file = index.file_name().unwrap_or_default().to_string_lossy();
    let size = index.metadata().map_err(|e| HubError::io("read", index, e).to_string())?.len();
    if size > MAX_INDEX_BYTES {
        return Err(format!("its {file} has {size} bytes, more than any index"));
    }
    let text = std::fs::read(index).map_err(|e| HubError::io("read", index, e).to_string())?;
    let Index { weight_map } = serde_json::from_slice(&text)
        .map_err(|e| format!("its {file} is not an index of weights: {}", json_error(&e)))?;
    let shards: BTreeSet<String> = weight_map.into_values().collect();
    let end = if file.starts_with("pytorch_model") { ".bin" } else { ".safetensors" };
    if let Some(wrong) = shards.iter().find(|name| !name.ends_with(end) || !is_safe_path(name)) {
        return Err(format!("its {file} lists {wrong:?}, which is not a weight file"));
    }
    let missing: Vec<&str> = shards.difference(names).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(format!(
            "its {file} lists files that are not in the repository: {}. The upload is incomplete; \
             tell its owner, or choose another revision.",
            list_names(&missing)
        ));
    }
    Ok(shards)
}

/// Why the repository is not a usable model, and what it has instead.
fn no_model(id: &ModelId, names: &BTreeSet<String>) -> String {
    let gguf: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_gguf(name)).collect();
    if let [first, ..] = gguf[..] {
        return format!(
            "the repository holds GGUF files; choose one, such as {id}:{first}. It has: {}",
            list_names(&gguf)
        );
    }
    let lacks = if names.contains("config.json") {
        "no weights in a supported format (model.safetensors or pytorch_model.bin, single or \
         with an index)"
    } else {
        "no config.json"
    };
    format!("the repository holds no model that can be loaded: it has {lacks}")
}

/// Joins names for a message, truncated.
pub(super) fn list_names(names: &[&str]) -> String {
    const SHOWN: usize = 40;
    let mut list = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        let _ = write!(list, " and {} more", names.len() - SHOWN);
    }
    list
}

/// Whether a name is one part of a split GGUF file (`…-00001-of-00003.gguf`).
pub(super) fn is_part_of_gguf(name: &str) -> bool {
    let digits = |text: &str| text.len() == 5 && text.chars().all(|c| c.is_ascii_digit());
    let parts = || {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (_, number) = rest.rsplit_once('-')?;
        Some(digits(count) && digits(number) && count != "00001")
    };
    parts().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(id: &str, need: Need, names: &[&str]) -> Result<Selection, String> {
        choose(&id.parse().unwrap(), need, &names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn one_kind_of_weights_and_no_code() {
        let mut names = vec![
            "config.json",
            "modeling_evil.py",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "README.md",
            "original/consolidated.00.pth",
            "tokenizer.json",
            "onnx/model.onnx",
        ];
        let files = |selection: Selection| selection.files.join(" ");
        assert_eq!(
            files(chosen("a/b", Need::Whole, &names).unwrap()),
            "config.json tokenizer.json model.safetensors"
        );
        assert_eq!(files(chosen("a/b", Need::Text, &names).unwrap()), "config.json tokenizer.json");
        names.retain(|name| *name != "model.safetensors");
        let parts = chosen("a/b", Need::Whole, &names).unwrap();
        assert_eq!(parts.index, Some("model.safetensors.index.json"));
        names.retain(|name| !name.starts_with("model."));
        assert!(files(chosen("a/b", Need::Whole, &names).unwrap()).ends_with(" pytorch_model.bin"));
        names.retain(|name| !name.starts_with("pytorch_model"));
        assert!(chosen("a/b", Need::Whole, &names).unwrap_err().contains("no weights"));
        let error = chosen("a/b", Need::Whole, &["x-Q8_0.gguf", "y.gguf"]).unwrap_err();
        assert!(error.contains("a/b:x-Q8_0.gguf") && error.contains("y.gguf"), "{error}");
        assert!(chosen("a/b", Need::Whole, &["README.md"]).unwrap_err().contains("no config.json"));
    }

    #[test]
    fn parts_of_gguf_files() {
        assert!(is_part_of_gguf("a/m-Q8_0-00002-of-00003.gguf"));
        assert!(
            !["m.gguf", "m-00001-of-00001.gguf", "a-of-b.gguf"].into_iter().any(is_part_of_gguf)
        );
    }
}
